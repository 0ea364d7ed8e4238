"""The figures of the gate as a CI system lists them."""

from __future__ import annotations

from typing import Final

from stress.bench.decision import Verdict
from stress.bench.gate import Outcome
from stress.bench.table import sentence
from stress.results.checks import Check, Status, of_error

_NOT_PASSED: Final = {Verdict.REGRESSION: (Status.FAILED, "regression"), Verdict.UNDECIDED: (Status.ERROR, "undecided")}


def checks(outcome: Outcome) -> list[Check]:
    """A check per figure, skipped without a baseline; where launches are missing, the error that ended them, too."""
    if outcome.failure is not None:
        ended = of_error(f"{outcome.done} of {outcome.total} launches", outcome.failure)
        return [ended, *_skipped(outcome, "launches are missing")]
    if outcome.baseline is None:
        return _skipped(outcome, "measured, and not judged: there is no --baseline")
    return [
        Check(each.figure.name, *_NOT_PASSED[each.verdict], sentence(each))
        if each.verdict in _NOT_PASSED
        else Check(each.figure.name)
        for each in outcome.decisions
    ]


def _skipped(outcome: Outcome, why: str) -> list[Check]:
    return [Check(figure, Status.SKIPPED, message=why) for figure in outcome.record.samples]
