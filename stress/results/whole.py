"""Whether a document that was read has everything a result must have, as the registry of keys says."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, Final

from stress.errors import UsageError
from stress.results.keys import RESULT_KEYS

#: Parts that not every run has; who has one has all of it.
_PARTS: Final = ("comparison[]", "stages[]", "life_cycle", "injected")


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
    """``document``, or `UsageError` that names the first key which is missing or of another type."""
    for path in defects(document):
        raise UsageError(f"cannot read {where}: it is no whole result, {path} is missing or wrong", remedy)
    return document


def defects(document: dict[str, Any]) -> Iterator[str]:
    """Paths of the registry's keys that the document lacks or has with another type."""
    for key in RESULT_KEYS:
        parts = key.path.split(".")
        if parts[0] in _PARTS and parts[0].removesuffix("[]") not in document:
            continue
        nullable = key.type.endswith("?")
        is_right = _IS[key.type.removesuffix("?")]
        for found in _at(document, parts, key.optional):
            if not (is_right(found) or (nullable and found is None)):
                yield key.path
                break


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
