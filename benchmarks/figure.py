"""One figure: ratios measured round by round, their target, and how to interleave the rounds."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Figure:
    """What was measured: ours, what it is held against, the ratio ours / reference of each round, its target."""

    name: str
    ours: str
    reference: str
    ratios: Floats  # (rounds,)
    bound: float
    at_least: bool = True

    @property
    def ratio(self) -> float:
        """Median over the rounds."""
        return float(np.median(self.ratios))

    @property
    def reached(self) -> bool:
        """Whether the median reaches the target."""
        return self.ratio >= self.bound if self.at_least else self.ratio <= self.bound

    def row(self) -> tuple[str, ...]:
        """The figure as cells of the table."""
        low, high = np.quantile(self.ratios, (0.25, 0.75))
        spread = f"{low:.3g} to {high:.3g}" if len(self.ratios) > 1 else ""
        target = f"{'>=' if self.at_least else '<='} {self.bound:.3g}"
        verdict = "ok" if self.reached else "MISSED"
        return self.name, self.ours, self.reference, f"{self.ratio:.3g}", spread, target, verdict


#: Heads of the cells of `Figure.row`.
HEADS = ("figure", "ours", "reference", "ratio", "quartiles", "target", "")


def elapsed_s(work: Callable[[], object]) -> float:
    """How long ``work`` takes: for work so long that the call itself does not count."""
    start = time.perf_counter_ns()
    work()
    return (time.perf_counter_ns() - start) / 1e9


def interleave(rounds: int, first: Callable[[], float], second: Callable[[], float]) -> tuple[Floats, Floats]:
    """Measure both in turns, each round beginning with the other one; their values, (rounds,) each."""
    values = np.zeros((2, rounds))
    for at in range(rounds):
        for which in (0, 1) if at % 2 else (1, 0):
            values[which, at] = (first, second)[which]()
    return values[0], values[1]
