"""The buckets of the histogram of durations: log-linear, 32 per power of two, so a value is known to about 3%."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from stress.shm.accounts import HISTOGRAM_BUCKETS

SUB_BITS = 5
SUB = 1 << SUB_BITS


def lower_edges() -> npt.NDArray[np.int64]:
    """Smallest value in ns that each bucket counts, shape (HISTOGRAM_BUCKETS,)."""
    index = np.arange(HISTOGRAM_BUCKETS, dtype=np.int64)
    shift = np.maximum(index // SUB - 1, 0)
    return np.where(index < 2 * SUB, index, (index - shift * SUB) << shift)
