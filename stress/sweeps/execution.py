"""A sweep from its plan to its file: a scheduler runs the trials that are left, and each result is kept as it comes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from stress import interrupt
from stress.config import SweepPlan, Trial, label
from stress.errors import ExitCode, Interrupted, StressError, UsageError, weightiest
from stress.executors import PREDICT
from stress.results.trials import TrialResult
from stress.sweeps.journal import opened


class Observer:
    """Told of a sweep's progress; this one ignores it."""

    def begins(self, trials: Sequence[Trial], done: int) -> None:
        """These trials are left to run; ``done`` are in the file already."""

    def started(self, trial: Trial) -> None:
        """A trial runs now, if the scheduler can tell."""

    def progress(self, report: Any) -> None:
        """The running trial's ``stress.live.Progress``, if the scheduler can tell."""

    def finished(self, trial: Trial, result: TrialResult) -> None:
        """A trial came to an end and is in the file."""

    def note(self, line: str) -> None:
        """Something worth a line."""


#: Runs trials in about the given order and yields each with its result; ends early once the user wants it to.
Scheduler = Callable[[Sequence[Trial], Observer], Iterator[tuple[Trial, TrialResult]]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a sweep ended."""

    results: tuple[TrialResult, ...]  # of earlier sweeps into the file, and of this one
    left: int  # trials without a result that holds
    interrupted: bool  # by the user, while there was something left

    @property
    def exit_code(self) -> int:
        """The weightiest of all trials' exit codes; an interrupt is one."""
        codes = [result.exit_code for result in self.results]
        return weightiest([*codes, ExitCode.INTERRUPTED] if self.interrupted else codes)


def carry_out(plan: SweepPlan, path: Path, scheduler: Scheduler, observer: Observer, *, resume: bool) -> Outcome:
    """Run the trials that the file lacks, and append them. Raises the errors of `opened` and of the scheduler."""
    _refuse_what_cannot_be_predicted(plan)
    with opened(path, plan, resume=resume) as journal, interrupt.caught() as interrupted:
        if journal.cut_off:
            observer.note(f"the last line of {path} was cut off; its trial runs again")
        results = {result.id: result for result in journal.before}
        left = [trial for trial in plan.trials() if trial.id not in journal.done]
        observer.begins(left, len(journal.done))
        missing = len(left)
        for trial, result in scheduler(left, observer):
            journal.append(result)
            results[result.id] = result
            missing -= result.done
            observer.finished(trial, result)
        return Outcome(tuple(results.values()), missing, interrupted.is_set() and missing > 0)


def _refuse_what_cannot_be_predicted(plan: SweepPlan) -> None:
    """Raise `UsageError` for a point that cannot be predicted, before anything runs."""
    predicted = [point for point in plan.points if point.executor == PREDICT]
    if predicted:
        from stress.predict import check

        for point in predicted:
            try:
                check(point.config)
            except UsageError as error:
                raise UsageError(f"{label(point.values)}: {error.message}", error.remedy) from None


def measured(trial: Trial, measure: Callable[[], dict[str, Any]]) -> TrialResult:
    """The trial's result: the document that ``measure`` returns, or its error. An interrupt is raised."""
    started_at = datetime.now(UTC).isoformat(timespec="seconds")
    document, error = None, None
    try:
        document = measure()
    except Interrupted:
        raise
    except StressError as found:
        error = {"exit_code": int(found.exit_code), "message": str(found)}
    point = trial.point
    return TrialResult(trial.id, point.index, point.values, trial.repeat, started_at, document, error)
