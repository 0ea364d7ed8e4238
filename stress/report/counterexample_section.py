"""What the page says about schedules that break an order: a timeline each, what it breaks, how to play it again."""

from __future__ import annotations

from stress.report.figure import Lanes
from stress.report.run_section import Section
from stress.results import cells
from stress.results.counterexamples import Kept


def counterexample_section(name: str, found: list[Kept]) -> Section:
    """Everything about one file of `stress verify --output`."""
    orders = list(dict.fromkeys(each.order for each in found))
    kinds = list(dict.fromkeys(kind for each in found for kind in each.kinds))
    return Section(
        name=name,
        what=f"schedules that break {', '.join(orders)}",
        verdict="violations",
        facts=[("counterexamples", cells.count(len(found))), ("violations", ", ".join(kinds))],
        findings=[f"To play them again: stress verify --replay {name}"],
        lanes=[_lanes(each) for each in found],
    )


def _lanes(kept: Kept) -> Lanes:
    timeline = kept.timeline
    note = f"Time runs down. Each actor has a column; those behind show states that changed. Bounds: {timeline.within}."
    broken = [timeline.breaks(row) for row in timeline.rows]
    if not any(broken):
        note += " No step meets the violation: an audit at the end does."
    return Lanes(
        title=f"{kept.order}: {', '.join(kept.kinds)}",
        note=note,
        headers=timeline.header,
        actors=timeline.actors,
        rows=timeline.rows,
        broken=broken,
        rules=timeline.rules,
    )
