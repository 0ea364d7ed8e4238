"""The section of the page about one sweep."""

from __future__ import annotations

import statistics
from collections import Counter
from typing import Any, Final

from stress.report.figure import Table
from stress.report.run_section import Section, configuration, when
from stress.report.scaling import METRICS, Point, keys, label, magnitude, measured, scaling, side_by_side
from stress.results import cells
from stress.results.sweep_table import warned
from stress.results.text import counted, pairs
from stress.results.trials import SweepFile

#: Rows of the table of results; a sweep may have thousands.
_ROWS: Final = 300
_EVIDENCE: Final = 3
#: Worst first: a sweep is as good as its worst point.
_VERDICTS: Final = ("violations", "broken", "interrupted", "nothing-tested", "correct")


def sweep_section(name: str, sweep: SweepFile) -> Section:
    """Everything about one sweep."""
    points = measured(sweep)
    swept, missing = keys(points), sweep.header["trials"] - len(points)
    documents = [point.document for point in points]
    found = {document["verdict"] for document in documents}
    worst = next((verdict for verdict in _VERDICTS if verdict in found), "empty")
    orders = list(dict.fromkeys(order["order"] for document in documents for order in document["orders"]))
    rebuilds = sum(order["rebuilds"] for document in documents for order in document["orders"])
    accesses = sum(order["accesses"] for document in documents for order in document["orders"])
    facts = [
        ("points", cells.count(len({_key(point) for point in points}))),
        ("measurements", cells.count(len(points))),
        *([("without a result", cells.count(missing))] if missing else []),
        ("rebuilds", cells.count(rebuilds)),
        ("checked accesses", cells.count(accesses)),
        ("took", cells.time(sum(document["elapsed_ns"] for document in documents))),
    ]
    if documents:
        facts.append(("started", min(when(document) for document in documents)))
    figures = [scaling(points, key) for key in swept] or [side_by_side(points)]
    unlike = frozenset(key.replace("-", "_") for key in swept)
    varied = unlike | {f"{key}_{unit}" for key in unlike for unit in ("ns", "bytes")} | {"orders"}
    return Section(
        name=name,
        what=f"sweep of {', '.join(swept) or 'orders'}: {', '.join(orders) or 'no result yet'}",
        verdict=worst,
        facts=facts,
        findings=[],
        violations=_violations(points),
        warnings=_warnings(documents),
        figures=figures,
        tables=[
            ("Results: medians over repeats", _results(points)),
            *(configuration(documents[0], varied) if documents else []),
        ],
    )


def _key(point: Point) -> str:
    return ", ".join(f"{key} {label(value)}" for key, value in point.values.items())


def _violations(points: list[Point]) -> list[tuple[str, str, list[str]]]:
    """Every kind of violation with its total, and its first evidence with the point that it is from."""
    counts: Counter[str] = Counter()
    evidence: dict[str, list[str]] = {}
    for point in points:
        for found in point.document["violations"]:
            counts[found["kind"]] += found["count"]
            shown = evidence.setdefault(found["kind"], [])
            shown += [f"{_key(point)}: {pairs(each)}" for each in found["evidence"][: _EVIDENCE - len(shown)]]
    return [(kind, cells.count(count), evidence[kind]) for kind, count in counts.items()]


def _warnings(documents: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    """Every warning once, with the number of measurements that have it."""
    return [
        (first["name"], f"{counted(count, 'measurement')}; first: {first['detail']}", first["remedy"])
        for first, count in warned(documents)
    ]


def _results(points: list[Point]) -> Table:
    """One row per point and order."""
    known = list(dict.fromkeys(key for point in points for key in point.values if key not in ("order", "orders")))
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    sortable: dict[tuple[Any, ...], tuple[Any, ...]] = {}
    for point in points:
        values = tuple(label(point.values.get(key, cells.NONE)) for key in known)
        for order in point.document["orders"]:
            row = (*values, order["order"])
            groups.setdefault(row, []).append(order)
            ranks = (magnitude(point.values.get(key)) for key in known)
            # Rows are sorted by the points' values, then by the documents' sequence of orders.
            sortable.setdefault(row, (*((rank is None, rank or 0.0) for rank in ranks), values, len(sortable)))
    rows = []
    for row in sorted(groups, key=sortable.__getitem__)[:_ROWS]:
        medians = []
        for metric in METRICS:
            measured = [value for order in groups[row] if (value := metric.of(order)) is not None]
            medians.append(metric.text(statistics.median(measured)) if measured else cells.NONE)
        rows.append((*row, str(len(groups[row])), *medians))
    if len(groups) > _ROWS:
        rest = f"and {cells.count(len(groups) - _ROWS)} more"
        rows.append((rest, *[""] * (len(known) + 1 + len(METRICS))))
    return Table((*known, "order", "repeats", *(metric.name for metric in METRICS)), rows)
