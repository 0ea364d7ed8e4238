"""Tables of orders side by side: one row per metric, with the ratios to the first order and notes on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from stress.executors import PREDICT
from stress.orders import CLEANS, TEAR_DOWNS
from stress.results import cells
from stress.results.breakdown import finding, step_median
from stress.results.text import WIDTH, joined, table, wrapped

Order = dict[str, Any]

#: Numbers of orders beside the baseline in one table, the first that fits the width; other orders get another table.
_OTHERS_PER_TABLE: Final = (3, 2)


def _per_rebuild(count: int, order: Order) -> float | None:
    return count / order["rebuilds"] if order["rebuilds"] else None


#: Rows of the table: title, the cell of one order, and the key of its ratio, if it has one.
_METRICS: Final[Sequence[tuple[str, Callable[[Order], str], str]]] = (
    ("rebuilds", lambda order: cells.count(order["rebuilds"]), ""),
    ("window, median", lambda order: cells.time(order["window_ns"]["p50"]), "window"),
    ("window, p99", lambda order: cells.time(order["window_ns"]["p99"]), ""),
    ("rebuilds hit", lambda order: cells.share(order["rebuilds_hit_share"]), "rebuilds_hit_share"),
    (
        "window faults/rebuild",
        lambda order: cells.factor(order["window_faults_per_rebuild"]),
        "window_faults_per_rebuild",
    ),
    ("faults/rebuild", lambda order: cells.factor(order["faults_per_rebuild"]), ""),
    ("conflict aborts/rebuild", lambda order: cells.factor(_per_rebuild(order["conflict_aborts"], order)), ""),
    ("window stall, p99", lambda order: cells.time(order["stall_by_class_ns"]["window"]["p99"]), "stall_p99"),
    ("accesses/s", lambda order: cells.scaled(order["accesses_per_s"]), "throughput"),
    ("accesses/s in rebuilds", lambda order: cells.scaled(order["accesses_per_s_inside"]), ""),
    ("rebuild, median", lambda order: cells.time(order["rebuild_ns"]["p50"]), ""),
    ("mmu_lock held, median", lambda order: cells.time(order["mmu_lock"]["rebuilder_hold_ns"]["p50"]), ""),
    ("yields/rebuild", lambda order: cells.factor(_per_rebuild(order["yields"], order)), ""),
    ("restarts/rebuild", lambda order: cells.factor(_per_rebuild(order["restarts"], order)), ""),
    ("clean, median", lambda order: cells.time(step_median(order, CLEANS)), ""),
    ("unmap, median", lambda order: cells.time(step_median(order, TEAR_DOWNS)), ""),
    ("mapped before", lambda order: cells.share(order["mapped_share"]), ""),
    ("tables freed/rebuild", lambda order: cells.factor(_per_rebuild(order["tables"]["freed"], order)), ""),
)


def comparison(document: dict[str, Any], fmt: str) -> str:
    """Every order against the first; the document must have a comparison."""
    compared = document["comparison"]
    baseline = document["orders"][0]
    others = list(zip(document["orders"][1:], compared, strict=True))
    tables: list[str] = []
    for size in _OTHERS_PER_TABLE:
        tables = [_table(baseline, others[start : start + size], fmt) for start in range(0, len(others), size)]
        if max(len(line) for text in tables for line in text.splitlines()) <= WIDTH:
            break
    return joined(*tables, _notes(document), wrapped(finding(document["orders"])))


def _table(baseline: Order, others: Sequence[tuple[Order, dict[str, Any]]], fmt: str) -> str:
    """One table. With a single other order the ratio has its own column, else it stands below the value."""
    single = len(others) == 1
    headers = ["", cells.name(baseline["order"]), *(cells.name(order["order"]) for order, _ in others)]
    if single:
        headers.append("ratio [95% interval]")
    rows = []
    for title, cell, key in _METRICS:
        row = [title, cell(baseline)]
        for order, compared in others:
            found = cells.ratio(compared["ratios"][key]) if key else ""
            row += [cell(order), found] if single else [f"{cell(order)}\n{found}".rstrip()]
        rows.append(row)
    return table(headers, rows, fmt)


def _notes(document: dict[str, Any]) -> str:
    compared = document["comparison"]
    intervals = "intervals come from resampling cycles. If an interval holds 1, this run shows no difference."
    if document.get("executor") == PREDICT:
        intervals = "a prediction has no noise, and its errors no interval."
        if not document.get("stages"):
            intervals = "intervals tell what more cycles could change, and nothing of a prediction's errors."
    lines = [wrapped(f"Ratios are over {compared[0]['baseline']}; {intervals}")]
    for each in compared:
        titles: dict[str, list[str]] = {}
        for title, _, key in _METRICS:
            if key and "reason" in each["ratios"][key]:
                titles.setdefault(each["ratios"][key]["reason"], []).append(title)
        for reason, about in titles.items():
            lines.append(wrapped(f"{each['order']}: {'; '.join(about)}: {reason}", "  "))
    return "\n".join(lines)
