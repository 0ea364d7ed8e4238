"""Cache maintenance to the Point of Coherency, on the not-at-PoC bit of guest memory's cells.

What it costs on a platform depends on the range alone, not on what is dirty in it: KVM issues DC CVAC for every line.
"""

from __future__ import annotations

from stress.arch.geometry import LAST_LEVEL
from stress.kernels.cost import spend
from stress.kernels.descriptor import is_table, next_page, pages_at
from stress.shm.atomics import clear_bits, fetch_add, load, load_bits, set_bits
from stress.shm.jit import inline, kernel
from stress.shm.layout import Geo, Machine
from stress.shm.placement import out_of_line
from stress.shm.words import NOT_AT_POC


@inline
def block_of(geo: Geo, frame: int) -> int:
    """Index in ``unclean`` of the block that a frame lies in."""
    return frame >> ((LAST_LEVEL - geo.block_level) * geo.index_bits)


@kernel
def count_not_at_poc(s: Machine, frame: int, change: int) -> None:
    """Add ``change`` to the number of frames not at the PoC in the block that ``frame`` lies in."""
    if change != 0:
        fetch_add(s.unclean, block_of(s.geo, frame), change)


@kernel
def write_through_cache(s: Machine, frame: int) -> None:
    """The host writes a frame through its cache: it is not at the PoC."""
    if set_bits(s.cells, frame, NOT_AT_POC) == 0:
        count_not_at_poc(s, frame, 1)


@kernel
def frame_not_at_poc(s: Machine, first: int, level: int) -> int:
    """The first frame that is not at the PoC, of those that a leaf at ``level`` maps from ``first`` on; -1 if all are.

    A block whose count is 0 needs no look at its cells, so that this rule adds nothing to a window. Another count
    proves nothing, because a vCPU that has cleaned its page may not have counted it yet: then the cells decide.
    """
    pages = pages_at(s.geo, level)
    if first < 0 or first + pages > s.geo.frames:
        return -1  # not guest memory, which other rules report
    if level < LAST_LEVEL and load(s.unclean, block_of(s.geo, first)) == 0:
        return -1
    for frame in range(first, first + pages):
        if load_bits(s.cells, frame, NOT_AT_POC) != 0:
            return frame
    return -1


@kernel
def clean_to_poc(s: Machine, first: int, count: int, who: int) -> int:
    """Clean frames [first, first + count), all of one block, to the PoC; returns the bytes cleaned."""
    out_of_line()
    cleaned = 0
    for frame in range(first, first + count):
        # Only a dirty line needs the read-modify-write; guest stores race with it and are redone.
        if load_bits(s.cells, frame, NOT_AT_POC) != 0 and clear_bits(s.cells, frame, NOT_AT_POC) != 0:
            cleaned += 1  # by this process and no other
    count_not_at_poc(s, first, -cleaned)
    # First the D-cache, then the I-cache: the other way round it could be refilled with stale instructions.
    spend(s, who, count * s.geo.clean_ps_per_page // 1000 + s.geo.icache_ns)
    return count << s.geo.granule_shift


@inline
def clean_frames(s: Machine, first: int, count: int, who: int) -> int:
    """Clean frames as ``clean_to_poc`` does, unless there is FWB; returns the bytes cleaned.

    KVM's ``stage2_map_walker_try_leaf`` skips it with FWB too (``stage2_pte_cacheable`` and
    ``kvm_arm_has_fwb``): the guest's accesses are then always cacheable.
    """
    return clean_to_poc(s, first, count, who) if s.geo.fwb == 0 else 0


@kernel
def clean_unmapped_in(s: Machine, page: int, first: int, who: int) -> int:
    """Clean the frames from ``first`` on that level 3 table ``page`` does not map; returns the bytes cleaned."""
    entries = 1 << s.geo.index_bits
    if load(s.page_count, page) == entries + 1:
        return 0  # fully populated
    cleaned = 0
    base = page << s.geo.index_bits
    start = 0
    while start < entries:  # runs of unmapped pages, so that the range operation is issued once for each
        while start < entries and load(s.tables, base + start) & 1:
            start += 1
        end = start
        while end < entries and load(s.tables, base + end) & 1 == 0:
            end += 1
        if end > start:
            cleaned += clean_frames(s, first + start, end - start, who)
        start = end
    return cleaned


@kernel
def clean_unmapped(s: Machine, page: int, level: int, first: int, who: int) -> int:
    """Clean the part of a block, from frame ``first`` on, that its table ``page`` at ``level`` does not map.

    Pages that are mapped were cleaned when they were mapped. Returns the bytes cleaned.
    """
    if s.geo.fwb != 0:
        return 0
    if level == LAST_LEVEL:
        return clean_unmapped_in(s, page, first, who)
    cleaned = 0
    pages = pages_at(s.geo, level)
    base = page << s.geo.index_bits
    for i in range(1 << s.geo.index_bits):
        descriptor = load(s.tables, base + i)
        if is_table(descriptor, level):
            cleaned += clean_unmapped_in(s, next_page(s.geo, descriptor), first + i * pages, who)
        elif descriptor & 1 == 0:
            cleaned += clean_frames(s, first + i * pages, pages, who)
    return cleaned
