"""Distributions of windows and stalls, one line per order."""

from __future__ import annotations

from itertools import accumulate
from typing import Any, Final

from stress.report.axes import time_axis
from stress.report.figure import Figure, Table
from stress.report.theme import by_series, lines, spec, tooltip
from stress.results import cells
from stress.results.statistics import Bins

Document = dict[str, Any]

_QUANTILES: Final = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
_HEADERS: Final = ("p50", "p90", "p99", "max")
_OLD: Final = "The file's schema has no distributions: it was written by an earlier stress."


def windows(document: Document) -> Figure:
    """How long entries were invalid."""
    title = "Invalid window"
    orders = document["orders"]
    if not orders or not all("window_histogram" in order for order in orders):
        return Figure(title, _OLD, table=_window_table(orders))
    measured = {order["order"]: (order["window_histogram"], order["window_ns"]) for order in orders}
    never = [
        f"{name}: {cells.share(share)} of rebuilds never made the entry invalid"
        for name, (bins, _) in measured.items()
        if (share := _share_of_zero(bins))
    ]
    note = "Share of rebuilds whose entry was invalid for at most this long. Points are p50, p90, p99 and the maximum."
    plot = _ecdf(measured, "invalid window", "share of rebuilds", title)
    note = " ".join([note, *(f"{line}." for line in never)])
    if plot is None:
        return Figure(title, "No window was measured. " + " ".join(f"{line}." for line in never))
    return Figure(title, note, [plot], _window_table(orders))


def stalls(document: Document) -> Figure:
    """How long faults stalled a vCPU, a plot per class of faults."""
    title = "Stalls by class of fault"
    orders = document["orders"]
    table = _stall_table(orders)
    if not orders or not all("stall_histogram" in order for order in orders):
        return Figure(title, _OLD, table=table)
    plots = []
    for name in orders[0]["faults"]:
        measured = {
            order["order"]: (order["stall_histogram"][name], order["stall_by_class_ns"][name])
            for order in orders
            if name in order["stall_histogram"]
        }
        # An order keeps its colour in the plot of every class.
        plot = _ecdf(measured, f"stall of {name} faults", "share of faults", title, [o["order"] for o in orders])
        if plot is not None:
            plots.append(plot)
    if not plots:
        return Figure(title, "No vCPU faulted.")
    note = "Share of faults whose vCPU stood still for at most this long, from the faulting access to its retry."
    return Figure(title, note, plots, table)


def _share_of_zero(bins: Bins) -> float:
    total = sum(bins["count"])
    return bins["count"][0] / total if total and bins["lower_ns"][0] == 0 else 0.0


def _ecdf(
    measured: dict[str, tuple[Bins, dict[str, Any]]], x: str, y: str, title: str, names: list[str] | None = None
) -> dict[str, Any] | None:
    """A line per order with its quantiles on it; None if there is nothing beyond zero."""
    edges: list[dict[str, Any]] = []
    marks: list[dict[str, Any]] = []
    for name, (bins, quantiles) in measured.items():
        if not sum(bins["count"]):
            continue
        edges += [{"order": name, "ns": ns, "share": share} for ns, share in _curve(bins, quantiles)]
        marks += [
            {"order": name, "ns": ns, "share": share, "time": cells.time(ns), "quantile": quantile}
            for quantile, (ns, share) in _points(quantiles).items()
        ]
    if not edges:
        return None
    axis = time_axis([point["ns"] for point in [*edges, *marks]], x, log=True)
    names = names or list(measured)
    position = {
        "x": {"field": "ns", "type": "quantitative", **axis},
        "y": {
            "field": "share",
            "type": "quantitative",
            "scale": {"domain": [0, 1]},
            "axis": {"title": y, "format": ".0%", "values": [0, 0.25, 0.5, 0.75, 0.9, 1]},
        },
    }
    return spec(
        f"{title}: {x}, cumulative distribution per order; the numbers are in the table",
        260,
        layer=[
            *lines(edges, "order", names, position),
            {
                "data": {"values": marks},
                "mark": {"type": "point", "size": 55, "filled": True, "opacity": 1},
                "encoding": {
                    **position,
                    **by_series("order", names, shape=True),
                    "tooltip": tooltip({"order": "order", "quantile": "quantile", "time": "time"}),
                },
            },
        ],
    )


def _points(quantiles: dict[str, Any]) -> dict[str, tuple[float, float]]:
    """(ns, share) of each quantile beyond zero."""
    return {name: (quantiles[name], share) for name, share in _QUANTILES.items() if quantiles[name]}


def _curve(bins: Bins, quantiles: dict[str, Any]) -> list[tuple[float, float]]:
    """(ns, share of values up to it) at every edge of a bin and every quantile beyond zero, in sequence.

    Within a bin values may lie anywhere: a line between its edges alone would miss a quantile by up to its width.
    """
    total, before = sum(bins["count"]), 0
    known: list[tuple[float, float]] = [*_points(quantiles).values()]
    for lower, upper, after in zip(bins["lower_ns"], bins["upper_ns"], accumulate(bins["count"]), strict=True):
        if lower:
            # No value lies beyond the maximum, though its bin may reach further.
            upper = min(upper, max(lower, quantiles["max"]))
            known += [(lower, round(before / total, 5)), (upper, round(after / total, 5))]
        before = after
    return sorted(known)


def _window_table(orders: list[dict[str, Any]]) -> Table:
    rows = [
        (order["order"], cells.count(order["rebuilds"]), *(cells.time(order["window_ns"][name]) for name in _HEADERS))
        for order in orders
    ]
    return Table(("order", "rebuilds", *_HEADERS), rows)


def _stall_table(orders: list[dict[str, Any]]) -> Table:
    rows = [
        (order["order"], name, cells.count(count), *(cells.time(order["stall_by_class_ns"][name][q]) for q in _HEADERS))
        for order in orders
        for name, count in order["faults"].items()
        if count
    ]
    return Table(("order", "class", "faults", *_HEADERS), rows)
