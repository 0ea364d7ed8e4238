"""What the hypervisor maps and splits by itself: eager splitting, and the beginning of a cycle of scenario rebuild."""

from __future__ import annotations

from stress.arch.geometry import LAST_LEVEL
from stress.kernels.clean import clean_frames, write_through_cache
from stress.kernels.codes import POOL_DRY, POOL_EXHAUSTED, STOPPED
from stress.kernels.descriptor import is_leaf, is_table, pages_at
from stress.kernels.entries import find
from stress.kernels.mapping import map_leaf
from stress.kernels.memslots import page_in_slot, slot_of
from stress.kernels.splitting import split_block
from stress.shm.accounts import HEARTBEAT, State
from stress.shm.atomics import load
from stress.shm.jit import entry, kernel
from stress.shm.layout import Machine
from stress.shm.mmu_lock import acquire, release

_DWELL = int(State.DWELL)
ALL_PAGES = 1 << 20  # as a share of a block's pages in 2**-20
DONE = 0


@kernel
def map_block(s: Machine, who: int, gfn: int) -> int:
    """Map the block at the scenario's block level that begins at ``gfn``, unless something is mapped there.

    DONE, POOL_DRY or POOL_EXHAUSTED. The caller holds mmu_lock alone.
    """
    level = s.geo.block_level
    index, _ = find(s, gfn, level)
    if load(s.tables, index) & 1 == 0:
        frame = load(s.host, page_in_slot(s, slot_of(s, gfn), gfn))
        if s.geo.cmo_per_fault != 0:  # then mapping does not clean, and its callers do
            clean_frames(s, frame, pages_at(s.geo, level), who)
        done = map_leaf(s, gfn, frame, level, True, False, who)
        if done == POOL_DRY or done == POOL_EXHAUSTED:
            return done
    return DONE


@entry
def populate(s: Machine, who: int, gfn: int) -> int:
    """``map_block`` with mmu_lock taken for it; DONE, STOPPED, POOL_DRY or POOL_EXHAUSTED."""
    if not acquire(s, who):
        return STOPPED
    status = map_block(s, who, gfn)
    release(s, who, _DWELL)
    return status


@kernel
def split_mapped(s: Machine, who: int, gfn: int, share: int, writable: bool) -> int:
    """If ``gfn`` is mapped by a block, replace that by a table with ``share`` of 2**20 of its pages.

    DONE, POOL_DRY or POOL_EXHAUSTED. The caller holds mmu_lock alone.
    """
    index, level = find(s, gfn, s.geo.block_level)
    old = load(s.tables, index)
    if level != s.geo.block_level or not is_leaf(old, level):
        return DONE
    page = split_block(s, index, old, level, gfn, share, writable, who)
    return min(page, DONE)


@entry
def split(s: Machine, who: int, gfn: int, share: int, writable: bool, map_first: bool) -> int:
    """``split_mapped`` with mmu_lock taken for it, or STOPPED; ``map_first``: what is not mapped is mapped first."""
    if not acquire(s, who):
        return STOPPED
    status = map_block(s, who, gfn) if map_first else DONE
    if status == DONE:
        status = split_mapped(s, who, gfn, share, writable)
    release(s, who, _DWELL)
    return status


@entry
def split_eagerly(s: Machine, who: int, first: int, end: int) -> int:
    """Split all that is mapped by blocks in guest frames [first, end), write-protected as it is, under one mmu_lock.

    DONE, STOPPED, POOL_DRY or POOL_EXHAUSTED. A chunk of Linux 6.5's ``kvm_mmu_split_huge_pages``.
    """
    if not acquire(s, who):
        return STOPPED
    status = DONE
    for gfn in range(first, end, pages_at(s.geo, s.geo.block_level)):
        s.states[who, HEARTBEAT] += 1
        status = split_mapped(s, who, gfn, ALL_PAGES, False)
        if status != DONE:
            break
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
