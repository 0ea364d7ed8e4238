"""Every order against the first, as ratios with their intervals."""

from __future__ import annotations

from typing import Any, Final

from stress.report.axes import log_scale
from stress.report.figure import Figure, Table
from stress.report.theme import by_series, spec
from stress.results import cells

_METRICS: Final = {
    "window": "median invalid window",
    "rebuilds_hit_share": "share of rebuilds hit",
    "window_faults_per_rebuild": "window faults per rebuild",
    "stall_p99": "window stall, p99",
    "throughput": "accesses per second",
}


def ratios(document: dict[str, Any]) -> Figure | None:
    """A forest plot; None if there is nothing to compare."""
    compared = document.get("comparison")
    if not compared:
        return None
    baseline = compared[0]["baseline"]
    title = f"Ratios over {baseline}"
    found = [
        {"order": each["order"], "metric": name, **each["ratios"][key]}
        for key, name in _METRICS.items()
        for each in compared
    ]
    drawn = [row for row in found if row["ratio"]]
    table = Table(
        ("metric", "order", "ratio [95% interval]", "why not"),
        [(row["metric"], row["order"], cells.ratio(row), row.get("reason", "")) for row in found],
    )
    if not drawn:
        return Figure(title, "No ratio could be taken.", table=table)
    # An end that is 0 or unknown reaches the edge.
    ends = [row[key] for row in drawn for key in ("ratio", "low", "high") if row[key]]
    scale, ticks = log_scale([*ends, 1.0])
    low, high = scale["domain"]
    names = [each["order"] for each in document["orders"]]
    values = [
        {
            "order": row["order"],
            "metric": row["metric"],
            "ratio": row["ratio"],
            "text": cells.ratio(row),
            "low": (row["low"] or low) if row["low"] is not None else row["ratio"],
            "high": (row["high"] or high) if row["low"] is not None else row["ratio"],
        }
        for row in drawn
    ]
    metrics = [name for name in _METRICS.values() if any(row["metric"] == name for row in values)]
    position = {
        "y": {
            "field": "metric",
            "type": "nominal",
            "sort": metrics,
            "axis": {"title": None, "labelLimit": 240, "labelColor": "var(--text)", "grid": True},
        },
        "yOffset": {"field": "order", "type": "nominal", "sort": names[1:]},
    }
    x = {
        "type": "quantitative",
        "scale": scale,
        "axis": {"title": f"ratio over {baseline}", "values": ticks, "labelExpr": "format(datum.value, '~r') + 'x'"},
    }
    tooltip = [
        {"field": "metric", "title": "metric"},
        {"field": "order", "title": "order"},
        {"field": "text", "title": "ratio"},
    ]
    plot = spec(
        f"Ratios over {baseline} with 95% intervals on a logarithmic axis; the numbers are in the table",
        len(metrics) * (20 + 20 * len(compared)),
        layer=[
            {
                "data": {"values": [{"one": 1}]},
                "mark": {"type": "rule", "color": "var(--muted)", "strokeDash": [4, 3], "aria": False},
                "encoding": {"x": {**x, "field": "one"}},
            },
            {
                "data": {"values": values},
                "mark": {"type": "rule", "strokeWidth": 2, "aria": False},
                "encoding": {
                    **position,
                    "x": {**x, "field": "low"},
                    "x2": {"field": "high"},
                    **by_series("order", names, drawn=names[1:]),
                },
            },
            {
                "data": {"values": values},
                "mark": {"type": "point", "size": 80, "filled": True, "opacity": 1},
                "encoding": {
                    **position,
                    "x": {**x, "field": "ratio"},
                    **by_series("order", names, shape=True, drawn=names[1:]),
                    "tooltip": tooltip,
                },
            },
        ],
    )
    note = (
        "Left of 1x is less than the first order has. Lines are 95% intervals from resampling cycles; "
        "one that crosses 1x shows no difference."
    )
    return Figure(title, note, [plot], table)
