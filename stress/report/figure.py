"""A plot with its title, a note on how to read it, and its key numbers for people who cannot see it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from stress.results.text import numbers


@dataclass(frozen=True, slots=True)
class Table:
    """Cells as text."""

    headers: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]

    @property
    def numbers(self) -> list[bool]:
        """Which columns hold numbers."""
        return numbers(self.headers, [tuple(map(str, row)) for row in self.rows])


@dataclass(frozen=True, slots=True)
class Figure:
    """One plot of the page, or the reason why there is none."""

    title: str
    note: str  # how to read it, or why there is nothing to read
    plots: list[dict[str, Any]] = field(default_factory=list)  # Vega-Lite; several stand side by side
    table: Table | None = None


@dataclass(frozen=True, slots=True)
class Lanes:
    """A schedule drawn as a table: time runs down, a lane per actor, then what changed."""

    title: str
    note: str
    headers: Sequence[str]  # of the time, the actors, the states
    actors: int
    rows: Sequence[Sequence[str]]
    broken: Sequence[bool]  # rows in which a rule is broken
    rules: Sequence[str]
