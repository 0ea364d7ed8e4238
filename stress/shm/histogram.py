"""The histogram of durations: which bucket counts a value."""

from __future__ import annotations

from numba.cpython.unsafe.numbers import leading_zeros

from stress.shm.accounts import HISTOGRAM_BUCKETS
from stress.shm.edges import SUB, SUB_BITS
from stress.shm.jit import inline, kernel
from stress.shm.mode import JIT_DISABLED

_LAST = HISTOGRAM_BUCKETS - 1


if JIT_DISABLED:

    def bit_length(value: int) -> int:
        """Bits that ``value``, which is positive, needs."""
        return int(value).bit_length()

else:

    @inline
    def bit_length(value: int) -> int:
        """Bits that ``value``, which is positive, needs."""
        return 64 - int(leading_zeros(value))  # type: ignore[call-arg]


@kernel
def bucket(value_ns: int) -> int:
    """Index of the bucket that counts ``value_ns``; the last one takes all that is longer."""
    if value_ns < SUB:
        return max(value_ns, 0)
    shift = bit_length(value_ns) - SUB_BITS - 1
    return min((shift << SUB_BITS) + (value_ns >> shift), _LAST)
