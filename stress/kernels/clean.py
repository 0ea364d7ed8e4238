"""Cache maintenance to the Point of Coherency, on the not-at-PoC bit of guest memory's cells.

What it costs on a platform depends on the range alone, not on what is dirty in it: KVM issues DC CVAC for every line.
"""

from __future__ import annotations

from stress.arch.geometry import LAST_LEVEL
from stress.kernels.cost import spend
from stress.kernels.descriptor import is_table, next_page, pages_at
from stress.shm.atomics import fetch_and, load
from stress.shm.jit import kernel
from stress.shm.layout import (
    Machine,
)
from stress.shm.words import (
    NOT_AT_POC,
)


@kernel
def clean_frames(s: Machine, first: int, count: int) -> int:
    """Clean frames [first, first + count) to the PoC; returns the bytes cleaned, 0 with FWB.

    KVM's ``stage2_map_walker_try_leaf`` skips it with FWB too (``stage2_pte_cacheable`` and
    ``kvm_arm_has_fwb``): the guest's accesses are then always cacheable.
    """
    if s.geo.fwb != 0:
        return 0
    for frame in range(first, first + count):
        # Only a dirty line needs the read-modify-write; guest stores race with it and are redone.
        if load(s.cells, frame) & NOT_AT_POC != 0:
            fetch_and(s.cells, frame, ~NOT_AT_POC)
    # First the D-cache, then the I-cache: the other way round it could be refilled with stale instructions.
    spend(count * s.geo.clean_ps_per_page // 1000 + s.geo.icache_ns)
    return count << s.geo.granule_shift


@kernel
def clean_unmapped_in(s: Machine, page: int, first: int) -> int:
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
            cleaned += clean_frames(s, first + start, end - start)
        start = end
    return cleaned


@kernel
def clean_unmapped(s: Machine, page: int, level: int, first: int) -> int:
    """Clean the part of a block, from frame ``first`` on, that its table ``page`` at ``level`` does not map.

    Pages that are mapped were cleaned when they were mapped. Returns the bytes cleaned.
    """
    if s.geo.fwb != 0:
        return 0
    if level == LAST_LEVEL:
        return clean_unmapped_in(s, page, first)
    cleaned = 0
    pages = pages_at(s.geo, level)
    base = page << s.geo.index_bits
    for i in range(1 << s.geo.index_bits):
        descriptor = load(s.tables, base + i)
        if is_table(descriptor, level):
            cleaned += clean_unmapped_in(s, next_page(s.geo, descriptor), first + i * pages)
        elif descriptor & 1 == 0:
            cleaned += clean_frames(s, first + i * pages, pages)
    return cleaned
