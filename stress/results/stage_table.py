"""The stages of a staged scenario: one row each, over all passes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from stress.results import cells
from stress.results.data import LEVELS
from stress.results.statistics import rank
from stress.results.text import WIDTH, grouped, joined, table, wrapped

Stage = dict[str, Any]


def passes(document: dict[str, Any]) -> str:
    """The number of passes that the figures of `typical` stand for, in words such as "1 pass".

    A run that was cut short has fewer passes of its later stages, a very long run keeps a sample of its passes.
    """
    counts = [len(group) for group in _groups(document)]
    fewest, most = min(counts, default=0), max(counts, default=0)
    kept = f"{most:,}" if fewest == most else f"{fewest:,} to {most:,}"
    if (begun := document.get("passes", 0)) > most + 1:
        return f"{kept} of {begun:,} passes"
    return f"{kept} pass{'' if most == 1 else 'es'}"


def typical(document: dict[str, Any]) -> list[Stage]:
    """One stage for all passes over it, in sequence: the median of its times and the means of its counts.

    Passes under different orders stay apart.
    """
    return [_typical(group) for group in _groups(document)]


def _groups(document: dict[str, Any]) -> Iterable[list[Stage]]:
    """The passes over each stage, under each order."""
    groups: dict[tuple[str, str, int], list[Stage]] = {}
    for stage in document.get("stages", ()):
        groups.setdefault((stage.get("order", ""), stage["name"], stage["iteration"]), []).append(stage)
    return groups.values()


def _typical(group: list[Stage]) -> Stage:
    times = sorted(stage["duration_ns"] for stage in group)
    return {**_mean(group), "iteration": group[0]["iteration"], "duration_ns": times[rank(50, len(times))]}


def _mean(values: list[Any]) -> Any:
    """The means of the numbers in values of one shape, as far as it is; words are taken from the first value."""
    first = values[0]
    if isinstance(first, dict):
        return {key: _mean([value[key] for value in values]) for key in first if all(key in value for value in values)}
    if isinstance(first, list):
        return [_mean(list(column)) for column in zip(*values, strict=True)]
    if isinstance(first, str):
        return first
    return sum(values) / len(values)


def stage_tables(document: dict[str, Any], fmt: str) -> str:
    """The stages with their faults, as one table, or as two where one is too wide; empty if there are none."""
    stages = typical(document)
    if not stages:
        return ""
    blocks = document["config"]["memory_bytes"] / document["config"]["block_size_bytes"]
    times: Columns = [
        ("time", lambda stage: cells.time(stage["duration_ns"])),
        ("faults", lambda stage: _count(_faults(stage))),
        ("faults\n/block", lambda stage: cells.scaled(_faults(stage) / blocks)),
    ]
    levels = [column for column in _LEVELS if any(column[1](stage) != "0" for stage in stages)]
    text = _table(stages, [*times, *levels, *_MAPPINGS], fmt)
    if levels and max(map(len, text.splitlines())) > WIDTH:
        text = joined(_table(stages, [*times, *_MAPPINGS], fmt), _table(stages, levels, fmt))
    count = passes(document)
    title = "Stages" if count == "1 pass" else f"Stages: medians of times and means of counts over {count}"
    notes = "trans., perm.: translation and permission faults by the level at which the walk met them."
    return joined(title, text, wrapped(notes) if levels else "")


Columns = list[tuple[str, Callable[[Stage], str]]]


def _table(stages: list[Stage], columns: Columns, fmt: str) -> str:
    """One row per stage, with the order in front where each pass had an order of its own."""
    headers = ["stage", *(title for title, _ in columns)]
    rows: dict[str, list[list[str]]] = {}
    for stage in stages:
        title = f"{stage['name']} {stage['iteration']}" if stage["iteration"] else stage["name"]
        rows.setdefault(stage.get("order", ""), []).append([title, *(cell(stage) for _, cell in columns)])
    if list(rows) == [""]:
        return table(headers, rows[""], fmt)
    return table(["order", *headers], [row for order in rows for row in grouped(order, rows[order])], fmt)


def _faults(stage: Stage) -> float:
    return float(sum(stage["faults"].values()))


def _count(mean: float) -> str:
    """A mean of counts in at most six characters; exact where all passes counted the same, up to five digits."""
    exact = mean < 100_000 and (mean == round(mean) or mean >= 1000)
    return cells.count(round(mean)) if exact else cells.scaled(mean)


def _at_level(status: str, level: int) -> Callable[[Stage], str]:
    return lambda stage: _count(stage["faults_by_level"][status][level])


_LEVELS: Final[Columns] = [
    (f"{short}\nL{level}", _at_level(status, level))
    for status, short in (("translation", "trans."), ("permission", "perm."))
    for level in range(LEVELS)
]

_MAPPINGS: Final[Columns] = [
    ("blocks\nmapped", lambda stage: _count(stage["mappings"]["blocks"])),
    ("pages\nmapped", lambda stage: _count(stage["mappings"]["pages"])),
    ("blocks\nrebuilt", lambda stage: _count(stage["rebuilds"])),
]
