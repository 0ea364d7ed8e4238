"""A result for people: verdict, tables, then what limits trust in them; 100 columns at most."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from typing import Any, Final

import tabulate

from stress.errors import UsageError
from stress.results import cells

WIDTH: Final = 100

#: What ``--format`` takes.
FORMATS: Final = tuple(tabulate.tabulate_formats)

#: Orders in one comparison table; more of them get another table against the same baseline.
_OTHERS_PER_TABLE: Final = 3

#: Evidence that is an address or a descriptor, and so hexadecimal.
_HEXADECIMAL: Final = frozenset({"ipa", "pa", "oa", "address", "descriptor", "entry", "old", "new"})


def run_table(document: dict[str, Any], fmt: str = "simple") -> str:
    """The whole of one run: verdict, rebuilds, faults and stalls, steps, violations, warnings."""
    orders = document["orders"]
    tables = {
        "Rebuilds": _table(_ORDER_HEADERS, [_order_row(each) for each in orders], fmt),
        "Faults, and how long they stalled a vCPU": _table(
            _FAULT_HEADERS, [row for each in orders for row in _fault_rows(each)], fmt
        ),
        "Where a rebuild's time goes": _table(_TIME_HEADERS, [row for each in orders for row in _time_rows(each)], fmt),
    }
    shown = [f"{title}\n\n{table}" for title, table in tables.items() if orders]
    return _joined(_verdict(document), *shown, _violations(document), _warnings(document))


def compare_table(document: dict[str, Any], fmt: str = "simple") -> str:
    """Every order against the first, one row per metric: verdict, ratios, violations, warnings.

    A document with nothing to compare gets its `run_table`.
    """
    comparison = document.get("comparison")
    if not comparison:
        return run_table(document, fmt)
    baseline = document["orders"][0]
    others = list(zip(document["orders"][1:], comparison, strict=True))
    tables = [
        _comparison(baseline, others[start : start + _OTHERS_PER_TABLE], fmt)
        for start in range(0, len(others), _OTHERS_PER_TABLE)
    ]
    return _joined(_verdict(document), *tables, _interval_notes(comparison), _violations(document), _warnings(document))


# -- the parts ---------------------------------------------------------------------------


def _verdict(document: dict[str, Any]) -> str:
    orders, violations = document["orders"], document["violations"]
    rebuilds = sum(each["rebuilds"] for each in orders)
    accesses = sum(each["accesses"] for each in orders)
    if violations:
        found = ", ".join(f"{each['kind']} {cells.count(each['count'])}" for each in violations)
    else:
        found = "no violation"
    line = f"{document['verdict'].upper()}: {found} in {rebuilds:,} rebuild{'' if rebuilds == 1 else 's'} "
    line += (
        f"and {cells.count(accesses)} checked accesses ({cells.time(document['elapsed_ns'])}, seed {document['seed']})"
    )
    if document["failure"] is None:
        return _wrapped(line)
    return _wrapped(line) + "\n" + _wrapped("What broke: " + _pairs(document["failure"]), "  ")


_QUANTILES: Final = ("p50", "p90", "p99", "max")
_SHOWN: Final = ("p50", "p99", "max")

_ORDER_HEADERS: Final = (
    "order",
    "rebuilds",
    "hit",
    *(f"window\n{name}" for name in _SHOWN),
    "accesses/s\nin all",
    "accesses/s\nin rebuilds",
)
_FAULT_HEADERS: Final = ("order", "class", "faults", *_QUANTILES)
_TIME_HEADERS: Final = ("order", "step", *_QUANTILES)


def _order_row(order: dict[str, Any]) -> list[str]:
    return [
        cells.name(order["order"]),
        cells.count(order["rebuilds"]),
        cells.share(order["rebuilds_hit_share"]),
        *(cells.time(order["window_ns"][name]) for name in _SHOWN),
        cells.scaled(order["accesses_per_s"]),
        cells.scaled(order["accesses_per_s_inside"]),
    ]


def _fault_rows(order: dict[str, Any]) -> list[list[str]]:
    stalls = {"all": order["stall_ns"], **order["stall_by_class_ns"]}
    faults = {"all": sum(order["faults"].values()), **order["faults"]}
    return _grouped(
        order,
        [[what, cells.count(faults[what]), *_times(stalls[what])] for what in ("all", *order["faults"])],
    )


def _time_rows(order: dict[str, Any]) -> list[list[str]]:
    times = {
        "wait for mmu_lock": order["mmu_lock"]["rebuilder_wait_ns"],
        **order["step_ns"],
        "whole rebuild": order["rebuild_ns"],
    }
    return _grouped(order, [[what, *_times(found)] for what, found in times.items()])


def _times(quantiles: dict[str, Any]) -> list[str]:
    return [cells.time(quantiles[name]) for name in _QUANTILES]


def _grouped(order: dict[str, Any], rows: Sequence[list[str]]) -> list[list[str]]:
    """Rows under the order's name, whose lines run down the first column beside them."""
    lines = cells.name(order["order"]).split("\n")
    lines += [""] * (len(rows) - len(lines))
    first = [*lines[: len(rows) - 1], "\n".join(lines[len(rows) - 1 :])]
    return [[name, *row] for name, row in zip(first, rows, strict=True)]


#: Rows of a comparison: what it is, the cell of one order, and its ratio's key if it has one.
_METRICS: Final[Sequence[tuple[str, Callable[[dict[str, Any]], str], str]]] = (
    ("rebuilds", lambda order: cells.count(order["rebuilds"]), ""),
    ("window, median", lambda order: cells.time(order["window_ns"]["p50"]), "window"),
    ("window, p99", lambda order: cells.time(order["window_ns"]["p99"]), ""),
    ("rebuilds hit", lambda order: cells.share(order["rebuilds_hit_share"]), "rebuilds_hit_share"),
    (
        "window faults/rebuild",
        lambda order: cells.factor(order["window_faults_per_rebuild"]),
        "window_faults_per_rebuild",
    ),
    ("window stall, p99", lambda order: cells.time(order["stall_by_class_ns"]["window"]["p99"]), "stall_p99"),
    ("accesses/s", lambda order: cells.scaled(order["accesses_per_s"]), "throughput"),
    ("accesses/s in rebuilds", lambda order: cells.scaled(order["accesses_per_s_inside"]), ""),
    ("rebuild, median", lambda order: cells.time(order["rebuild_ns"]["p50"]), ""),
)


def _comparison(baseline: dict[str, Any], others: Sequence[tuple[dict[str, Any], dict[str, Any]]], fmt: str) -> str:
    """One table. Against a single order the ratio has its own column, else it stands below the value."""
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
    return _table(headers, rows, fmt)


def _interval_notes(comparison: Sequence[dict[str, Any]]) -> str:
    lines = [
        _wrapped(
            f"Ratios are over {comparison[0]['baseline']}; intervals come from resampling rebuild cycles. "
            "If an interval holds 1, this run shows no difference."
        )
    ]
    for each in comparison:
        titles: dict[str, list[str]] = {}
        for title, _, key in _METRICS:
            if key and "reason" in each["ratios"][key]:
                titles.setdefault(each["ratios"][key]["reason"], []).append(title)
        for reason, about in titles.items():
            lines.append(_wrapped(f"{each['order']}: {'; '.join(about)}: {reason}", "  "))
    return "\n".join(lines)


_EVIDENCE_SHOWN: Final = 3  # the document has more


def _violations(document: dict[str, Any]) -> str:
    violations = document["violations"]
    if not violations:
        return ""
    lines = ["Violations"]
    for found in violations:
        shown = min(len(found["evidence"]), _EVIDENCE_SHOWN)
        first = f", the first {shown}:" if 0 < shown < found["count"] else ":" if shown else ""
        lines.append(_wrapped(f"{found['kind']}: {found['count']:,}{first}", "  "))
        lines += [_wrapped(_pairs(evidence), "    ") for evidence in found["evidence"][:shown]]
    return "\n".join(lines)


def _warnings(document: dict[str, Any]) -> str:
    if not document["warnings"]:
        return ""
    lines = ["Warnings"]
    for found in document["warnings"]:
        lines.append(_wrapped(f"{found['name']}: {found['detail']}", "  "))
        lines.append(_wrapped(f"remedy: {found['remedy']}", "    "))
    return "\n".join(lines)


# -- layout -------------------------------------------------------------------------------


def _table(headers: Sequence[str], rows: Sequence[Sequence[str]], fmt: str) -> str:
    """Text left, numbers right: whatever starts with a digit or says that there is nothing is a number."""
    if fmt not in FORMATS:
        raise UsageError(f"unknown table format {fmt!r}", f"use one of {', '.join(FORMATS)}")
    numeric = [
        all(not row[index] or row[index][0].isdigit() or row[index] == cells.NONE for row in rows)
        and any(row[index] for row in rows)
        for index in range(len(headers))
    ]
    align = ["right" if is_number else "left" for is_number in numeric]
    return str(tabulate.tabulate(rows, headers, tablefmt=fmt, disable_numparse=True, colalign=align))


def _pairs(values: dict[str, Any]) -> str:
    return " ".join(f"{key}={_value(key, value)}" for key, value in values.items() if value is not None)


def _value(key: str, value: Any) -> str:
    if key in _HEXADECIMAL and isinstance(value, int) and not isinstance(value, bool):
        return f"{value:#x}"
    return str(value)


def _wrapped(text: str, indent: str = "") -> str:
    return textwrap.fill(text, WIDTH, initial_indent=indent, subsequent_indent=indent + "  ")


def _joined(*sections: str) -> str:
    """The sections that say anything, a blank line between them, and no escape codes."""
    text = "\n\n".join(section for section in sections if section)
    return "".join(char for char in text if char in "\n\t" or char.isprintable())
