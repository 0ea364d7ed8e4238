"""Throughput over time, as bounded as the supervisor's memory: intervals merge pairwise when a run is long."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from stress.results.data import Interval

_MOST = 600
_SHORTEST_NS = 15_000_000


@dataclass(frozen=True, slots=True)
class _Reading:
    """Running totals at a moment of the run."""

    at_ns: int
    accesses: int
    faults: int


class Throughput:
    """Accesses and faults between readings of the running totals."""

    def __init__(self) -> None:
        self._readings: list[_Reading] = []
        self._shortest_ns = _SHORTEST_NS

    def read(self, at_ns: int, accesses: int, faults: int) -> None:
        """Note the totals at ``at_ns`` since the run's first common access, unless the last reading is too recent."""
        readings = self._readings
        if readings and at_ns - readings[-1].at_ns < self._shortest_ns:
            return
        readings.append(_Reading(at_ns, accesses, faults))
        if len(readings) > _MOST:
            self._readings = readings[::2]
            self._shortest_ns = 2 * (at_ns - readings[0].at_ns) // _MOST

    def intervals(self) -> list[Interval]:
        """An interval between each two neighbouring readings."""
        return [
            Interval(
                start_ns=before.at_ns,
                duration_ns=after.at_ns - before.at_ns,
                accesses=after.accesses - before.accesses,
                faults=after.faults - before.faults,
            )
            for before, after in pairwise(self._readings)
        ]
