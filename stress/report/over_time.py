"""A run over time: throughput with rebuilds marked, and the window of each of them."""

from __future__ import annotations

from typing import Any, Final

from stress.report.axes import amount_axis, time_axis
from stress.report.figure import Figure, Table
from stress.report.theme import by_series, spec, tooltip
from stress.results import cells
from stress.results.statistics import rank

Document = dict[str, Any]

_OLD: Final = "The file's schema has no timeline: it was written by an earlier stress."
_HEIGHT: Final = 220
_ROW: Final = 14  # height of an order's row of rebuild marks


def throughput(document: Document, most_marks: int) -> Figure:
    """Accesses per second over the run, at most ``most_marks`` rebuilds of each order below it."""
    title = "Throughput over time"
    if "timeline" not in document:
        return Figure(title, _OLD)
    points = _points(document["timeline"]["intervals"], 3 * most_marks)
    if not points:
        return Figure(title, "The run was too short for a reading of its throughput.")
    end = {**points[-1], "start": points[-1]["end"]}  # the last step is as wide as its interval
    names, marks = _marks(document, most_marks)
    x = _run_time(max([end["start"], *(mark["start"] for mark in marks)]))
    rate = amount_axis([], "accesses/s, all vCPUs", log=False)
    rate["scale"] |= {"range": [_HEIGHT, 0]}
    layers: list[dict[str, Any]] = [
        {
            "mark": {"type": "line", "interpolate": "step-after", "color": "var(--text)", "aria": False},
            "encoding": {"x": {**x, "field": "start"}, "y": {"field": "rate", "type": "quantitative", **rate}},
        },
        {
            "mark": {"type": "rule", "strokeWidth": 12, "opacity": 0, "aria": False},
            "encoding": {
                "x": {**x, "field": "start"},
                "tooltip": tooltip({"from": "at", "rate_text": "accesses", "faults": "faults"}),
            },
        },
    ]
    height = _HEIGHT
    if marks:
        top = _HEIGHT + _ROW
        height = top + _ROW * len(names)
        layers.append(
            {
                "data": {"values": [{key: mark[key] for key in ("order", "start")} for mark in marks]},
                "mark": {"type": "tick", "orient": "vertical", "size": _ROW - 5, "thickness": 1.5, "aria": False},
                "encoding": {
                    "x": {**x, "field": "start"},
                    "y": {
                        "field": "order",
                        "type": "nominal",
                        "scale": {"type": "point", "domain": names, "range": [top, height - _ROW / 2]},
                        "axis": None,
                    },
                    **by_series("order", names),
                },
            }
        )
    description = f"Accesses per second over {cells.time(end['start'])}, with rebuilds marked below"
    resolve = {"scale": {"y": "independent"}}
    note = "Of all vCPUs together. Each mark below is the start of a rebuild; long runs mark a sample of them."
    plot = spec(description, height, data={"values": [*points, end]}, layer=layers, resolve=resolve)
    return Figure(title, note, [plot], _rates(points))


def windows(document: Document, most_marks: int) -> Figure:
    """The window of each rebuild over the run: drift and disturbances show here."""
    title = "Invalid window over time"
    if "timeline" not in document:
        return Figure(title, _OLD)
    names, marks = _marks(document, most_marks)
    marks = [mark for mark in marks if mark["window"]]
    if not marks:
        return Figure(title, "No rebuild had a measured window.")
    plot = spec(
        "Invalid window of each marked rebuild over the run",
        200,
        data={"values": marks},
        mark={"type": "point", "size": 34, "opacity": 0.85, "aria": False},
        encoding={
            "x": {**_run_time(max(mark["start"] for mark in marks)), "field": "start"},
            "y": {
                "field": "window",
                "type": "quantitative",
                **time_axis([mark["window"] for mark in marks], "invalid window", log=True),
            },
            **by_series("order", names, shape=True),
            "tooltip": tooltip({"order": "order", "at": "at", "window_text": "window", "rebuild": "rebuild"}),
        },
    )
    return Figure(title, "One point per marked rebuild: drift shows as a slope, a disturbance as a cluster.", [plot])


def _points(intervals: dict[str, list[int]], most: int) -> list[dict[str, Any]]:
    """The rate in each interval, neighbours merged so that there are at most ``most``."""
    columns = [intervals[key] for key in ("start_ns", "duration_ns", "accesses", "faults")]
    step = -(-len(columns[0]) // most)
    points = []
    for place in range(0, len(columns[0]), max(1, step)):
        starts, *amounts = (column[place : place + step] for column in columns)
        start, (duration, accesses, faults) = starts[0], map(sum, amounts)
        if duration > 0:
            rate = round(accesses / duration * 1e9)
            points.append(
                {
                    "start": start,
                    "end": start + duration,
                    "rate": rate,
                    "rate_text": f"{cells.scaled(rate)}/s",
                    "from": cells.time(start),
                    "faults": faults,
                }
            )
    return points


def _marks(document: Document, most: int) -> tuple[list[str], list[dict[str, Any]]]:
    """The names of all orders, and marks of their rebuilds, thinned out evenly to ``most`` per order."""
    found = []
    for marks in document["timeline"]["rebuilds"]:
        step = -(-len(marks["start_ns"]) // most)
        columns = (marks[key][::step] for key in ("start_ns", "window_ns", "rebuild_ns"))
        found += [
            {
                "order": marks["order"],
                "start": start,
                "window": window,
                "at": cells.time(start),
                "window_text": cells.time(window),
                "rebuild": cells.time(rebuild),
            }
            for start, window, rebuild in zip(*columns, strict=True)
        ]
    return [order["order"] for order in document["orders"]], found


def _run_time(end_ns: int) -> dict[str, Any]:
    axis = time_axis([], "time since the first common access", log=False)
    return {"type": "quantitative", "scale": {"domain": [0, end_ns], "nice": False}, "axis": axis["axis"]}


def _rates(points: list[dict[str, Any]]) -> Table:
    rates = sorted(point["rate"] for point in points)
    row = (rates[0], rates[rank(50, len(rates))], rates[-1])
    headers = ("intervals", "slowest", "median", "fastest")
    return Table(headers, [(cells.count(len(rates)), *(f"{cells.scaled(rate)}/s" for rate in row))])
