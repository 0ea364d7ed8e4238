"""The entries that a process rebuilds or splits, as they were when it looked, and whether they still are."""

from __future__ import annotations

from stress.bugs import NO_RECHECK
from stress.kernels.descriptor import REBUILD_MASK, is_table, next_page, pages_at, window_of
from stress.kernels.entries import find
from stress.kernels.inject import injected
from stress.kernels.memslots import mapping_level, page_in_slot, slot_of
from stress.shm.atomics import load
from stress.shm.jit import kernel
from stress.shm.layout import Machine
from stress.shm.words import (
    B_ASKED,
    B_BROKEN,
    B_BUILT,
    B_CLEANED,
    B_CLOCK,
    B_DETACHED,
    B_FRAME,
    B_GFN,
    B_GONE,
    B_HELD,
    B_INDEX,
    B_LEVEL,
    B_NUMBER,
    B_OLD,
    B_SEEN,
    BATCH_HOLD_NS,
    BATCH_LOCKED_NS,
    BATCH_LOCKS,
    BATCH_NEXT_STATE,
    BATCH_SIZE,
    BATCH_WAIT_NS,
    BATCH_YIELDED,
    COVERED,
    HOST_SEQUENCE,
    LINKED,
    TLBI_DONE,
)


@kernel
def begin(s: Machine, who: int, next_state: int) -> None:
    """Reset the accounts of ``who`` before a rebuild. Its state is ``next_state`` once it has given mmu_lock back."""
    batch = s.batches[who]
    batch[BATCH_LOCKS] = batch[BATCH_WAIT_NS] = batch[BATCH_HOLD_NS] = batch[BATCH_LOCKED_NS] = 0
    batch[BATCH_YIELDED] = 0
    batch[BATCH_NEXT_STATE] = next_state


@kernel
def note(s: Machine, who: int, entry: int, gfn: int, level: int, index: int, old: int) -> None:
    """Steps are to replace ``old``, which is entry ``index`` of the block that begins at ``gfn``."""
    b = s.building[who, entry]
    b[B_GFN] = gfn
    b[B_LEVEL] = level
    b[B_INDEX] = index
    b[B_OLD] = b[B_HELD] = old
    b[B_BROKEN] = b[B_DETACHED] = b[B_GONE] = b[B_CLEANED] = b[B_BUILT] = 0
    b[B_CLOCK] = LINKED


@kernel
def look(s: Machine, who: int, entry: int, gfn: int, level: int) -> bool:
    """Note what the table and the host hold for the block around ``gfn``; False if no table stands there."""
    b = s.building[who, entry]
    b[B_SEEN] = load(s.control, HOST_SEQUENCE)
    b[B_ASKED] = gfn
    index, found = find(s, gfn, level)
    old = load(s.tables, index)
    slot = slot_of(s, gfn)
    if found != level or not is_table(old, level) or slot < 0:
        return False
    frame = load(s.host, page_in_slot(s, slot, gfn))
    offset = pages_at(s.geo, level) - 1
    note(s, who, entry, gfn & ~offset, level, index, old)
    b[B_FRAME] = frame & ~offset
    return frame >= 0


@kernel
def moved(s: Machine, who: int, entry: int) -> bool:
    """Whether the entry, or the host's mapping, has changed since it was looked at."""
    b = s.building[who, entry]
    frame = b[B_FRAME]
    differs = load(s.control, HOST_SEQUENCE) != b[B_SEEN] or load(s.tables, b[B_INDEX]) != b[B_OLD]
    if differs and s.geo.inject & NO_RECHECK != 0 and look(s, who, entry, b[B_GFN], b[B_LEVEL]):
        differs = frame == b[B_FRAME] or not injected(s, NO_RECHECK)
        b[B_FRAME] = frame  # note the entry as it is now, but keep the frame
    return differs


@kernel
def still_ours(s: Machine, who: int, entry: int) -> bool:
    """Whether the entry is as this process broke it, and the host maps what it did."""
    b = s.building[who, entry]
    index, level = find(s, b[B_GFN], b[B_LEVEL])
    there = index == b[B_INDEX] and level == b[B_LEVEL]
    ours = there and window_of(load(s.tables, index)) == b[B_NUMBER] & REBUILD_MASK
    return bool(ours and load(s.control, HOST_SEQUENCE) == b[B_SEEN])


@kernel
def first_of_batch(s: Machine, gfn: int, level: int) -> int:
    """First guest frame of the batch around ``gfn``: as many blocks as it has, from the first of guest memory on."""
    pages = pages_at(s.geo, level)
    block = gfn & ~(pages - 1)
    return block - (block - (s.geo.base_gfn & ~(pages - 1))) % (s.geo.batch * pages)


@kernel
def gather(s: Machine, who: int, gfn: int, level: int) -> int:
    """Look at the blocks of the batch around ``gfn``; how many of them are tables.

    The others are left out, and so is a neighbour that may not be a block.
    """
    pages = pages_at(s.geo, level)
    asked = gfn & ~(pages - 1)
    first = first_of_batch(s, gfn, level)
    size = 0
    for each in range(first, first + s.geo.batch * pages, pages):
        if each == asked:
            size += look(s, who, size, gfn, level)
        else:
            slot = slot_of(s, each)
            if slot >= 0 and mapping_level(s, slot, page_in_slot(s, slot, each)) <= level:
                size += look(s, who, size, each, level)
    s.batches[who, BATCH_SIZE] = size
    return size


@kernel
def table_of(s: Machine, who: int, entry: int) -> int:
    """Page of the old table."""
    return next_page(s.geo, s.building[who, entry, B_OLD])


@kernel
def record_row(s: Machine, who: int, entry: int) -> int:
    """Row of the entry's rebuild in the records."""
    return s.building[who, entry, B_NUMBER] & (s.geo.record_rows - 1)


@kernel
def reachable(s: Machine, who: int, entry: int) -> bool:
    """Whether a vCPU may still walk into the old table, or have the old block in its TLB.

    It may while that is linked, and after it was unlinked until a TLBI of its range or the VMID completes.
    """
    clock = s.building[who, entry, B_CLOCK]
    return clock == LINKED or (clock != COVERED and load(s.control, TLBI_DONE) <= clock)
