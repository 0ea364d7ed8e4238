"""The section of the page about one search: its constraints, and the costs of the proved orders."""

from __future__ import annotations

from typing import Any, Final

from stress.report.axes import names_axis, time_axis
from stress.report.figure import Figure, Table
from stress.report.forest import ratios
from stress.report.run_section import Section
from stress.report.theme import by_series, spec, tooltip
from stress.results import cells
from stress.results.searched import CONSTRAINT_HEADERS, FIGURES, constraint_rows, counts, proved_rows, within

#: Orders drawn; all are in the table.
_DRAWN: Final = 40


def search_section(name: str, document: dict[str, Any]) -> Section:
    """Everything about one search."""
    undecided = document["undecided"]
    confirmation = document["confirmation"]
    figures = [_costs(document), ratios(confirmation) if confirmation else None]
    found = [f"{len(document['front'])} of them no other order beats in everything."] if document["front"] else []
    return Section(
        name=name,
        what=f"search over {', '.join(document['vocabulary'])}",
        verdict="proved" if document["complete"] and not undecided else "undecided",
        facts=[
            ("orders", cells.count(document["enumerated"])),
            ("programs", cells.count(document["classes"])),
            ("proved", cells.count(len(document["correct"]))),
            ("refuted", cells.count(len(document["refuted"]))),
            ("schedules", cells.count(document["schedules"])),
            ("took", cells.time(document["elapsed_ns"])),
            *([("platform", document["platform"])] if document["platform"] else []),
            *([("run here", confirmation["verdict"])] if confirmation else []),
        ],
        findings=[f"{counts(document)}.", within(document), *found],
        figures=[figure for figure in figures if figure is not None],
        tables=[
            ("Constraints", Table(CONSTRAINT_HEADERS, constraint_rows(document))),
            ("Proved orders", Table(*proved_rows(document))),
            *(
                [("Undecided", Table(("order", "why"), [(",".join(each["steps"]), each["why"]) for each in undecided]))]
                if undecided
                else []
            ),
        ],
    )


def _costs(document: dict[str, Any]) -> Figure | None:
    """Every proved order's figures on one axis, those on the front first; None if none were predicted."""
    known = sorted(
        (each for each in document["correct"] if each["predicted"]),
        key=lambda each: (not each["on_front"], *(each["predicted"][name] for name in FIGURES)),
    )
    if not known:
        return None
    points = [
        {
            "order": ("* " if each["on_front"] else "") + (each["named"] or [",".join(each["steps"])])[0],
            "figure": heading,
            "ns": each["predicted"][name],
            "text": cells.time(each["predicted"][name]),
        }
        for each in known[:_DRAWN]
        for name, heading in FIGURES.items()
        if each["predicted"][name] > 0
    ]
    headers, rows = proved_rows(document)
    orders = list(dict.fromkeys(point["order"] for point in points))
    plot = spec(
        "Predicted times of each proved order on a logarithmic axis; the numbers are in the table",
        24 * len(orders),
        data={"values": points},
        mark={"type": "point", "size": 80, "filled": True, "opacity": 1},
        encoding={
            "y": names_axis("order", orders, 360),
            "x": {
                "field": "ns",
                "type": "quantitative",
                **time_axis([point["ns"] for point in points], "predicted time", log=True),
            },
            **by_series("figure", [*FIGURES.values()], shape=True),
            "tooltip": tooltip({"order": "order", "figure": "figure", "text": "time"}),
        },
    )
    note = (
        f"Left is better. * marks the front on {document['platform']}: what no other order beats in one figure without "
        "being worse in another. A time of nothing is not drawn."
    )
    return Figure("What the proved orders cost", note, [plot], Table(headers, rows))
