"""One figure: a ratio measured in one run, and its target."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.rounds import Floats


@dataclass(frozen=True, slots=True)
class Figure:
    """The measured value (``ours``), the value it is held against, their ratio with its spread, and the target."""

    name: str
    ours: str
    reference: str
    ratio: float
    spread: tuple[float, float] | None
    bound: float
    at_least: bool = True
    ratios: tuple[float, ...] = ()  # of each round, where the figure is a contest

    @classmethod
    def of_rounds(cls, name: str, ours: str, reference: str, ratios: Floats, bound: float) -> Figure:
        """The median of the rounds' ratios, with the quartiles as its spread; to be at least ``bound``."""
        low, high = np.quantile(ratios, (0.25, 0.75))
        each = tuple(ratios.tolist())
        return cls(name, ours, reference, float(np.median(ratios)), (float(low), float(high)), bound, ratios=each)

    @classmethod
    def of_limit(cls, name: str, values: list[float], limit: float, unit: str, more: str = "") -> Figure:
        """The median of ``values`` against a limit in the same unit, with their range as its spread."""
        middle = float(np.median(values))
        spread = (min(values) / limit, max(values) / limit) if len(values) > 1 else None
        return cls(name, f"{middle:.3g} {unit}{more}", f"{limit:g} {unit}", middle / limit, spread, 1.0, at_least=False)

    @property
    def reached(self) -> bool:
        """Whether the ratio reaches the target."""
        return self.ratio >= self.bound if self.at_least else self.ratio <= self.bound

    def row(self) -> tuple[str, ...]:
        """The figure as cells of the table."""
        spread = "" if self.spread is None else f"{self.spread[0]:.3g} to {self.spread[1]:.3g}"
        target = f"{'>=' if self.at_least else '<='} {self.bound:.3g}"
        verdict = "ok" if self.reached else "MISSED"
        return self.name, self.ours, self.reference, f"{self.ratio:.3g}", spread, target, verdict


#: Heads of the cells of `Figure.row`.
HEADS = ("figure", "ours", "reference", "ratio", "spread", "target", "")
