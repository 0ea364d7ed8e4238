"""What proved orders cost on a platform, and which of them nothing beats in everything."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, Final, TypeVar

from stress.search.classes import Steps, names_of, written

#: What an order is judged by, in ns, less being better, with its heading.
FIGURES: Final = {
    "window_ns": "window",
    "stall_ns": "worst stall",
    "lock_hold_ns": "mmu_lock held",
    "total_ns": "rebuild",
}

_K = TypeVar("_K", bound=Hashable)


def label(steps: Steps, fwb: bool) -> str:
    """A program as `stress predict` and `stress compare` take it: a named order if one is this program."""
    return next(iter(names_of(steps, fwb)), ",".join(written(steps)))


def figures_of(order: Mapping[str, Any]) -> dict[str, int]:
    """`FIGURES` of an order in a result's document.

    Medians over rebuilds: window, mmu_lock held, first to last step. The stall is the longest of a vCPU that met a
    window; 0 if none did.
    """
    return {
        "window_ns": order["window_ns"]["p50"] or 0,
        "stall_ns": order["stall_by_class_ns"]["window"]["max"] or 0,
        "lock_hold_ns": order["mmu_lock"]["rebuilder_hold_ns"]["p50"],
        "total_ns": order["rebuild_ns"]["p50"],
    }


def front_of(figures: Mapping[_K, Mapping[str, int]]) -> list[_K]:
    """Those that no other beats: is better in one figure, and worse in none."""
    points = {key: tuple(each[name] for name in FIGURES) for key, each in figures.items()}

    def beaten(point: tuple[int, ...]) -> bool:
        return any(
            other != point and all(ours >= its for ours, its in zip(point, other, strict=True))
            for other in points.values()
        )

    return [key for key, point in points.items() if not beaten(point)]
