"""The rebuild: one interpreter for every order's steps, timed inside compiled code."""

from __future__ import annotations

from typing import Any

from stress.arch.geometry import LAST_LEVEL
from stress.kernels.clean import clean_frames
from stress.kernels.descriptor import is_table, leaf_descriptor, next_page, pages_at
from stress.kernels.entries import break_entry, find, page_of, set_entry
from stress.kernels.fault import STOPPED
from stress.kernels.oracle import report
from stress.kernels.pool import free_table, get_page, put_page
from stress.kernels.tlbi import tlbi_vmid
from stress.kernels.vcpu import FREED_TOO_EARLY
from stress.orders import Step
from stress.shm.atomics import load, store
from stress.shm.jit import kernel
from stress.shm.layout import (
    AT_STEP,
    PHASE,
    POOL_TAIL,
    R_ACCESSES,
    R_BLOCK,
    R_CLEANED,
    R_CYCLE_NS,
    R_DONE,
    R_END_NS,
    R_FAULTS,
    R_FREED,
    R_INVALID_NS,
    R_LOCKED_NS,
    R_MAPPED,
    R_NUMBER,
    R_ORDER,
    R_REQUESTED_NS,
    R_START_NS,
    R_STEPS,
    R_UNLOCKED_NS,
    R_VALID_NS,
    RECORD_RING,
    SEQUENCE,
    T_ALLOCATED,
    T_CLEANED,
    T_CYCLE_NS,
    T_FREED,
    T_INSIDE_NS,
    T_REBUILDS,
    T_TLBIS,
    TLBI_DONE,
    Kind,
    Machine,
    State,
)
from stress.shm.mmu_lock import acquire, release
from stress.shm.syscalls import clock_ns, fence

_DWELL = int(State.DWELL)
_AFTER_FREE = int(Kind.TABLE_USE_AFTER_FREE)
_INVALIDATE = Step.INVALIDATE.code
_TLBI = Step.TLBI.code
_CLEAN = Step.CLEAN.code
_INSTALL = Step.INSTALL.code
_UNMAP = Step.UNMAP.code
DONE = 0
NOT_A_TABLE = 1


@kernel
def unmap_last(s: Machine, page: int, gfn: int, who: int) -> None:
    """Drop a reference per page that a level 3 table maps, then free the table."""
    bits = s.geo.index_bits
    for index in range(page << bits, (page + 1) << bits):
        if load(s.tables, index) & 1:
            put_page(s, page)
    free_table(s, page, gfn, who)


@kernel
def unmap_table(s: Machine, page: int, level: int, gfn: int, who: int) -> None:
    """Visit a detached table and those below it, drop a reference per counted entry, free the tables.

    As ``stage2_map_walk_leaf`` and ``stage2_map_walk_table_post`` do under an anchor (Linux 5.10): entries keep
    their values until the page is freed, because a walker may still read them. Blocks exist at levels 1 and 2
    only, so a detached subtree has one or two levels of tables.
    """
    if level == LAST_LEVEL:
        unmap_last(s, page, gfn, who)
        return
    bits = s.geo.index_bits
    for index in range(page << bits, (page + 1) << bits):
        descriptor = load(s.tables, index)
        if descriptor & 1:
            if is_table(descriptor, level):
                unmap_last(s, next_page(s.geo, descriptor), gfn, who)
            put_page(s, page)
    free_table(s, page, gfn, who)


@kernel
def mapped_pages(s: Machine, page: int, level: int) -> int:
    """Pages that a block's table maps, by the reference counts: full if page_count == entries + 1 all over."""
    if level == LAST_LEVEL:
        return s.page_count[page] - 1
    bits = s.geo.index_bits
    mapped = 0
    for index in range(page << bits, (page + 1) << bits):
        descriptor = load(s.tables, index)
        if is_table(descriptor, level):
            mapped += s.page_count[next_page(s.geo, descriptor)] - 1
    return mapped


@kernel
def reachable(s: Machine, clock: int) -> bool:
    """Whether a vCPU may still walk into the table.

    It may while the table is linked, and after it was unlinked (at TLBI number ``clock``; negative: it was not)
    until a VMID-wide TLBI completes.
    """
    return clock < 0 or load(s.control, TLBI_DONE) <= clock


@kernel
def rebuild(s: Machine, who: int, order: int, steps: Any, block: int, number: int) -> int:
    """Turn the table of block number ``block`` into a block entry by ``steps`` (int64 step codes, shape (n,)).

    Fills the record of rebuild ``number``; DONE, STOPPED, or NOT_A_TABLE if there is nothing to rebuild.
    """
    geo = s.geo
    pages = pages_at(geo, geo.block_level)
    gfn = geo.base_gfn + block * pages
    record = s.records[number & (RECORD_RING - 1)]
    store(s.records, (number & (RECORD_RING - 1), R_DONE), 0)
    fence()  # whoever still copies the row's last contents sees that first
    record[R_ORDER] = order
    record[R_BLOCK] = block
    record[R_INVALID_NS] = 0
    record[R_VALID_NS] = 0
    record[R_CLEANED] = 0
    record[R_FAULTS] = 0
    store(s.records, (number & (RECORD_RING - 1), R_NUMBER), number)
    index, level = find(s, gfn, geo.block_level)  # only the hypervisor changes this entry, so it needs no lock yet
    old = load(s.tables, index)
    if not is_table(old, level):
        return NOT_A_TABLE
    record[R_MAPPED] = mapped_pages(s, next_page(geo, old), level + 1)
    record[R_REQUESTED_NS] = clock_ns()
    store(s.control, PHASE, number << 8 | (2 * order + 1))
    if not acquire(s, who):
        return STOPPED
    record[R_LOCKED_NS] = clock_ns()
    clock = -1
    freed = s.control[POOL_TAIL]
    now = clock_ns()
    record[R_START_NS] = now
    for i in range(len(steps)):
        step = steps[i]
        start = now
        store(s.procs, (who, AT_STEP), step)
        if clock < 0 and (step == _INVALIDATE or step == _INSTALL):
            clock = load(s.control, SEQUENCE)  # whichever comes first unlinks the table
        if step == _INVALIDATE:
            record[R_INVALID_NS] = start
            break_entry(s, index, level, gfn, who, number)
            put_page(s, page_of(s, index))
        elif step == _TLBI:
            tlbi_vmid(s)
        elif step == _CLEAN:
            record[R_CLEANED] += clean_frames(s, gfn - geo.base_gfn, pages)
        elif step == _INSTALL:
            broken = load(s.tables, index) & 1 == 0
            set_entry(s, index, leaf_descriptor(geo, gfn - geo.base_gfn, level), level, gfn, who)
            if broken:
                get_page(s, page_of(s, index))
        elif step == _UNMAP:
            if reachable(s, clock):
                report(s, _AFTER_FREE, who, gfn, level, old, load(s.tables, index), FREED_TOO_EARLY)
            unmap_table(s, next_page(geo, old), level + 1, gfn, who)
        now = clock_ns()
        if step == _INSTALL:
            record[R_VALID_NS] = now
        record[R_STEPS + i] = now - start
    store(s.procs, (who, AT_STEP), -1)
    record[R_END_NS] = now
    record[R_FREED] = s.control[POOL_TAIL] - freed
    release(s, who, _DWELL)
    record[R_UNLOCKED_NS] = clock_ns()
    store(s.control, PHASE, number << 8 | 2 * order)
    return DONE


@kernel
def complete(s: Machine, order: int, number: int, cycle_ns: int, accesses: int, tlbis: int, allocated: int) -> None:
    """Close the record of rebuild ``number`` with the figures of its whole cycle, and add it to the totals."""
    row = number & (RECORD_RING - 1)
    record = s.records[row]
    record[R_CYCLE_NS] = cycle_ns
    record[R_ACCESSES] = accesses
    totals = s.totals[order]
    totals[T_REBUILDS] += 1
    totals[T_CYCLE_NS] += cycle_ns
    totals[T_INSIDE_NS] += record[R_UNLOCKED_NS] - record[R_REQUESTED_NS]
    totals[T_TLBIS] += tlbis
    totals[T_CLEANED] += record[R_CLEANED]
    totals[T_ALLOCATED] += allocated
    totals[T_FREED] += record[R_FREED]
    store(s.records, (row, R_DONE), number)
