"""The stages of a staged scenario, and how long each took."""

from __future__ import annotations

from typing import Any

from stress.report.axes import names_axis, spans_much, time_axis
from stress.report.figure import Figure, Table
from stress.report.theme import by_series, spec, tooltip
from stress.results import cells
from stress.results.stage_table import passes, typical


def stages(document: dict[str, Any]) -> Figure | None:
    """One point per stage and order; None if the scenario has no stages."""
    found = typical(document)
    if not found:
        return None
    points = [
        {
            "stage": f"{stage['name']} {stage['iteration'] or ''}".rstrip(),
            "order": stage.get("order") or "all orders",
            "ns": stage["duration_ns"],
            "time": cells.time(stage["duration_ns"]),
        }
        for stage in found
    ]
    names = list(dict.fromkeys(point["order"] for point in points))
    titles = list(dict.fromkeys(point["stage"] for point in points))
    times = [point["ns"] for point in points]
    plot = spec(
        "Time of each stage, common start to the last vCPU's end; the numbers are in the table",
        len(titles) * (18 + 14 * len(names)),
        data={"values": points},
        mark={"type": "point", "size": 80, "filled": True, "opacity": 1},
        encoding={
            "x": {"field": "ns", "type": "quantitative", **time_axis(times, "time", log=spans_much(times))},
            "y": names_axis("stage", titles, 260),
            "yOffset": {"field": "order", "type": "nominal", "sort": names},
            **by_series("order", names, shape=True),
            "tooltip": tooltip({key: key for key in ("stage", "order", "time")}),
        },
    )
    rows = [
        (
            point["stage"],
            point["order"],
            point["time"],
            *(_mean(count) for count in (sum(stage["faults"].values()), stage["rebuilds"], stage["accesses"])),
        )
        for point, stage in zip(points, found, strict=True)
    ]
    note = f"Medians of times and means of counts over {passes(document)}."
    return Figure("Stages", note, [plot], Table(("stage", "order", "time", "faults", "rebuilds", "accesses"), rows))


def _mean(value: float) -> str:
    return cells.count(round(value)) if value == round(value) else cells.scaled(value)
