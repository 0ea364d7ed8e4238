"""A uniform sample of bounded size from a stream of rows (Vitter's algorithm R, a chunk at a time)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


class Reservoir:
    """Keeps every row up to ``capacity``, from there on a uniform sample."""

    def __init__(self, dtype: np.dtype[Any], capacity: int, seed: int) -> None:
        self._kept: npt.NDArray[Any] = np.zeros(min(capacity, 1024), dtype)
        self._capacity = capacity
        self._random = np.random.default_rng(seed)
        self.seen = 0

    def extend(self, rows: npt.NDArray[Any]) -> None:
        """Offer rows."""
        room = min(max(self._capacity - self.seen, 0), len(rows))
        if room:
            self._grow(self.seen + room)
            self._kept[self.seen : self.seen + room] = rows[:room]
            self.seen += room
        if late := len(rows) - room:
            places = self._random.integers(0, np.arange(self.seen + 1, self.seen + late + 1))
            chosen = places < self._capacity
            # Later rows replace earlier ones at the same place: assignment keeps the last.
            self._kept[places[chosen]] = rows[room:][chosen]
            self.seen += late

    def _grow(self, size: int) -> None:
        if size > len(self._kept):
            grown = np.zeros(min(self._capacity, max(size, 2 * len(self._kept))), self._kept.dtype)
            grown[: len(self._kept)] = self._kept
            self._kept = grown

    @property
    def sampled(self) -> bool:
        """Whether rows were left out."""
        return self.seen > self._capacity

    @property
    def rows(self) -> npt.NDArray[Any]:
        """The rows that were kept."""
        return self._kept[: min(self.seen, self._capacity)]
