"""Every order against the first, as ratios with their intervals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from stress.report.axes import log_scale, names_axis
from stress.report.figure import Figure, Table
from stress.report.theme import by_series, spec, tooltip
from stress.results import cells
from stress.results.schema import RATIOS

#: Metric -> the function that shows an order's figure of it.
_SHOWN: Final[dict[str, Callable[[float | None], str]]] = {
    "window": cells.time,
    "rebuilds_hit_share": cells.share,
    "window_faults_per_rebuild": cells.factor,
    "stall_p99": cells.time,
    "throughput": cells.scaled,
}

#: Metrics whose outcome is told in sentences.
_TOLD: Final = ("window", "throughput")


def sentences(compared: dict[str, Any]) -> list[str]:
    """Sentences on one order's ratios, with the figures that they divide."""
    found = []
    for metric in _TOLD:
        ratio, (unit, words), show = compared["ratios"][metric], RATIOS[metric], _SHOWN[metric]
        if ratio["low"] is None or not ratio["ratio"]:
            continue
        value, baseline = (show(ratio[key]) + ("/s" if unit == "1/s" else "") for key in ("value", "baseline"))
        unclear = ratio["low"] <= 1 and (ratio["high"] is None or ratio["high"] >= 1)
        found.append(
            f"{compared['order']}: {words} {cells.ratio(ratio)} that of {compared['baseline']} "
            f"({value} against {baseline}){': no difference shown.' if unclear else '.'}"
        )
    return found


def ratios(document: dict[str, Any]) -> Figure | None:
    """A forest plot; None if there is nothing to compare."""
    compared = document.get("comparison")
    if not compared:
        return None
    baseline = compared[0]["baseline"]
    title = f"Ratios over {baseline}"
    found = [
        {"order": each["order"], "key": key, "metric": words, **each["ratios"][key]}
        for key, (_, words) in RATIOS.items()
        for each in compared
    ]
    drawn = [row for row in found if row["ratio"]]
    reasons = any("reason" in row for row in found)
    rows = [
        (
            row["metric"],
            row["order"],
            *(_SHOWN[row["key"]](row[figure]) for figure in ("value", "baseline")),
            cells.ratio(row),
            *([row.get("reason", "")] if reasons else []),
        )
        for row in found
    ]
    headers = ("metric", "order", "its figure", baseline, "ratio [95% interval]")
    table = Table((*headers, "why not") if reasons else headers, rows)
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
    metrics = [name for _, name in RATIOS.values() if any(row["metric"] == name for row in values)]
    position = {
        "y": names_axis("metric", metrics, 240),
        "yOffset": {"field": "order", "type": "nominal", "sort": names[1:]},
    }
    x = {
        "type": "quantitative",
        "scale": scale,
        "axis": {"title": f"ratio over {baseline}", "values": ticks, "labelExpr": "format(datum.value, '~r') + 'x'"},
    }
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
                    "tooltip": tooltip({"metric": "metric", "order": "order", "text": "ratio"}),
                },
            },
        ],
    )
    note = (
        "Left of 1x is less than the first order has. Lines are 95% intervals from resampling cycles; "
        "one that crosses 1x shows no difference."
    )
    return Figure(title, note, [plot], table)
