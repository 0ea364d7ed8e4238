"""Where a rebuild's time goes: mean time of each step, stacked per order."""

from __future__ import annotations

from typing import Any, Final

from stress.orders import INSTALLS, STEPS, Step, steps_that
from stress.report.axes import time_axis
from stress.report.figure import Figure, Table
from stress.report.theme import colour, scale, spec, tooltip
from stress.results import cells
from stress.results.breakdown import WAIT, rebuild_times

_OPENS: Final = steps_that(lambda facts: facts.opens)
_ROOM: Final = 0.12  # a segment with this share of the longest bar has room for its name


def steps(document: dict[str, Any]) -> Figure:
    """The steps of each order in their sequence; means, because they add up."""
    title = "Where a rebuild's time goes"
    orders = [order for order in document["orders"] if order["rebuild_ns"]["count"]]
    if not orders:
        return Figure(title, "Nothing was rebuilt.")
    segments: list[dict[str, Any]] = []
    for order in orders:
        start = 0.0
        for step, found in rebuild_times(order).items():
            mean = found["mean"] or 0.0
            segments.append(
                {
                    "order": order["order"],
                    "step": step,
                    "from": start,
                    "to": start + mean,
                    "middle": start + mean / 2,
                    "mean": cells.time(mean),
                }
            )
            start += mean
    longest = max(segment["to"] for segment in segments)
    used = {segment["step"] for segment in segments}
    known = [step for step in map(str, STEPS) if step in used]
    # The wait is no step, and grey; every step has one colour on all pages.
    colours = scale([WAIT, *known], ["var(--neutral)", *(colour(STEPS.index(Step(step))) for step in known)])
    y = {
        "field": "order",
        "type": "nominal",
        "sort": None,
        "axis": {"title": None, "labelLimit": 260, "labelColor": "var(--text)"},
    }
    x = {
        "field": "from",
        "type": "quantitative",
        **time_axis([], "mean time from asking for mmu_lock to the end", log=False),
    }
    named = [segment for segment in segments if segment["to"] - segment["from"] >= _ROOM * longest]
    plot = spec(
        "Mean time of each step of a rebuild, stacked per order; the numbers are in the table",
        46 * len(orders),
        layer=[
            {
                "data": {"values": segments},
                "mark": {"type": "bar", "stroke": "var(--surface)", "strokeWidth": 1, "height": {"band": 0.62}},
                "encoding": {
                    "y": y,
                    "x": x,
                    "x2": {"field": "to"},
                    "color": {
                        "field": "step",
                        "type": "nominal",
                        "scale": colours,
                        "legend": {"title": None, "columns": 6, "symbolType": "square", "symbolStrokeWidth": 0},
                    },
                    "tooltip": tooltip({"order": "order", "step": "step", "mean": "mean"}),
                },
            },
            {
                "data": {"values": named},
                "mark": {"type": "text", "color": "var(--on-series)", "fontWeight": 600, "aria": False},
                "encoding": {"y": y, "x": {"field": "middle", "type": "quantitative"}, "text": {"field": "step"}},
            },
            {
                "data": {"values": _windows(segments)},
                "mark": {
                    "type": "rule",
                    "yOffset": 18,
                    "strokeWidth": 3,
                    "strokeCap": "butt",
                    "color": "var(--text)",
                    "aria": False,
                },
                "encoding": {"y": y, "x": {"field": "from", "type": "quantitative"}, "x2": {"field": "to"}},
            },
        ],
    )
    note = (
        "Mean time of each step; unlike medians, means add up. The line below a bar spans its invalid window, from "
        "invalidate to the install."
    )
    return Figure(title, note, [plot], _table(orders))


def _windows(segments: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each order's span from the start of the step that opens the window to the end of the install, if it is later."""
    starts = {each["order"]: each["from"] for each in segments if each["step"] in _OPENS}
    ends = {each["order"]: each["to"] for each in segments if each["step"] in INSTALLS}
    return [
        {"order": order, "from": start, "to": ends[order]}
        for order, start in starts.items()
        if start < ends.get(order, 0)
    ]


def _table(orders: list[dict[str, Any]]) -> Table:
    rows = []
    for order in orders:
        times = {**rebuild_times(order), "whole rebuild": order["rebuild_ns"]}
        for step, found in times.items():
            rows.append((order["order"], step, *(cells.time(found[key]) for key in ("mean", "p50", "p99", "max"))))
    return Table(("order", "step", "mean", "p50", "p99", "max"), rows)
