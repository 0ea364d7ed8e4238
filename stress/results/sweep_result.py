"""A sweep's results in a notebook: one `Result` per run, with what sets its point apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from stress.results.result import Result, as_html
from stress.results.trials import TrialResult, read_sweep


@dataclass(frozen=True)
class SweepRun:
    """One run of one point. ``result`` is None if there was only an ``error``."""

    values: dict[str, Any]  # of the swept keys, as written
    repeat: int  # from 0
    started_at: str  # ISO 8601, UTC
    verdict: str  # the result's, or "failed"
    result: Result | None
    error: str | None


@dataclass(frozen=True)
class SweepResult:
    """The results of a sweep. ``expected`` is the number of runs of the complete sweep."""

    swept: tuple[str, ...]
    expected: int
    _trials: tuple[TrialResult, ...] = field(repr=False)

    @classmethod
    def of(cls, trials: Sequence[TrialResult], swept: Sequence[str], expected: int) -> Self:
        """The result of these trials."""
        return cls(tuple(swept), expected, tuple(trials))

    @classmethod
    def load(cls, path: Path) -> Self:
        """The sweep in a file; `UsageError` if it cannot be read. A line that was cut off is left out."""
        found = read_sweep(path)
        return cls.of(found.trials, found.swept, found.header["trials"])

    @cached_property
    def runs(self) -> tuple[SweepRun, ...]:
        """Every run that came to an end, in the order in which they ran."""
        return tuple(map(_run, self._trials))

    @property
    def complete(self) -> bool:
        """Whether every run has a result that holds."""
        return sum(trial.done for trial in self._trials) == self.expected

    @property
    def verdicts(self) -> dict[str, int]:
        """The number of runs with each verdict."""
        return dict(Counter(run.verdict for run in self.runs))

    def select(self, **values: Any) -> tuple[SweepRun, ...]:
        """The runs of points with these values, as written in the configuration: ``select(block_size="2M")``."""
        wanted = {key.replace("_", "-"): value for key, value in values.items()}
        return tuple(run for run in self.runs if wanted.items() <= run.values.items())

    def table(self, fmt: str = "simple") -> str:
        """The text that the command prints, in a format of tabulate; `UsageError` for an unknown one."""
        from stress.results.sweep_table import sweep_table

        return sweep_table(self._trials, self.swept, self.expected, fmt)

    def to_records(self) -> list[dict[str, Any]]:
        """A flat dict per order of each run, with the swept values (``sweep.vcpus``), for ``pandas.DataFrame``."""
        return [
            {f"sweep.{key}": value for key, value in run.values.items()} | {"repeat": run.repeat} | record
            for run in self.runs
            if run.result is not None
            for record in run.result.to_records()
        ]

    def __str__(self) -> str:
        return self.table()

    def _repr_html_(self) -> str:
        return as_html(self.table("html"))


def _run(trial: TrialResult) -> SweepRun:
    result = Result.of(trial.document, f"trial {trial.id}") if trial.document else None
    error = str(trial.error.get("message", "")) if trial.error else None
    return SweepRun(trial.values, trial.repeat, trial.started_at, trial.verdict, result, error)
