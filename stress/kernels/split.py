"""A block becomes pages, as dirty logging makes it: break, TLBI, make; the new table maps a share of the pages."""

from __future__ import annotations

from stress.arch.geometry import LAST_LEVEL
from stress.kernels.clean import clean_frames
from stress.kernels.descriptor import is_table, leaf_descriptor, pages_at, table_descriptor
from stress.kernels.entries import break_entry, find, set_entry, settle_leaf
from stress.kernels.fault import POOL_EXHAUSTED, STOPPED, map_leaf
from stress.kernels.pool import allocate_table
from stress.kernels.tlbi import tlbi_range
from stress.shm.atomics import fetch_or, load
from stress.shm.jit import kernel
from stress.shm.layout import NOT_AT_POC, Machine, State
from stress.shm.mmu_lock import acquire, release

_DWELL = int(State.DWELL)
DONE = 0


@kernel
def is_populated(page: int, share: int) -> bool:
    """Whether page number ``page`` of a block is mapped, if ``share`` of 2**20 are, spread evenly."""
    return ((page + 1) * share) >> 20 != (page * share) >> 20


@kernel
def fill_last(s: Machine, page: int, first: int, offset: int, share: int) -> None:
    """Fill an unlinked level 3 table for the frames from ``first`` on, page ``offset`` of their block.

    Nobody sees the table yet: plain stores, and one addition for all of its references.
    """
    base = page << s.geo.index_bits
    counted = 0
    for i in range(1 << s.geo.index_bits):
        if is_populated(offset + i, share):
            clean_frames(s, first + i, 1)
            s.tables[base + i] = leaf_descriptor(s.geo, first + i, LAST_LEVEL)
            counted += 1
    s.page_count[page] += counted


@kernel
def fill_table(s: Machine, page: int, level: int, first: int, share: int) -> int:
    """Fill an unlinked table for the frames of a block from ``first`` on; DONE or POOL_EXHAUSTED."""
    if level == LAST_LEVEL:
        fill_last(s, page, first, 0, share)
        return DONE
    base = page << s.geo.index_bits
    pages = pages_at(s.geo, level)
    for i in range(1 << s.geo.index_bits):
        child = allocate_table(s, level + 1)
        if child < 0:
            return POOL_EXHAUSTED
        fill_last(s, child, first + i * pages, i * pages, share)
        s.tables[base + i] = table_descriptor(s.geo, child)
        s.page_count[page] += 1
    return DONE


@kernel
def split(s: Machine, who: int, block: int, share: int) -> int:
    """Replace block number ``block`` by a table with ``share`` of 2**20 of its pages; DONE, STOPPED, POOL_EXHAUSTED.

    A block that is not mapped yet is mapped first; one that is a table already stays as it is.
    """
    geo = s.geo
    pages = pages_at(geo, geo.block_level)
    gfn = geo.base_gfn + block * pages
    if not acquire(s, who):
        return STOPPED
    index, level = find(s, gfn, geo.block_level)
    status = DONE
    if load(s.tables, index) & 1 == 0:
        status = map_leaf(s, gfn, geo.block_level, who)
        index, level = find(s, gfn, geo.block_level)
    if status != POOL_EXHAUSTED and not is_table(load(s.tables, index), level):
        page = allocate_table(s, level + 1)
        status = POOL_EXHAUSTED if page < 0 else fill_table(s, page, level + 1, block * pages, share)
        if status == DONE:
            break_entry(s, index, level, gfn, who, 0)
            tlbi_range(s, gfn, gfn + pages)
            settle_leaf(s, index, level, gfn, who)
            set_entry(s, index, table_descriptor(geo, page), level, gfn, who)
    release(s, who, _DWELL)
    return POOL_EXHAUSTED if status == POOL_EXHAUSTED else DONE


@kernel
def write_unmapped(s: Machine, who: int, block: int) -> int:
    """The VMM writes every unmapped page of a block through its cache: not at the PoC; DONE or STOPPED.

    Under mmu_lock, table by table, so that no page is mapped between the look and the write: a VMM that raced with
    the clean would be wrong in every order.
    """
    geo = s.geo
    pages = pages_at(geo, geo.block_level)
    step = pages_at(geo, LAST_LEVEL - 1)
    for first in range(block * pages, (block + 1) * pages, step):
        if not acquire(s, who):
            return STOPPED
        index, level = find(s, geo.base_gfn + first, LAST_LEVEL)
        if level == LAST_LEVEL:
            for i in range(step):
                if load(s.tables, index + i) & 1 == 0:
                    fetch_or(s.cells, first + i, NOT_AT_POC)
        release(s, who, _DWELL)
    return DONE
