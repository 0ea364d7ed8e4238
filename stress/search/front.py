"""What proved orders cost on a platform, and which of them no other beats in every figure."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TypeVar

from stress.results.searched import FIGURES
from stress.search.classes import Steps, names_of, written

_K = TypeVar("_K", bound=Hashable)


def label(steps: Steps, fwb: bool) -> str:
    """A program as `stress predict` and `stress compare` take it: a named order if one is this program."""
    return next(iter(names_of(steps, fwb)), ",".join(written(steps)))


def front_of(figures: Mapping[_K, Mapping[str, int]]) -> list[_K]:
    """The programs that no other beats; one beats another if it is better in one figure and worse in none."""
    points = {key: tuple(each[name] for name in FIGURES) for key, each in figures.items()}

    def beaten(point: tuple[int, ...]) -> bool:
        return any(
            other != point and all(ours >= its for ours, its in zip(point, other, strict=True))
            for other in points.values()
        )

    return [key for key, point in points.items() if not beaten(point)]
