"""What takes guest memory out of the table: the MMU notifier (THP collapse, migration of pages) and memslot moves.

Linux 6.1: ``kvm_mmu_notifier_invalidate_range_start``, ``stage2_unmap_walker``, ``kvm_arch_flush_shadow_memslot``.
"""

from __future__ import annotations

from stress.arch.geometry import LAST_LEVEL
from stress.bugs import FREED_IN_WALK, RANGE_LEVEL_HINT, REFERENCE_KEPT
from stress.kernels.clean import count_not_at_poc
from stress.kernels.codes import FREED_TOO_EARLY, STILL_REACHED, STOPPED
from stress.kernels.descriptor import is_leaf, is_table, next_page, pages_at
from stress.kernels.entries import break_entry, find, may_settle, page_of, settle_entry, tlbi_entry
from stress.kernels.grace import grace, grace_clock, judge_free
from stress.kernels.inject import injected
from stress.kernels.memslots import count_change
from stress.kernels.oracle import broke_rule
from stress.kernels.pool import free_table, put_page
from stress.kernels.tlbi import tlbi_range
from stress.shm.accounts import Kind, State
from stress.shm.atomics import exchange, load, store
from stress.shm.jit import entry, kernel
from stress.shm.layout import Machine
from stress.shm.mmu_lock import acquire, release
from stress.shm.words import (
    HOST_MOVING,
    NOT_AT_POC,
    POISONED_CELL,
    SLOT_BASE,
    SLOT_FIRST,
    SLOT_LOGGING,
    SLOT_PAGES,
    SLOT_PROTECTED,
    TLBI_HINT,
)

_DWELL = int(State.DWELL)
_AFTER_FREE = int(Kind.TABLE_USE_AFTER_FREE)
_STALE = int(Kind.STALE_TRANSLATION)
DONE = 0


@kernel
def break_leaves(s: Machine, first: int, end: int, who: int) -> tuple[int, int, int, int]:
    """Break every leaf that maps guest frames [first, end).

    How many, a bit for each level at which one was, and the frames [low, high) that they mapped: a block that reaches
    beyond the range goes as a whole.
    """
    count, levels, low, high = 0, 0, first, end
    gfn = first
    while gfn < end:
        index, level = find(s, gfn, LAST_LEVEL)
        pages = pages_at(s.geo, level)
        begins = gfn & ~(pages - 1)
        descriptor = load(s.tables, index)
        if is_leaf(descriptor, level) and break_entry(s, index, descriptor, level, gfn, 0, who):
            if not injected(s, REFERENCE_KEPT):
                put_page(s, page_of(s, index))
            low = min(low, begins)
            high = max(high, begins + pages)
            count += 1
            levels |= 1 << level
        gfn = begins + pages
    return count, levels, low, high


@kernel
def settle_leaves(s: Machine, first: int, end: int, who: int) -> None:
    """Leave every broken entry for guest frames [first, end) empty: a TLBI of the range has been completed."""
    gfn = first
    while gfn < end:
        index, level = find(s, gfn, LAST_LEVEL)
        settle_entry(s, index, level, gfn, 0, who)
        gfn = (gfn | (pages_at(s.geo, level) - 1)) + 1


@kernel
def invalidate_leaves(s: Machine, levels: int, low: int, high: int, who: int) -> None:
    """One TLBI for all the leaves that were broken: at these levels (a bit each), of guest frames [low, high).

    A rule is asked: it is complete and covers all of them, or a TLB still leads to frames that are about to move.
    """
    hint = 0
    if high - low > 1 and injected(s, RANGE_LEVEL_HINT):
        hint = s.geo.block_level if levels >> LAST_LEVEL & 1 else LAST_LEVEL
    complete = tlbi_range(s, low, high | hint << TLBI_HINT, who)
    covered = complete and (hint == 0 or levels == 1 << hint)
    if not covered:
        index, level = find(s, low, LAST_LEVEL)
        broke_rule(s, _STALE, who, low, level, load(s.tables, index), 0, STILL_REACHED)
    if may_settle(s, covered, 0):
        settle_leaves(s, low, high, who)


@kernel
def free_empty_tables(s: Machine, first: int, end: int, who: int) -> int:
    """Free the tables that map nothing any more, deepest first, and invalidate their parent entries; how many.

    ``stage2_unmap_walker``: a child whose page_count is 1 goes, its entry with it. A rule is asked: no vCPU can walk
    into a table that is freed, because a TLBI for its entry is complete.
    """
    freed = 0
    for level in range(LAST_LEVEL - 1, s.geo.start_level - 1, -1):
        pages = pages_at(s.geo, level)
        gfn = first & ~(pages - 1)
        while gfn < end:
            index, reached = find(s, gfn, level)
            descriptor = load(s.tables, index)
            if reached == level and is_table(descriptor, level):
                child = next_page(s.geo, descriptor)
                if load(s.page_count, child) == 1 and break_entry(s, index, descriptor, level, gfn, 0, who):
                    put_page(s, page_of(s, index))
                    covered = not injected(s, FREED_IN_WALK) and tlbi_entry(s, index, level, gfn, 0, who)
                    clock = grace_clock(s)
                    if grace(s, who):
                        judge_free(s, clock, gfn, level, who)
                        if not covered:
                            broke_rule(
                                s, _AFTER_FREE, who, gfn, level, descriptor, load(s.tables, index), FREED_TOO_EARLY
                            )
                        free_table(s, child, gfn, who)
                        freed += 1
            gfn += pages_at(s.geo, reached)
            gfn &= ~(pages_at(s.geo, reached) - 1)
    return freed


@kernel
def unmap_range(s: Machine, first: int, end: int, who: int) -> int:
    """Unmap guest frames [first, end); leaves unmapped. The caller holds mmu_lock alone."""
    count, levels, low, high = break_leaves(s, first, end, who)
    late = s.geo.inject & FREED_IN_WALK != 0  # one TLBI for all, at the end, as if nothing was freed before
    if count != 0 and not late:
        invalidate_leaves(s, levels, low, high, who)
    freed = free_empty_tables(s, first, end, who)
    if late and count + freed != 0:
        invalidate_leaves(s, levels, low, high, who)
    return count


@kernel
def unmap_all(s: Machine, who: int) -> None:
    """Unmap every memslot. The caller holds mmu_lock alone."""
    for slot in range(s.geo.memslots):
        base = load(s.memslots, (slot, SLOT_BASE))
        unmap_range(s, base, base + load(s.memslots, (slot, SLOT_PAGES)), who)
        store(s.memslots, (slot, SLOT_PROTECTED), load(s.memslots, (slot, SLOT_LOGGING)))


@entry
def invalidate_start(s: Machine, who: int, gfn: int, page: int, pages: int) -> int:
    """The host is about to move the frames of ``pages`` pages: unmap them, and let faults retry; DONE or STOPPED."""
    if not acquire(s, who):
        return STOPPED
    count_change(s)
    for i in range(page, page + pages):
        store(s.host, i, HOST_MOVING)
    for block in range(page >> s.geo.index_bits, (page + pages - 1 >> s.geo.index_bits) + 1):
        store(s.huge, block, 0)
    unmap_range(s, gfn, gfn + pages, who)
    release(s, who, _DWELL)
    return DONE


@entry
def move_frames(s: Machine, old: int, old_mix: int, new: int, new_mix: int, pages: int) -> int:
    """Move the contents of frames: page i from ``old + (i ^ old_mix)`` to ``new + (i ^ new_mix)``; how many.

    The old frame is poisoned by an exchange, so a guest store that lands late either is in what moves or fails.
    """
    for i in range(pages):
        cell = exchange(s.cells, old + (i ^ old_mix), POISONED_CELL)
        count_not_at_poc(s, old, -1 if cell & NOT_AT_POC else 0)
        if s.geo.fwb == 0:
            cell |= NOT_AT_POC  # the host copies through its cache
            count_not_at_poc(s, new, 1)
        store(s.cells, new + (i ^ new_mix), cell)
    return pages


@entry
def invalidate_end(s: Machine, who: int, page: int, pages: int, new: int, new_mix: int, huge: int) -> int:
    """The frames have moved: the host maps the pages again, with huge pages if ``huge``; DONE or STOPPED."""
    if not acquire(s, who):
        return STOPPED
    count_change(s)
    for i in range(pages):
        store(s.host, page + i, new + (i ^ new_mix))
    for block in range(page >> s.geo.index_bits, (page + pages - 1 >> s.geo.index_bits) + 1):
        store(s.huge, block, huge)
    release(s, who, _DWELL)
    return DONE


@entry
def move_memslots(s: Machine, who: int, base: int) -> int:
    """Move all memslots, the first to guest frame ``base`` (``KVM_MR_MOVE``): their ranges are unmapped first.

    DONE or STOPPED.
    """
    if not acquire(s, who):
        return STOPPED
    count_change(s)
    unmap_all(s, who)
    for slot in range(s.geo.memslots):
        store(s.memslots, (slot, SLOT_BASE), base + load(s.memslots, (slot, SLOT_FIRST)))
    release(s, who, _DWELL)
    return DONE


@entry
def unmap_memslots(s: Machine, who: int) -> int:
    """Unmap all guest memory, as a stage of a test begins; DONE or STOPPED."""
    if not acquire(s, who):
        return STOPPED
    count_change(s)
    unmap_all(s, who)
    release(s, who, _DWELL)
    return DONE
