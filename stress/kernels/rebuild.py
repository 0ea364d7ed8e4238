"""The rebuild: one interpreter for every order's steps, timed inside compiled code.

Who rebuilds holds mmu_lock, alone or for reading: the hypervisor process, or a vCPU in its fault handler. Under a
shared mmu_lock the first step that changes the entry decides who rebuilds it; who comes too late leaves a void record.
"""

from __future__ import annotations

from stress.arch import bbm
from stress.arch.geometry import LAST_LEVEL
from stress.bugs import ENTRY_READ_AGAIN
from stress.kernels.clean import clean_frames, clean_unmapped
from stress.kernels.codes import FREED_TOO_EARLY, LEFT_INVALID, LEFT_NT, STOPPED
from stress.kernels.descriptor import has_nt, is_leaf, is_table, leaf_descriptor, next_page, pages_at, with_nt
from stress.kernels.entries import break_entry, find, page_of, set_entry, swap_entry
from stress.kernels.grace import begin_walk, end_walk, grace
from stress.kernels.inject import injected
from stress.kernels.memslots import page_in_slot, slot_of
from stress.kernels.oracle import broke_rule
from stress.kernels.pool import get_page, put_page
from stress.kernels.records import close_inside, open_record
from stress.kernels.teardown import defer, detach, unmap_table
from stress.kernels.tlbi import tlbi_range, tlbi_vmid
from stress.orders import Step
from stress.shm.atomics import fetch_add, load, store
from stress.shm.jit import entry, kernel
from stress.shm.layout import Machine
from stress.shm.mmu_lock import acquire, acquire_shared, release
from stress.shm.placement import out_of_line
from stress.shm.syscalls import clock_ns
from stress.shm.trace_log import end_trace_with
from stress.shm.words import (
    AT_STEP,
    ORDER_WORDS,
    R_CLEANED,
    R_CLOCK,
    R_DETACHED,
    R_END_NS,
    R_ENDED,
    R_FREED,
    R_INVALID_NS,
    R_LEFT,
    R_LOCKED_NS,
    R_MAPPED,
    R_ORDER,
    R_START_NS,
    R_STEPS,
    R_UNLOCKED_NS,
    R_VALID_NS,
    R_VOID,
    RECORD_RING,
    SEQUENCE,
    TLBI_DONE,
    VOIDED,
    Kind,
    State,
)

_DWELL = int(State.DWELL)
_AFTER_FREE = int(Kind.TABLE_USE_AFTER_FREE)
_BBM = int(Kind.BBM)
_NOT_INSTALLED = int(Kind.NOT_INSTALLED)
_INVALIDATE = Step.INVALIDATE.code
_TLBI = Step.TLBI.code
_TLBI_IPA = Step.TLBI_IPA.code
_CLEAN = Step.CLEAN.code
_CLEAN_UNMAPPED = Step.CLEAN_UNMAPPED.code
_INSTALL = Step.INSTALL.code
_INSTALL_NT = Step.INSTALL_NT.code
_CLEAR_NT = Step.CLEAR_NT.code
_UNMAP = Step.UNMAP.code
_UNMAP_DEFERRED = Step.UNMAP_DEFERRED.code
_UNMAP_UNLOCKED = Step.UNMAP_UNLOCKED.code
DONE = 0
NOT_A_TABLE = 1
VOID = 2


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
def install(s: Machine, index: int, held: int, leaf: int, ours: bool, level: int, gfn: int, who: int) -> bool:
    """Make ``leaf`` the entry, which we broke (``ours``) or is still ``held``; False if another was faster."""
    if ours:
        set_entry(s, index, leaf, level, gfn, who)
        get_page(s, page_of(s, index))
        return True
    return swap_entry(s, index, held, leaf, level, gfn, who)


@kernel
def judge_end(s: Machine, index: int, left: int, leaf: int, level: int, gfn: int, who: int) -> None:
    """After its last step a rebuild leaves the block that it promised, for good: valid, and without nT.

    ``left`` is what our own steps left, for where the entry is not ours any more.
    """
    there = left if s.geo.shared != 0 else load(s.tables, index)
    if there != leaf:
        detail = LEFT_NT if is_leaf(there, level) and has_nt(there) else LEFT_INVALID
        broke_rule(s, _NOT_INSTALLED, who, gfn, level, there, leaf, detail)


@kernel
def interpret(s: Machine, who: int, number: int, index: int, old: int, level: int, gfn: int, frame: int) -> int:
    """Replace table entry ``old`` by a block for ``frame``, by the steps of record ``number``'s order; DONE or VOID.

    The caller holds mmu_lock, and then calls ``leave``.
    """
    out_of_line()
    geo = s.geo
    record = s.records[number & (RECORD_RING - 1)]
    order = record[R_ORDER]
    pages = pages_at(geo, level)
    table = next_page(geo, old)
    held = old  # the entry as we know it
    leaf = leaf_descriptor(geo, frame, level)
    clock = -1
    broken = False  # by us, and not made since
    record[R_MAPPED] = mapped_pages(s, table, level + 1)
    now = clock_ns()
    record[R_START_NS] = now
    for i in range(ORDER_WORDS):
        step = s.orders[order, i]
        if step < 0:
            break
        start = now
        store(s.procs, (who, AT_STEP), step)
        ours = True
        made = step == _INSTALL or step == _INSTALL_NT
        if step == _INVALIDATE:
            record[R_INVALID_NS] = start
            ours = broken = break_entry(s, index, held, level, gfn, number, who)
            if ours:
                put_page(s, page_of(s, index))
        elif step == _TLBI:
            tlbi_vmid(s, who)
        elif step == _TLBI_IPA:
            tlbi_range(s, gfn, gfn + 1, who)
        elif step == _CLEAN or step == _CLEAN_UNMAPPED:
            if geo.cmo_per_fault == 0:  # else whoever rebuilds has cleaned before
                if step == _CLEAN:
                    record[R_CLEANED] += clean_frames(s, frame, pages)
                else:
                    record[R_CLEANED] += clean_unmapped(s, table, level + 1, frame)
        elif step == _INSTALL:
            ours = install(s, index, held, leaf, broken, level, gfn, who)
            held, broken = leaf, False
        elif step == _INSTALL_NT:
            ours = install(s, index, held, with_nt(leaf), broken, level, gfn, who)
            held, broken = with_nt(leaf), False
        elif step == _CLEAR_NT:
            early = not broken and reachable(s, clock)  # else the entry itself knows
            made = broken
            if broken:
                install(s, index, held, leaf, True, level, gfn, who)
            else:
                swap_entry(s, index, held, leaf, level, gfn, who)  # if it is not there any more, so is its nT
            if early:
                broke_rule(s, _BBM, who, gfn, level, held, leaf, bbm.NT_CLEARED)
            held, broken = leaf, False
        else:
            if not is_table(load(s.tables, index), level) and injected(s, ENTRY_READ_AGAIN):
                pass  # the walker lost the way to the children
            elif step == _UNMAP_UNLOCKED:
                record[R_DETACHED] = table
            else:
                detach(s, table, level + 1, who)
                if reachable(s, clock):
                    broke_rule(s, _AFTER_FREE, who, gfn, level, old, load(s.tables, index), FREED_TOO_EARLY)
                if step == _UNMAP or not defer(s, table, level + 1, gfn, order, who):
                    grace(s, who)
                    record[R_FREED] += unmap_table(s, table, level + 1, gfn, who)
        now = clock_ns()
        if made:
            record[R_VALID_NS] = now
        if clock < 0 and (made or step == _INVALIDATE):
            clock = load(s.control, SEQUENCE)  # whichever comes first unlinked the table
        record[R_STEPS + i] = now - start
        if not ours:
            record[R_VOID] = 1
            record[R_DETACHED] = -1  # it is the other's
            fetch_add(s.control, VOIDED, 1)
            break
    if record[R_VOID] == 0:
        judge_end(s, index, 0 if broken else held, leaf, level, gfn, who)
    store(s.procs, (who, AT_STEP), -1)
    record[R_CLOCK] = clock
    record[R_END_NS] = now
    store(s.records, (number & (RECORD_RING - 1), R_ENDED), number)
    return VOID if record[R_VOID] != 0 else DONE


@kernel
def leave(s: Machine, who: int, number: int, level: int, gfn: int, state: int) -> None:
    """Give mmu_lock back after a rebuild, then tear down what the order left for this moment."""
    out_of_line()
    record = s.records[number & (RECORD_RING - 1)]
    end_walk(s, who)
    if record[R_DETACHED] >= 0:
        detach(s, record[R_DETACHED], level + 1, who)
    release(s, who, state)
    now = clock_ns()
    record[R_UNLOCKED_NS] = now
    if record[R_DETACHED] >= 0:
        store(s.procs, (who, AT_STEP), _UNMAP_UNLOCKED)
        if reachable(s, record[R_CLOCK]):
            broke_rule(s, _AFTER_FREE, who, gfn, level, record[R_DETACHED], 0, FREED_TOO_EARLY)
        grace(s, who)
        record[R_FREED] += unmap_table(s, record[R_DETACHED], level + 1, gfn, who)
        record[R_END_NS] = clock_ns()
        store(s.procs, (who, AT_STEP), -1)
        order = record[R_ORDER]
        for i in range(ORDER_WORDS):
            if s.orders[order, i] == _UNMAP_UNLOCKED:
                record[R_STEPS + i] = record[R_END_NS] - now
    close_inside(s, record[R_ORDER])
    end_trace_with(s, number)
    store(s.records, (number & (RECORD_RING - 1), R_LEFT), number)


@entry
def rebuild(s: Machine, who: int, gfn: int) -> int:
    """Turn the table at the block level of ``gfn`` into a block, by the order under test.

    DONE, VOID if a vCPU was faster, STOPPED, or NOT_A_TABLE if there is nothing to rebuild.
    """
    level = s.geo.block_level
    requested = clock_ns()
    if not (acquire_shared(s, who) if s.geo.shared != 0 else acquire(s, who)):
        return STOPPED
    locked = clock_ns()
    if s.geo.shared != 0:
        begin_walk(s, who)
    index, found = find(s, gfn, level)
    old = load(s.tables, index)
    if found != level or not is_table(old, level):
        end_walk(s, who)
        release(s, who, _DWELL)
        return NOT_A_TABLE
    number = open_record(s, who, gfn, requested)
    s.records[number & (RECORD_RING - 1), R_LOCKED_NS] = locked
    frame = load(s.host, page_in_slot(s, slot_of(s, gfn), gfn))
    if s.geo.cmo_per_fault != 0:  # before v5.14 that came before any walk
        s.records[number & (RECORD_RING - 1), R_CLEANED] = clean_frames(s, frame, pages_at(s.geo, level))
    done = interpret(s, who, number, index, old, level, gfn, frame)
    leave(s, who, number, level, gfn, _DWELL)
    return done
