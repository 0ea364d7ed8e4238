"""Which rows: conditions such as ``vcpus>=2`` or ``window_ns.p50<1ms`` on what runs were and measured."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from stress.errors import UsageError
from stress.guess import did_you_mean
from stress.results.rows import Row, figure_key
from stress.units import parse_duration, parse_size

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
    """What runs can be told apart by."""
    return list(dict.fromkeys(key for row in rows for key in row.keys))


def figures_of(rows: Iterable[Row]) -> list[str]:
    """Paths of all that was measured."""
    return list(dict.fromkeys(path for row in rows for path in row.figures))


def known(name: str, names: Sequence[str], what: str) -> str:
    """``name`` if there is such a thing, else `UsageError` with what is like it."""
    if name in names:
        return name
    hint = did_you_mean(name, names, "--list shows all there are")
    raise UsageError(f"there is no {what} {name[:60]!r} in these results", hint)


def _meets(row: Row, condition: Condition) -> bool:
    name, text = condition.name, condition.text
    value = row.keys[name] if name in row.keys else row.figures.get(name)
    compare = _COMPARISONS[condition.comparison]
    if value is None:
        # Nothing was measured or set: unlike every value, and neither more nor less than any.
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
