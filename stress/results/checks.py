"""The checks of a command, one by one with their outcomes, as CI systems list them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from stress.errors import ExitCode, StressError, one_line


class Status(StrEnum):
    """The outcome of a check."""

    PASSED = "passed"
    FAILED = "failed"  # the order or the figure is wrong: exit code 1
    ERROR = "error"  # there is no verdict, which is no pass: every other exit code but 0
    SKIPPED = "skipped"  # there is no verdict, because none was asked for or an error came first


@dataclass(frozen=True, slots=True)
class Check:
    """One order of a run, or one figure of the gate."""

    name: str
    status: Status = Status.PASSED
    kind: str = ""  # of a check that did not pass, in a word
    message: str = ""  # one line
    detail: str = ""  # lines


def of_document(document: dict[str, Any]) -> list[Check]:
    """A check per order of a result. All have the run's verdict: which of several orders broke the table is unknown."""
    names = [each["order"] for each in document["orders"]] or [str(name) for name in document["config"]["orders"]]
    return [Check(name, *_judged(document)) for name in names]


def of_error(name: str, error: Exception) -> Check:
    """The check that stands for an error which ended a command before its own checks."""
    if not isinstance(error, StressError):
        return Check(name, Status.ERROR, "internal-error", one_line(f"{type(error).__name__}: {error}"))
    status = Status.FAILED if error.exit_code == ExitCode.CHECK_FAILED else Status.ERROR
    return Check(name, status, ExitCode(error.exit_code).name.lower().replace("_", "-"), str(error))


def _judged(document: dict[str, Any]) -> tuple[Status, str, str, str]:
    """Status, kind, message and detail."""
    verdict = str(document["verdict"])
    violations = document["violations"]
    if verdict == "correct":
        return Status.PASSED, "", "", ""
    if verdict == "violations":
        found = ", ".join(f"{each['kind']} {each['count']:,}" for each in violations)
        among = [each["order"] for each in document["orders"]]
        where = f" in a run of {', '.join(among)}" if len(among) > 1 else ""
        detail = "\n".join(
            f"{each['kind']}: {one_line(str(evidence))}" for each in violations for evidence in each["evidence"]
        )
        return Status.FAILED, verdict, f"the oracle found {found}{where} (seed {document['seed']})", detail
    why = {
        "broken": ": " + ", ".join(f"{key} {value}" for key, value in (document["failure"] or {}).items()),
        "nothing-tested": ": " + "; ".join(document["untested"]),
    }
    return Status.ERROR, verdict, one_line(f"no verdict, {verdict}{why.get(verdict, '')}"), ""
