"""Log-linear histogram of durations: 32 buckets per power of two, so a value is known to about 3%."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from stress.shm.jit import kernel
from stress.shm.words import (
    HISTOGRAM_BUCKETS,
)

_SUB_BITS = 5
_SUB = 1 << _SUB_BITS
_LAST = HISTOGRAM_BUCKETS - 1


@kernel
def bucket(value_ns: int) -> int:
    """Index of the bucket that counts ``value_ns``; the last one takes all that is longer."""
    if value_ns < _SUB:
        return max(value_ns, 0)
    shift = 0
    while (value_ns >> shift) >= 2 * _SUB:
        shift += 1
    return min((shift << _SUB_BITS) + (value_ns >> shift), _LAST)


def lower_edges() -> npt.NDArray[np.int64]:
    """Smallest value in ns that each bucket counts, shape (HISTOGRAM_BUCKETS,)."""
    index = np.arange(HISTOGRAM_BUCKETS, dtype=np.int64)
    shift = np.maximum(index // _SUB - 1, 0)
    return np.where(index < 2 * _SUB, index, (index - shift * _SUB) << shift)
