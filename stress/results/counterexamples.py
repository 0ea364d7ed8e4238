"""Counterexamples of `stress verify`: how a file is known to hold them, and their timelines as people read them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from stress.errors import UsageError
from stress.results.text import joined, table, wrapped

MAGIC: Final = "stress verify: a counterexample"
VERSION: Final = 1

#: How the note of a violation begins, in a timeline's cell.
FOUND: Final = ">>>"
#: Columns of a terminal that a timeline takes, if its actors get this much each.
WIDTH, _LEAST = 120, 14

DrawTable = Callable[[Sequence[str], Sequence[Sequence[str]]], str]


@dataclass(frozen=True, slots=True)
class Timeline:
    """A schedule step by step: a column per actor after the first, then the state where it changed."""

    within: str  # the bounds, in words
    actors: int
    header: list[str]
    rows: list[list[str]]
    rules: list[str]  # those that the schedule breaks

    def __post_init__(self) -> None:
        if not 0 < self.actors < len(self.header) or any(len(row) != len(self.header) for row in self.rows):
            raise ValueError("its rows have not the cells that its header names")

    def breaks(self, row: Sequence[str]) -> bool:
        """Whether something is violated in a row."""
        return any(FOUND in cell for cell in row[1 : 1 + self.actors])

    def drawn(self, draw: DrawTable) -> str:
        """As text for a terminal."""
        return "\n".join([draw(self.header, fitted(self.header, self.rows, self.actors)), *self.rules])


@dataclass(frozen=True, slots=True)
class Kept:
    """What a reader of a file with counterexamples relies on; it has more, for `stress verify --replay`."""

    order: str
    kinds: list[str]
    timeline: Timeline


_KEPT: Final = TypeAdapter(list[Kept])


def is_counterexamples(document: Any) -> bool:
    """Whether a JSON value claims to be one, or a list of them."""
    first = document[0] if isinstance(document, list) and document else document
    return isinstance(first, dict) and first.get("magic") == MAGIC


def checked(document: Any, path: Path) -> list[Kept]:
    """The counterexamples; `UsageError` if they are of another version, or not whole."""
    found = document if isinstance(document, list) else [document]
    again = "let stress verify --output write it again"
    if any(not isinstance(each, dict) or each.get("version") != VERSION for each in found):
        raise UsageError(f"{path} has counterexamples of another version than {VERSION}", again)
    try:
        return _KEPT.validate_python(found)
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise UsageError(
            f"cannot show {path}: it is no whole counterexample, {where} is missing or wrong", again
        ) from None


def drawn(found: Sequence[Kept], fmt: str) -> str:
    """All of them as text."""
    return joined(
        *(
            f"{each.order}: VIOLATION: {', '.join(each.kinds)}\n{wrapped(each.timeline.within)}\n\n"
            + each.timeline.drawn(lambda header, rows: table(header, rows, fmt, words=True))
            for each in found
        )
    )


def fitted(header: Sequence[str], rows: Sequence[Sequence[str]], actors: int) -> list[list[str]]:
    """The rows with the cells of their ``actors`` columns, which follow the first, broken so that all fits `WIDTH`."""
    # Tables give a head two columns more than it has letters.
    longest = [max(map(len, column)) for column in zip((f"{name}  " for name in header), *rows, strict=True)]
    free = WIDTH - 2 * (len(header) - 1) - longest[0] - sum(longest[1 + actors :])
    widths, left = [0] * actors, actors
    for at in sorted(range(actors), key=lambda each: longest[1 + each]):  # who needs less leaves it to the others
        widths[at] = max(min(longest[1 + at], free // left), _LEAST)
        free, left = free - widths[at], left - 1
    broken = [[_lines(cell, width) for cell, width in zip(row[1 : 1 + actors], widths, strict=True)] for row in rows]
    return [[row[0], *cells, *row[1 + actors :]] for row, cells in zip(rows, broken, strict=True)]


def _lines(cell: str, width: int) -> str:
    parts = cell.replace(f"; {FOUND}", f";\n{FOUND}").splitlines()
    return "\n".join(line for part in parts for line in wrap(part, width, break_on_hyphens=False))
