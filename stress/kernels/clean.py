"""Cache maintenance to the Point of Coherency, on the not-at-PoC bit of guest memory's cells."""

from __future__ import annotations

from stress.shm.atomics import fetch_and, load
from stress.shm.jit import kernel
from stress.shm.layout import NOT_AT_POC, Machine


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
    return count << s.geo.granule_shift
