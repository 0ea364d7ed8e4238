"""Plots of a sweep's metrics over each swept key: one line per order, with the spread over repeats."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from stress.errors import UsageError
from stress.report.axes import amount_axis, spans_much, time_axis
from stress.report.figure import Figure
from stress.report.theme import SERIES, by_series, lines, spec, tooltip
from stress.results import cells
from stress.results.trials import SweepFile
from stress.units import parse_duration, parse_size

Order = dict[str, Any]

_ORDER: Final = "order"
#: Swept keys that choose the orders, which are the lines of a plot; they are an axis only if no other key was swept.
ORDER_KEYS: Final = frozenset({_ORDER, "orders"})


@dataclass(frozen=True, slots=True)
class Point:
    """One measurement of a sweep: the swept values as they were written, and the result document."""

    values: dict[str, Any]
    document: dict[str, Any]


def measured(sweep: SweepFile) -> list[Point]:
    """The trials that have a result. They ran in a random order, and are here in that of the configuration."""
    trials = sorted(sweep.trials, key=lambda trial: (trial.point, trial.repeat))
    return [Point(trial.values, trial.document) for trial in trials if trial.document is not None]


@dataclass(frozen=True, slots=True)
class Metric:
    """One number of an order of a result."""

    name: str
    of: Callable[[Order], float | None]
    text: Callable[[float], str]
    kind: str  # time, share or amount


METRICS: Final = (
    Metric("invalid window, median", lambda order: order["window_ns"]["p50"], cells.time, "time"),
    Metric("invalid window, p99", lambda order: order["window_ns"]["p99"], cells.time, "time"),
    Metric("window stall, p99", lambda order: order["stall_by_class_ns"]["window"]["p99"], cells.time, "time"),
    Metric("rebuild, median", lambda order: order["rebuild_ns"]["p50"], cells.time, "time"),
    Metric("accesses per second", lambda order: order["accesses_per_s"], cells.scaled, "amount"),
    Metric("rebuilds hit", lambda order: order["rebuilds_hit_share"], cells.share, "share"),
)


def keys(points: Sequence[Point]) -> list[str]:
    """The swept keys with more than one value, in the sequence of the file; without those of orders."""
    found: dict[str, set[str]] = {}
    for point in points:
        for key, value in point.values.items():
            found.setdefault(key, set()).add(label(value))
    return [key for key, values in found.items() if len(values) > 1 and key not in ORDER_KEYS]


def label(value: Any) -> str:
    """A swept value in words."""
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def scaling(points: Sequence[Point], key: str) -> Figure:
    """All metrics against one key."""
    others = [other for other in keys(points) if other != key]
    points = [point for point in points if key in point.values]
    split = _series(points, others)
    pooled = len(split) > SERIES
    if pooled:
        split = _series(points, [])
    plots = [plot for metric in METRICS if (plot := _plot(points, key, metric, [] if pooled else others, split))]
    note = "Points are single measurements, lines join their medians, bands reach from the least to the greatest."
    if pooled and others:
        note += f" {', '.join(others)} vary within each line."
    if not plots:
        return Figure(f"Scaling with {key}", "No point has a number to show.")
    return Figure(f"Scaling with {key}", note, plots)


def side_by_side(points: Sequence[Point]) -> Figure:
    """All metrics of each order, for a sweep of nothing but orders."""
    names = _series(points, [])
    plots = [plot for metric in METRICS if (plot := _plot(points, _ORDER, metric, [], names))]
    return Figure("Orders side by side", "Points are single measurements." if plots else "There is none.", plots)


def _series(points: Sequence[Point], others: list[str]) -> list[str]:
    """Names of all lines: an order, with the other keys' values."""
    names = (_name(point, order, others) for point in points for order in point.document["orders"])
    return list(dict.fromkeys(names))


def _name(point: Point, order: Order, others: list[str]) -> str:
    parts = [f"{key} {label(point.values[key])}" for key in others if key in point.values]
    return ", ".join([order["order"], *parts])


def _plot(
    points: Sequence[Point], key: str, metric: Metric, others: list[str], names: list[str]
) -> dict[str, Any] | None:
    single: list[dict[str, Any]] = []
    for point in points:
        for order in point.document["orders"]:
            if (value := metric.of(order)) is not None:
                at = order["order"] if key == _ORDER else point.values[key]
                found = {"series": _name(point, order, others), "x": label(at), "rank": magnitude(at), "y": value}
                single.append({**found, "text": metric.text(value)})
    if not single:
        return None
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for each in single:
        groups.setdefault((each["series"], each["x"]), []).append(each)
    middle = [
        {
            **group[0],
            "y": statistics.median(each["y"] for each in group),
            "low": min(each["y"] for each in group),
            "high": max(each["y"] for each in group),
        }
        for group in groups.values()
    ]
    x = _x_axis(single, key)
    values = [each["y"] for each in single]
    y = _y_axis(values, metric)
    return spec(
        f"{metric.name} against {key}, one line per order; the numbers are in the table of results",
        230,
        layer=[
            *lines(
                middle,
                "series",
                names,
                {**x, "y": {**y, "field": "low"}, "y2": {"field": "high"}},
                type="area",
                opacity=0.16,
                strokeDash=[1, 0],
            ),
            *lines(middle, "series", names, {**x, "y": {**y, "field": "y"}}),
            {
                "data": {"values": single},
                "mark": {"type": "point", "size": 46, "filled": True, "opacity": 0.9},
                "encoding": {
                    **x,
                    "y": {**y, "field": "y"},
                    **by_series("series", names, shape=True),
                    "tooltip": tooltip({"series": "series", "x": key, "text": metric.name}),
                },
            },
        ],
    )


def magnitude(value: Any) -> float | None:
    """The number that a value stands for: itself, a size in bytes, a duration in ns; None for words."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if not isinstance(value, str):
        return float(value)
    for parse in (parse_size, parse_duration):
        try:
            return float(parse(value))
        except UsageError:
            continue
    return None


def _x_axis(single: list[dict[str, Any]], key: str) -> dict[str, Any]:
    """Plain numbers to scale; sizes, durations and words one beside the other, in their sequence."""
    ranks = {each["x"]: each["rank"] for each in single}
    plain = all(rank is not None and _is_number(text) for text, rank in ranks.items())
    if plain:
        values = sorted(rank for rank in ranks.values() if rank is not None)
        axis = {"title": key, "values": values, "format": "~g", "labelOverlap": True, "grid": False}
        much = spans_much(values)
        scale = {"type": "log", "nice": False} if much else {"zero": False, "nice": False}
        return {"x": {"field": "rank", "type": "quantitative", "scale": {**scale, "padding": 14}, "axis": axis}}
    known = sorted(ranks, key=lambda text: (ranks[text] is None, ranks[text] or 0))
    return {
        "x": {
            "field": "x",
            "type": "ordinal",
            "sort": known,
            "scale": {"type": "point", "padding": 0.3},
            "axis": {"title": key, "labelAngle": 0, "labelLimit": 120},
        }
    }


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _y_axis(values: list[float], metric: Metric) -> dict[str, Any]:
    log = spans_much(values)
    if metric.kind == "time":
        return {"type": "quantitative", **time_axis(values, metric.name, log=log)}
    return {"type": "quantitative", **amount_axis(values, metric.name, log=log, share=metric.kind == "share")}
