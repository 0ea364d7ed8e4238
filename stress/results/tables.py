"""The text that shows a result: verdict, tables, then what limits trust in them; 100 columns at most."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from stress.executors import PREDICT
from stress.results import cells
from stress.results.breakdown import rebuild_times
from stress.results.comparison import comparison
from stress.results.selftest_text import selftest_lines
from stress.results.stage_table import stage_tables
from stress.results.text import FORMATS, WIDTH, counted, grouped, joined, pairs, table, wrapped

__all__ = ["FORMATS", "WIDTH", "compare_table", "run_table"]


def run_table(document: dict[str, Any], fmt: str = "simple") -> str:
    """The whole of one run: a selftest's own lines, verdict, stages, rebuilds, faults, steps, violations, warnings."""
    return _around(document, fmt, _order_tables(document, fmt))


def compare_table(document: dict[str, Any], fmt: str = "simple") -> str:
    """Every order against the first, one row per metric: a selftest's own lines, verdict, ratios, violations, warnings.

    A document with nothing to compare gets its `run_table`.
    """
    if not document.get("comparison"):
        return run_table(document, fmt)
    rebuilt = any(each["rebuilds"] for each in document["orders"])
    return _around(document, fmt, [comparison(document, fmt)] if rebuilt else [])


def _around(document: dict[str, Any], fmt: str, tables: Sequence[str]) -> str:
    """Tables of orders between what comes before and after them in every result."""
    return joined(
        selftest_lines(document),
        _verdict(document),
        life_cycle_lines(document),
        stage_tables(document, fmt),
        *tables,
        _violations(document),
        _warnings(document),
    )


# -- verdict -----------------------------------------------------------------------------


def _verdict(document: dict[str, Any]) -> str:
    orders, violations = document["orders"], document["violations"]
    rebuilds = sum(each["rebuilds"] for each in orders)
    accesses = sum(each["accesses"] for each in orders)
    verdict = document["verdict"].upper().replace("-", " ")
    missing = []
    if document["verdict"] == "nothing-tested":
        missing.append(wrapped("What was missing: " + "; ".join(document["untested"]), "  "))
    if document.get("executor") == PREDICT:
        line = (
            f"{verdict} for {document['config']['platform']}, checked by nobody: "
            f"{counted(rebuilds, 'rebuild')} and {cells.count(accesses)} accesses in "
            f"{cells.time(document['elapsed_ns'])} of its time"
        )
        return "\n".join([wrapped(line), *missing])
    if violations:
        found = ", ".join(f"{each['kind']} {cells.count(each['count'])}" for each in violations)
    else:
        found = "no violation"
    injected = document["config"].get("inject")
    if "injected" in document:
        injected = f"{injected} injected: it acted {counted(document['injected']['acted'], 'time')}"
    elif injected:
        injected = f"{injected} injected"
    line = (
        f"{verdict}: {found} in {counted(rebuilds, 'rebuild')} "
        f"and {cells.count(accesses)} checked accesses ({cells.time(document['elapsed_ns'])}, seed {document['seed']}"
        f"{f', {injected}' if injected else ''})"
    )
    lines = [wrapped(line)]
    if document["failure"] is not None:
        lines.append(wrapped("What broke: " + pairs(document["failure"]), "  "))
    return "\n".join(lines + missing)


# -- one run's tables --------------------------------------------------------------------

_QUANTILES: Final = ("p50", "p90", "p99", "max")
_SHOWN: Final = ("p50", "p99", "max")

_FAULT_HEADERS: Final = ("order", "class", "faults", *_QUANTILES)
_TIME_HEADERS: Final = ("order", "step", *_QUANTILES)

#: Classes that only some scenarios have: shown once they occur.
_RARE_CLASSES: Final = ("rebuild", "retry", "conflict")


def _order_tables(document: dict[str, Any], fmt: str) -> list[str]:
    """The tables of all orders; in a scenario other than rebuild, only tables that would not be empty."""
    orders = document["orders"]
    always = document["scenario"] == "rebuild" and bool(orders)
    titled = {}
    if always or any(each["rebuilds"] for each in orders):
        titled["Rebuilds"] = _rebuilds(orders, fmt)
    if always or any(sum(each["faults"].values()) for each in orders):
        rows = [row for each in orders for row in grouped(each["order"], _fault_rows(each, orders))]
        text = table(_FAULT_HEADERS, rows, fmt)
        titled["Faults, and how long they stalled a vCPU"] = joined(text, _few_faults(orders))
    if "Rebuilds" in titled:
        rows = [row for each in orders for row in grouped(each["order"], _time_rows(each))]
        titled["Where a rebuild's time goes"] = table(_TIME_HEADERS, rows, fmt)
    return [f"{title}\n\n{text}" for title, text in titled.items()]


def _rebuilds(orders: list[dict[str, Any]], fmt: str) -> str:
    """One row per order, with the rebuilds by vCPUs if there are any."""
    by_vcpus = any(each["vcpu_rebuilds"] for each in orders)
    headers = [
        "order",
        "rebuilds",
        *(["by\nvCPUs"] if by_vcpus else []),
        "hit",
        *(f"window\n{name}" for name in _SHOWN),
        "accesses/s\nin all",
        "accesses/s\nin rebuilds",
    ]
    rows = [
        [
            cells.name(each["order"]),
            cells.count(each["rebuilds"]),
            *([cells.count(each["vcpu_rebuilds"])] if by_vcpus else []),
            cells.share(each["rebuilds_hit_share"]),
            *(cells.time(each["window_ns"][name]) for name in _SHOWN),
            cells.scaled(each["accesses_per_s"]),
            cells.scaled(each["accesses_per_s_inside"]),
        ]
        for each in orders
    ]
    return table(headers, rows, fmt)


def _fault_rows(order: dict[str, Any], orders: list[dict[str, Any]]) -> list[list[str]]:
    stalls = {"all": order["stall_ns"], **order["stall_by_class_ns"]}
    faults = {"all": sum(order["faults"].values()), **order["faults"]}
    absent = {name for name in _RARE_CLASSES if not any(each["faults"][name] for each in orders)}
    return [[what, cells.count(faults[what]), *_times(stalls[what])] for what in faults if what not in absent]


def _few_faults(orders: list[dict[str, Any]]) -> str:
    """A note on the classes with so few faults that a p99 is no more than the maximum; "" if there are none."""
    few: dict[str, None] = {}
    for order in orders:
        few |= dict.fromkeys(name for name, found in order["stall_by_class_ns"].items() if 0 < found["count"] < 100)
    return wrapped(f"Of fewer than 100 faults a p99 is their longest stall: {', '.join(few)}.") if few else ""


def _time_rows(order: dict[str, Any]) -> list[list[str]]:
    times = {**rebuild_times(order), "whole rebuild": order["rebuild_ns"]}
    if "recovery_ns" in order:
        times["all, after logging"] = order["recovery_ns"]
    return [[what, *_times(found)] for what, found in times.items()]


def _times(quantiles: dict[str, Any]) -> list[str]:
    return [cells.time(quantiles[name]) for name in _QUANTILES]


# -- what limits trust -------------------------------------------------------------------

_EVIDENCE_SHOWN: Final = 3  # the document has more


def _violations(document: dict[str, Any]) -> str:
    violations = document["violations"]
    if not violations:
        return ""
    lines = ["Violations"]
    for found in violations:
        shown = min(len(found["evidence"]), _EVIDENCE_SHOWN)
        first = f", the first {shown}:" if 0 < shown < found["count"] else ":" if shown else ""
        lines.append(wrapped(f"{found['kind']}: {found['count']:,}{_found_by(found)}{first}", "  "))
        lines += [wrapped(pairs(evidence), "    ") for evidence in found["evidence"][:shown]]
    return "\n".join(lines)


def _found_by(found: dict[str, Any]) -> str:
    """The numbers of violations found by a rule and by an access; "" if the document does not say."""
    rule = found.get("by_rule")
    if rule is None:
        return ""
    told = [f"{count:,} by {name}" for name, count in (("rule", rule), ("access", found["count"] - rule)) if count]
    return f" ({', '.join(told)})"


def _warnings(document: dict[str, Any]) -> str:
    if not document["warnings"]:
        return ""
    lines = ["Warnings"]
    for found in document["warnings"]:
        lines.append(wrapped(f"{found['name']}: {found['detail']}", "  "))
        lines.append(wrapped(f"remedy: {found['remedy']}", "    "))
    return "\n".join(lines)


def life_cycle_lines(document: dict[str, Any]) -> str:
    """A line each for migrations, dirty logging, memory that moved, and mappings, if there were any."""
    counts: dict[str, int] = document.get("life_cycle", {})
    copies_differ = any(found["kind"] == "lost-dirty" for found in document["violations"])
    lines = (_migrations(counts, copies_differ), _logging(counts), _moves(counts), _mappings(document, counts))
    return "\n".join(wrapped(line) for line in lines if line)


def _migrations(counts: dict[str, int], copies_differ: bool) -> str:
    completed, cancelled = counts.get("migrations_completed", 0), counts.get("migrations_cancelled", 0)
    if not completed + cancelled:
        return ""
    verdict = "not every copy equal to memory" if copies_differ else "every copy equal to memory"
    line = f"{counted(completed + cancelled, 'migration')}: {cells.count(completed)} completed"
    line += f" ({verdict})" if completed else ""
    line += f", {cells.count(cancelled)} cancelled"
    return line + (f"; {counted(counts['copied_pages'], 'page')} copied" if counts.get("copied_pages") else "")


def _logging(counts: dict[str, int]) -> str:
    parts = []
    for key, word in (("logging_enabled", "enabled"), ("logging_disabled", "disabled")):
        if counts.get(key):
            parts.append(f"{word} {counted(counts[key], 'time')}")
    if counts.get("blocks_split_eagerly"):
        parts.append(f"{counted(counts['blocks_split_eagerly'], 'block')} split eagerly")
    if counts.get("harvests"):
        dirty = counted(counts.get("dirty_pages", 0), "dirty page")
        parts.append(f"{counted(counts['harvests'], 'harvest')} of {dirty}")
    return f"Dirty logging: {', '.join(parts)}" if parts else ""


def _mappings(document: dict[str, Any], counts: dict[str, int]) -> str:
    if not any(counts.values()):
        return ""
    total = {
        name: sum(order["mappings"][name] for order in document["orders"]) for name in ("blocks", "pages", "splits")
    }
    rebuilds = sum(order["rebuilds"] for order in document["orders"])
    line = f"Faults mapped {counted(total['blocks'], 'block')} and {counted(total['pages'], 'page')}"
    return f"{line}, split {counted(total['splits'], 'block')}; {counted(rebuilds, 'rebuild')}"


def _moves(counts: dict[str, int]) -> str:
    parts = [
        counted(counts[key], noun)
        for key, noun in (("collapses", "THP collapse"), ("breakups", "break-up"), ("slot_moves", "memslot move"))
        if counts.get(key)
    ]
    if counts.get("frames_moved"):
        parts.append(f"{counted(counts['frames_moved'], 'frame')} moved")
    if counts.get("tables_deferred"):
        parts.append(f"{counted(counts['tables_deferred'], 'table')} freed after a grace period")
    line = ", ".join(parts)
    return line[:1].upper() + line[1:]
