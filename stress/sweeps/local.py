"""The scheduler of this machine: one trial after the other, in this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from stress import interrupt
from stress.config import Trial
from stress.errors import Interrupted
from stress.executors import PREDICT
from stress.results.document import build
from stress.results.trials import TrialResult
from stress.sweeps.execution import Observer, measured


def run_here(trials: Sequence[Trial], observer: Observer) -> Iterator[tuple[Trial, TrialResult]]:
    """Yield each trial with its result; a trial that Ctrl-C cut short has none and is the last."""
    with interrupt.caught() as interrupted:
        for trial in trials:
            if interrupted.is_set():
                return
            observer.started(trial)
            try:
                result = measured(trial, lambda trial=trial: _measure(trial, observer))  # type: ignore[misc]
            except Interrupted:
                return
            if result.done or not interrupted.is_set():
                yield trial, result


def _measure(trial: Trial, observer: Observer) -> dict[str, Any]:
    if trial.point.executor == PREDICT:
        from stress.predict import predict

        return build(predict(trial.point.config))
    from stress.live import execute  # loads numba

    return build(execute(trial.point.config, progress=observer.progress, note=observer.note))
