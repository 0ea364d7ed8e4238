"""Whether a document that was read has everything a result must have, as the registry of keys says.

Whatever shows a result relies on it: readers check once, and nothing behind them does again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from stress.backings import Backing
from stress.errors import UsageError
from stress.results.data import LEVELS
from stress.results.keys import RESULT_KEYS, STAGED_CONFIG, ResultKey

#: Parts that not every run has, and the version that brought each; who has one has all of it.
_PARTS: Final = {"comparison[]": 1, "stages[]": 2, "life_cycle": 2, "injected": 4}


def _integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 64


def _number(value: object) -> bool:
    return _integer(value) or (isinstance(value, float) and math.isfinite(value))


_IS: Final[dict[str, Callable[[object], bool]]] = {
    "integer": _integer,
    "number": _number,
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "object": lambda value: isinstance(value, dict),
}


def whole(document: dict[str, Any], where: str, remedy: str) -> dict[str, Any]:
    """``document``, or `UsageError` that names the first key that is missing or wrong."""
    for path in defects(document):
        raise UsageError(f"cannot read {where}: it is no whole result, {path} is missing or wrong", remedy)
    return document


def defects(document: dict[str, Any]) -> Iterator[str]:
    """Paths of what the document lacks, has with another type, or with values that contradict each other."""
    found = False
    for path in _misfits(document):
        found = True
        yield path
    if not found:  # else there is nothing to compare
        yield from _contradictions(document)


def _misfits(document: dict[str, Any]) -> Iterator[str]:
    """Paths of the registry's keys that the document lacks or has with another type."""
    version = document.get("schema_version")
    if not isinstance(version, int):
        yield "schema_version"
        return
    staged = STAGED_CONFIG if "stages" in document else ()
    for key in (*RESULT_KEYS, *staged):
        parts = key.path.split(".")
        since = _PARTS.get(parts[0])
        if since is not None and parts[0].removesuffix("[]") not in document:
            continue
        optional = key.optional and (key.since is None or version < key.since)
        too_early = since is not None and version < since
        if too_early or not all(_fits(key, value) for value in _at(document, parts, optional)):
            yield key.path


def _fits(key: ResultKey, value: object) -> bool:
    return (value is None and key.type.endswith("?")) or _IS[key.type.removesuffix("?")](value)


_MISSING: Final = object()


def _at(value: Any, parts: list[str], optional: bool) -> Iterator[Any]:
    """Everything at a path; `_MISSING` where a key that is not optional is not there, or cannot be."""
    if not parts:
        yield value
        return
    part, *rest = parts
    name = part.removesuffix("[]")
    if not isinstance(value, dict):
        yield _MISSING
    elif name in ("<step>", "<class>"):
        for each in value.values():
            yield from _at(each, rest, optional)
    elif name not in value:
        if not optional:
            yield _MISSING
    elif not part.endswith("[]"):
        yield from _at(value[name], rest, optional)
    elif not isinstance(value[name], list):
        yield _MISSING
    else:
        for each in value[name]:
            yield from _at(each, rest, optional)


# -- what must agree; every key has its type by now ----------------------------------------


_TIMES: Final = ("mean", "p50", "p90", "p99", "max")


def _contradictions(document: dict[str, Any]) -> Iterator[str]:
    orders = document["orders"]
    names = [order["order"] for order in orders]
    if len(set(names)) < len(names):
        yield "orders[].order"
    for order in orders:
        if set(order["step_ns"]) != set(order["steps"]):
            yield "orders[].step_ns"
        if any(times["count"] != order["rebuild_ns"]["count"] for times in order["step_ns"].values()):
            yield "orders[].step_ns.<step>.count"
        yield from _of_parts(order, "orders[]")
    if "comparison" in document:
        compared = [(each["baseline"], each["order"]) for each in document["comparison"]]
        if compared != [(names[0], name) for name in names[1:]]:
            yield "comparison[].order"
        for each in document["comparison"]:
            for metric, ratio in each["ratios"].items():
                wrong = [key for key, value in ratio.items() if isinstance(value, int | float) and value < 0]
                yield from (f"comparison[].ratios.{metric}.{key}" for key in wrong)
    for stage in document.get("stages", ()):
        yield from _of_parts(stage, "stages[]")
    if "stages" in document:
        sizes = ("granule_bytes", "block_size_bytes", "memory_bytes")
        yield from (f"config.{name}" for name in sizes if document["config"][name] <= 0)
        if document["config"]["backing"] not in tuple(Backing):
            yield "config.backing"
    if "timeline" in document:
        yield from _of_parts(document["timeline"], "timeline")


def _of_parts(value: dict[str, Any], path: str) -> Iterator[str]:
    """What contradicts itself below ``value``: quantiles of nothing, parallel lists of different lengths."""
    if "p50" in value:
        times = [name for name in _TIMES if name in value]
        yield from (f"{path}.{name}" for name in times if (value[name] is None) != (value["count"] <= 0))
    if path.endswith("faults_by_level"):
        yield from (f"{path}.{name}[]" for name, counts in value.items() if len(counts) != LEVELS)
    if path.startswith("timeline.") or "lower_ns" in value:
        lengths = {name: len(each) for name, each in value.items() if isinstance(each, list)}
        yield from (f"{path}.{name}[]" for name, length in lengths.items() if length != min(lengths.values()))
    for name, each in value.items():
        if isinstance(each, dict):
            yield from _of_parts(each, f"{path}.{name}")
        elif isinstance(each, list):
            yield from _each(each, f"{path}.{name}[]")


def _each(values: Iterable[Any], path: str) -> Iterator[str]:
    for value in values:
        if isinstance(value, dict):
            yield from _of_parts(value, path)
