"""A block becomes pages at once: break, TLBI, make, with a table that maps all or a share of the pages.

That is KVM's eager splitting (``kvm_pgtable_stage2_split``, Linux 6.5), and how the rebuild scenario begins a cycle.
"""

from __future__ import annotations

from stress.arch.geometry import LAST_LEVEL
from stress.kernels.clean import clean_frames, write_through_cache
from stress.kernels.codes import POOL_DRY, POOL_EXHAUSTED, STOPPED
from stress.kernels.descriptor import (
    LOCKED,
    is_leaf,
    is_table,
    leaf_descriptor,
    pages_at,
    table_descriptor,
    write_protected,
)
from stress.kernels.entries import break_entry, find, set_entry, tlbi_entry
from stress.kernels.mapping import map_leaf
from stress.kernels.memslots import page_in_slot, slot_of
from stress.kernels.pool import allocate_table
from stress.kernels.teardown import unmap_table
from stress.shm.accounts import State
from stress.shm.atomics import get, load, put
from stress.shm.jit import entry, kernel
from stress.shm.layout import Machine
from stress.shm.mmu_lock import acquire, release
from stress.shm.trace_log import append, trace
from stress.shm.traced import Traced

_DWELL = int(State.DWELL)
_FILL = int(Traced.FILL)
DONE = 0


@kernel
def is_populated(page: int, share: int) -> bool:
    """Whether page number ``page`` of a block is mapped, if ``share`` of 2**20 are, spread evenly."""
    return ((page + 1) * share) >> 20 != (page * share) >> 20


@kernel
def fill_last(s: Machine, page: int, first: int, offset: int, share: int, writable: bool, who: int) -> None:
    """Fill an unlinked level 3 table for the frames from ``first`` on, page ``offset`` of their block.

    Nobody sees the table yet: plain stores, and one addition for all of its references.
    """
    base = page << s.geo.index_bits
    counted = 0
    for i in range(1 << s.geo.index_bits):
        if is_populated(offset + i, share):
            leaf = leaf_descriptor(s.geo, first + i, LAST_LEVEL)
            put(s.tables, base + i, leaf if writable else write_protected(leaf))
            counted += 1
    put(s.page_count, page, get(s.page_count, page) + counted)
    if s.geo.trace_rows != 0:
        for index in range(base, base + (1 << s.geo.index_bits)):
            if get(s.tables, index) != 0:
                append(s, _FILL, who, index, get(s.tables, index))


@kernel
def fill_table(s: Machine, page: int, level: int, first: int, share: int, writable: bool, who: int) -> int:
    """Fill an unlinked table for the frames of a block from ``first`` on; DONE, POOL_DRY or POOL_EXHAUSTED."""
    if level == LAST_LEVEL:
        fill_last(s, page, first, 0, share, writable, who)
        return DONE
    base = page << s.geo.index_bits
    pages = pages_at(s.geo, level)
    for i in range(1 << s.geo.index_bits):
        child = allocate_table(s, level + 1, who)
        if child < 0:
            return child
        fill_last(s, child, first + i * pages, i * pages, share, writable, who)
        put(s.tables, base + i, table_descriptor(s.geo, child))
        trace(s, _FILL, who, base + i, table_descriptor(s.geo, child))
        put(s.page_count, page, get(s.page_count, page) + 1)
    return DONE


@kernel
def map_block(s: Machine, who: int, gfn: int) -> int:
    """Map the block at the scenario's block level that begins at ``gfn``, unless something is mapped there.

    DONE, POOL_DRY or POOL_EXHAUSTED. The caller holds mmu_lock alone.
    """
    level = s.geo.block_level
    index, _ = find(s, gfn, level)
    if load(s.tables, index) & 1 == 0:
        frame = load(s.host, page_in_slot(s, slot_of(s, gfn), gfn))
        if s.geo.cmo_per_fault != 0:  # then mapping does not clean: whoever asks for it does
            clean_frames(s, frame, pages_at(s.geo, level), who)
        done = map_leaf(s, gfn, frame, level, True, False, who)
        if done == POOL_DRY or done == POOL_EXHAUSTED:
            return done
    return DONE


@entry
def populate(s: Machine, who: int, gfn: int) -> int:
    """``map_block`` on its own; DONE, STOPPED, POOL_DRY or POOL_EXHAUSTED."""
    if not acquire(s, who):
        return STOPPED
    status = map_block(s, who, gfn)
    release(s, who, _DWELL)
    return status


@entry
def split(s: Machine, who: int, gfn: int, share: int, writable: bool, map_first: bool) -> int:
    """Replace the block that begins at ``gfn`` by a table with ``share`` of 2**20 of its pages.

    DONE, STOPPED, POOL_DRY or POOL_EXHAUSTED. A block that is not mapped yet is mapped first if ``map_first`` says so;
    one that is a table already stays as it is.
    """
    geo = s.geo
    pages = pages_at(geo, geo.block_level)
    if not acquire(s, who):
        return STOPPED
    status = map_block(s, who, gfn) if map_first else DONE
    index, level = find(s, gfn, geo.block_level)
    old = load(s.tables, index)
    if status == DONE and level == geo.block_level and is_leaf(old, level):
        page = allocate_table(s, level + 1, who)
        first = load(s.host, page_in_slot(s, slot_of(s, gfn), gfn)) & ~(pages - 1)
        status = page if page < 0 else fill_table(s, page, level + 1, first, share, writable, who)
        if status != DONE and page >= 0:
            unmap_table(s, page, level + 1, gfn, who)  # what there is of it
        if status == DONE:
            break_entry(s, index, old, level, gfn, 0, who)
            tlbi_entry(s, index, level, gfn, LOCKED, who)
            set_entry(s, index, table_descriptor(geo, page), level, gfn, who)
    release(s, who, _DWELL)
    return status


@entry
def write_unmapped(s: Machine, who: int, gfn: int) -> int:
    """The VMM writes every unmapped page of the block at ``gfn`` through its cache: not at the PoC; DONE or STOPPED.

    Under mmu_lock, table by table, so that no page is mapped between the look and the write: a VMM that raced with
    the clean would be wrong in every order.
    """
    geo = s.geo
    pages = pages_at(geo, geo.block_level)
    step = pages_at(geo, LAST_LEVEL - 1)
    for start in range(gfn, gfn + pages, step):
        if not acquire(s, who):
            return STOPPED
        index, level = find(s, start, LAST_LEVEL)
        first = load(s.host, page_in_slot(s, slot_of(s, start), start))
        if level == LAST_LEVEL:
            for i in range(step):
                if load(s.tables, index + i) & 1 == 0:
                    write_through_cache(s, first + i)
        elif load(s.tables, index) & 1 == 0:
            for i in range(step):
                write_through_cache(s, first + i)
        release(s, who, _DWELL)
    return DONE


@entry
def is_split(s: Machine, gfn: int) -> bool:
    """Whether a table is where the scenario's block at ``gfn`` would be."""
    index, level = find(s, gfn, s.geo.block_level)
    return level == s.geo.block_level and is_table(load(s.tables, index), level)
