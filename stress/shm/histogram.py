"""The histogram of durations: which bucket counts a value."""

from __future__ import annotations

from stress.shm.edges import SUB, SUB_BITS
from stress.shm.jit import kernel
from stress.shm.words import HISTOGRAM_BUCKETS

_LAST = HISTOGRAM_BUCKETS - 1


@kernel
def bucket(value_ns: int) -> int:
    """Index of the bucket that counts ``value_ns``; the last one takes all that is longer."""
    if value_ns < SUB:
        return max(value_ns, 0)
    shift = 0
    while (value_ns >> shift) >= 2 * SUB:
        shift += 1
    return min((shift << SUB_BITS) + (value_ns >> shift), _LAST)
