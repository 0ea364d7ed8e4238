"""Results as rows of a table: one per order of each run, with the run's options and all its figures.

Conditions such as ``vcpus>=2`` or ``window_ns.p50<1ms`` select among them.
"""

from __future__ import annotations

import operator
import re
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from stress.errors import UsageError
from stress.executors import LIVE
from stress.guess import did_you_mean
from stress.orders import STEPS
from stress.results import cells
from stress.results.parts import ResultKey
from stress.results.schema import find_key
from stress.units import format_bytes, format_duration, format_size, parse_duration, parse_size

if TYPE_CHECKING:  # loads numpy, which a command's help need not wait for
    from stress.results.trials import TrialResult

#: Endings of a configuration's keys in a document, which say the unit.
_UNITS: Final = {"_bytes": "bytes", "_ns": "ns", "_pages": ""}
_NOT_SHOWN: Final = ("orders", "platform_profile")
#: Figures of the whole run.
_OF_RUN: Final = ("elapsed_ns", "start_up_ns")
_PLACES: Final = ("orders[].", "comparison[].", "")


@dataclass(frozen=True, slots=True)
class Row:
    """One order of one run."""

    keys: Mapping[str, Any]  # order, repeat, verdict, and every option under its name
    units: Mapping[str, str]  # of the options that have one: bytes or ns
    figures: Mapping[str, float | None]  # by path, as `figure_key` knows it

    def text(self, key: str) -> str:
        """A key's value as one would write it: ``2M``, ``500ms``, ``on``."""
        value, unit = self.keys.get(key), self.units.get(key)
        if value is None:
            return cells.NONE
        if isinstance(value, bool):
            return "on" if value else "off"
        if isinstance(value, int) and unit:
            return format_size(value) if unit == "bytes" else format_duration(value)
        return str(value)


def rows_of(document: dict[str, Any], repeat: int = 1) -> Iterator[Row]:
    """The rows of one result document."""
    config = [(*_option(key), value) for key, value in document["config"].items() if key not in _NOT_SHOWN]
    options = {name: value for name, _, value in config}
    units = {name: unit for name, unit, _ in config if unit}
    common = {name: document[name] for name in _OF_RUN}
    common |= {f"life_cycle.{name}": count for name, count in document.get("life_cycle", {}).items()}
    common["violations"] = sum(found["count"] for found in document["violations"])
    ratios = {each["order"]: each["ratios"] for each in document.get("comparison", ())}
    for order in document["orders"]:
        figures = dict(_numbers(order))
        figures |= _numbers(ratios.get(order["order"], {}), "ratios.")
        figures |= _stages(document.get("stages", ()), order["order"])
        executor = document.get("executor", LIVE)
        keys = {
            "order": order["order"],
            "repeat": repeat,
            "verdict": document["verdict"],
            "executor": executor,
            **options,
        }
        yield Row(keys, units, figures | common)


def rows_of_trials(trials: Iterable[TrialResult]) -> list[Row]:
    """The rows of a sweep's trials, in the order of the configuration; those without a result have none."""
    ordered = sorted(trials, key=lambda trial: (trial.point, trial.repeat))
    return [row for trial in ordered if trial.document for row in rows_of(trial.document, trial.repeat + 1)]


def figure_key(path: str) -> ResultKey | None:
    """The registered key of a figure's path: of the order, its ratios, a stage, or the run."""
    head, *rest = path.split(".")
    if head == "stages":
        return find_key(f"stages[].{rest[-1]}") if len(rest) == 2 else None
    if path == "violations":
        return ResultKey(path, "integer", meaning="violations that the oracle found")
    general = ".".join("<step>" if part in STEPS else part for part in (head, *rest))
    return next((found for place in _PLACES if (found := find_key(place + general))), None)


def figure_text(path: str, value: float | None) -> str:
    """A figure as the run's own tables show it."""
    key = figure_key(path)
    unit = key.unit if key else ""
    if value is None:
        return cells.NONE
    if unit == "ns":
        return cells.time(value)
    if unit == "bytes":
        return format_bytes(value)
    if path.endswith("_share"):
        return cells.share(value)
    if unit or value >= 1_000_000:
        return cells.scaled(value)
    return cells.count(int(value)) if value == int(value) else cells.factor(value)


def _option(key: str) -> tuple[str, str]:
    """The name and unit of an option from its key in a document: ``block-size``, bytes of ``block_size_bytes``."""
    ending = next((ending for ending in _UNITS if key.endswith(ending)), "")
    return key.removesuffix(ending).replace("_", "-"), _UNITS.get(ending, "")


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names and values of all keys of an object and the objects in it; lists are left out."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        elif not isinstance(value, list):
            yield prefix + key, value


def _numbers(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float | None]]:
    """The values of `flat` that are numbers, or null."""
    return ((path, value) for path, value in flat(values, prefix) if not isinstance(value, bool | str))


def _stages(stages: Iterable[dict[str, Any]], order: str) -> dict[str, float | None]:
    """The median time of each stage over the passes under this order, by its name."""
    times: dict[str, list[int]] = {}
    for stage in stages:
        if stage.get("order", order) == order:
            times.setdefault(f"stages.{stage['name']}.duration_ns", []).append(stage["duration_ns"])
    return {path: statistics.median(found) for path, found in times.items()}


_COMPARISONS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_CONDITION: Final = re.compile(r"\s*([^=<>!\s]+)\s*(<=|>=|!=|=|<|>)\s*(.*?)\s*", re.DOTALL)
_WORDS: Final = {"on": True, "true": True, "off": False, "false": False}


@dataclass(frozen=True, slots=True)
class Condition:
    """A key or a figure compared with a text."""

    name: str
    comparison: str
    text: str


def parse_condition(text: str) -> Condition:
    """The condition that is written; `UsageError` if it is none."""
    match = _CONDITION.fullmatch(text)
    if match is None:
        raise UsageError(f"{text[:60]!r} is no condition", "write KEY=VALUE, or !=, <, <=, >, >= between them")
    return Condition(*match.groups())


def selected(rows: Sequence[Row], conditions: Iterable[Condition]) -> list[Row]:
    """The rows that meet all conditions. `UsageError` for a key that no row has, or a value that cannot be compared."""
    found = list(rows)
    for condition in conditions:
        if rows:
            known(condition.name, [*keys_of(rows), *figures_of(rows)], "key or figure")
        found = [row for row in found if _meets(row, condition)]
    return found


def keys_of(rows: Iterable[Row]) -> list[str]:
    """The keys that the rows have, in sequence."""
    return list(dict.fromkeys(key for row in rows for key in row.keys))


def figures_of(rows: Iterable[Row]) -> list[str]:
    """The paths of the figures that the rows have, in sequence."""
    return list(dict.fromkeys(path for row in rows for path in row.figures))


def known(name: str, names: Sequence[str], what: str) -> str:
    """``name`` if it is among the names, else `UsageError` with the names that are like it."""
    if name in names:
        return name
    hint = did_you_mean(name, names, "--list shows all there are")
    raise UsageError(f"there is no {what} {name[:60]!r} in these results", hint)


def _meets(row: Row, condition: Condition) -> bool:
    name, text = condition.name, condition.text
    value = row.keys[name] if name in row.keys else row.figures.get(name)
    compare = _COMPARISONS[condition.comparison]
    if value is None:
        # A value that was not measured or set is unlike every other, and neither more nor less than any.
        return compare(text, "-") if condition.comparison in ("=", "!=") else False
    if isinstance(value, str):
        if condition.comparison not in ("=", "!="):
            raise UsageError(f"{name} is a word: {condition.comparison} says nothing about it", "use = or !=")
        return compare(value, ",".join(part.strip() for part in text.split(",")))
    if not isinstance(value, int | float):
        raise UsageError(f"{name} is neither a word nor a number", "leave it out of --filter")
    return compare(value, _number(row, name, text))


def _number(row: Row, name: str, text: str) -> float:
    if text in _WORDS:
        return _WORDS[text]
    key = figure_key(name)
    unit = row.units.get(name) or (key.unit if key and name not in row.keys else "")
    try:
        return float(text)
    except ValueError:
        if unit == "bytes":
            return parse_size(text)
        if unit == "ns":
            return parse_duration(text)
    raise UsageError(f"{name} is a number, not {text[:40]!r}", "compare it with a number")
