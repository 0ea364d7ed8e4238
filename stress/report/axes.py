"""Axes and scales that fit their values: logarithmic where they span much, ticks that people would choose."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

from stress.report.theme import TIME_LABEL

#: Values that span more than this factor are shown on a logarithmic axis.
_MUCH: Final = 20.0


def log_ticks(low: float, high: float) -> list[float]:
    """Round values between two positive bounds: decades, with 3, or 2 and 5, between them where there is room."""
    decades = math.log10(high / low)
    factors: tuple[float, ...] = (1, 1.5, 2, 3, 5, 7)
    for most, coarser in ((0.8, (1, 2, 5)), (3, (1, 3)), (5, (1,))):
        factors = coarser if decades > most else factors
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    return [
        tick
        for exponent in range(first, last + 1)
        for factor in factors
        if low <= (tick := float(f"{factor}e{exponent}")) <= high
    ]


def log_scale(values: Sequence[float]) -> tuple[dict[str, Any], list[float]]:
    """A logarithmic scale around positive values, and its ticks."""
    low, high = min(values), max(values)
    low, high = low / 1.15, high * 1.15
    if high / low < 4:  # two ticks at least
        middle = math.sqrt(low * high)
        low, high = middle / 2, middle * 2
    return {"type": "log", "domain": [low, high], "nice": False}, log_ticks(low, high)


def names_axis(field: str, names: Sequence[str], width: int) -> dict[str, Any]:
    """One row per name in ``field``, from the top in the order given; a name takes ``width`` pixels at most."""
    style = {"title": None, "labelLimit": width, "labelColor": "var(--text)", "grid": True}
    return {"field": field, "type": "nominal", "sort": [*names], "axis": style}


def time_axis(values: Sequence[float], title: str, *, log: bool) -> dict[str, Any]:
    """Scale and axis of times in ns."""
    return _fitted([value for value in values if value > 0] if log else values, title, TIME_LABEL, log=log)


def amount_axis(values: Sequence[float], title: str, *, log: bool, share: bool = False) -> dict[str, Any]:
    """Scale and axis of counts, rates or shares."""
    label = "format(datum.value, '~%')" if share else "format(datum.value, '~s')"
    return _fitted(values, title, label, log=log)


def spans_much(values: Sequence[float]) -> bool:
    """Whether positive values need a logarithmic axis."""
    return bool(values) and min(values) > 0 and max(values) > _MUCH * min(values)


def _fitted(values: Sequence[float], title: str, label: str, *, log: bool) -> dict[str, Any]:
    axis: dict[str, Any] = {"title": title, "labelExpr": label, "labelOverlap": True}
    if not log:
        return {"scale": {"zero": True, "nice": True}, "axis": {**axis, "tickCount": 5}}
    scale, ticks = log_scale(values)
    return {"scale": scale, "axis": {**axis, "values": ticks}}
