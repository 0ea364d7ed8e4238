"""Whole distributions of times, small enough for a document: log-spaced bins, those that hold anything."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

#: Bins per power of two; a finer log-linear histogram with a multiple of it falls into them without rest.
_PER_OCTAVE: Final = 8
_OCTAVES: Final = 62

#: Lower edges in ns: every integer below 16, from there on 8 bins per power of two.
EDGES: Final[npt.NDArray[np.int64]] = np.array(
    [
        *range(_PER_OCTAVE),
        *(
            (1 << octave) + ((1 << octave) // _PER_OCTAVE) * step
            for octave in range(_PER_OCTAVE.bit_length() - 1, _OCTAVES)
            for step in range(_PER_OCTAVE)
        ),
    ],
    dtype=np.int64,
)

#: Bins as parallel lists: ``lower_ns`` is within a bin, ``upper_ns`` is not.
Bins = dict[str, list[int]]


def of_values(values_ns: npt.NDArray[Any]) -> Bins:
    """The distribution of integers >= 0, shape (n,)."""
    return of_counts(values_ns, np.ones(values_ns.shape, np.int64))


def of_counts(lower_ns: npt.NDArray[Any], counts: npt.NDArray[np.int64]) -> Bins:
    """The distribution of a histogram with these lower edges, both (n_buckets,)."""
    total = np.zeros(EDGES.size, np.int64)
    np.add.at(total, np.searchsorted(EDGES, lower_ns, side="right") - 1, counts)
    filled = np.flatnonzero(total)
    return {
        "lower_ns": EDGES[filled].tolist(),
        "upper_ns": EDGES[np.minimum(filled + 1, EDGES.size - 1)].tolist(),
        "count": total[filled].tolist(),
    }
