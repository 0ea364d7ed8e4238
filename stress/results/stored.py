"""Any stored result: of a run or a comparison, of a sweep, of a search, or counterexamples."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stress.reading import read_bytes
from stress.results import counterexamples, store
from stress.results.counterexamples import Kept
from stress.results.rows import Row, rows_of, rows_of_trials
from stress.results.searched import checked, is_search, search_table
from stress.results.sweep_table import sweep_table
from stress.results.tables import compare_table
from stress.results.trials import SweepFile, is_sweep, parse_sweep


@dataclass(frozen=True, slots=True)
class Stored:
    """What a file of this name holds: exactly one of them."""

    name: str
    document: dict[str, Any] | None = None
    sweep: SweepFile | None = None
    search: dict[str, Any] | None = None
    counterexamples: list[Kept] | None = None

    @property
    def swept(self) -> tuple[str, ...]:
        """The keys in which its runs differ."""
        return self.sweep.swept if self.sweep else ()

    @property
    def rows(self) -> list[Row]:
        """Every order of every run that has a result."""
        if self.sweep:
            return rows_of_trials(trial for trial in self.sweep.trials if trial.done)
        return list(rows_of(self.document)) if self.document else []

    def table(self, fmt: str) -> str:
        """The tables that the result's command printed."""
        if self.sweep:
            return sweep_table(self.sweep.trials, self.sweep.swept, self.sweep.header["trials"], fmt)
        if self.search:
            return search_table(self.search, fmt)
        if self.counterexamples:
            return counterexamples.drawn(self.counterexamples, fmt)
        return compare_table(self.document, fmt) if self.document else ""


def stored(path: Path) -> Stored:
    """The result in a file; `UsageError` if it cannot be read or is none."""
    try:
        content = read_bytes(path)
    except (OSError, ValueError) as error:  # ValueError: the path holds a null byte
        raise store.unreadable(path, error) from error
    if is_sweep(content):
        return Stored(path.name, sweep=parse_sweep(content, str(path)))
    document = store.loaded(content, path)
    if counterexamples.is_counterexamples(document):
        return Stored(path.name, counterexamples=counterexamples.checked(document, path))
    if is_search(document):
        return Stored(path.name, search=checked(document, path))
    return Stored(path.name, document=store.checked(document, str(path), store.AGAIN))
