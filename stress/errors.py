"""The exception tree and the exit codes: every error carries one line, a remedy and an exit code."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from typing import ClassVar


class ExitCode(IntEnum):
    """The exit codes of the process; there is no other list of them."""

    OK = 0
    CHECK_FAILED = 1  # the oracle found a violation, or a comparison a regression
    USAGE = 2  # options or configuration make no sense
    MACHINE = 3  # the machine cannot: shared memory too small, wrong operating system
    BROKEN = 4  # no verdict: the run broke (a process died or hung), or nothing was at stake in it
    INTERRUPTED = 130  # Ctrl-C, as shells report SIGINT


def weightiest(codes: Iterable[int]) -> int:
    """The exit code that stands for several: a failed check outweighs every other code; 0 if there are none."""
    found = set(codes)
    return ExitCode.CHECK_FAILED if ExitCode.CHECK_FAILED in found else max(found, default=ExitCode.OK)


def one_line(text: str) -> str:
    """``text`` fit for one line of a terminal."""
    return printable(" ".join(text.split()))


def printable(text: str) -> str:
    """``text`` without effect on a terminal: line breaks and tabs stay, escape codes and the like are spelt out."""
    # Text may quote what a user or a file gave us, lone surrogates among it.
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode("ascii") for c in text)


def why(error: Exception) -> str:
    """The cause of an error, such as the system's words for it, in lower case as at the end of a sentence."""
    return (error.strerror if isinstance(error, OSError) and error.strerror else str(error)).lower()


def shown(value: object) -> str:
    """A given value as text, cut to a length fit for one line."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


class StressError(Exception):
    """An error the user can act on. ``str()`` is one line: ``message; remedy``."""

    exit_code: ClassVar[ExitCode] = ExitCode.BROKEN

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message, remedy)
        self.message = one_line(message)
        self.remedy = one_line(remedy)

    def __str__(self) -> str:
        return f"{self.message}; {self.remedy}" if self.remedy else self.message


class CheckFailed(StressError):  # noqa: N818 - the check failed, not the program
    """A check failed: the oracle found a violation where none may be."""

    exit_code = ExitCode.CHECK_FAILED


class UsageError(StressError):
    """The options or the configuration make no sense."""

    exit_code = ExitCode.USAGE


class MachineError(StressError):
    """This machine cannot do what was asked."""

    exit_code = ExitCode.MACHINE


class Interrupted(StressError):  # noqa: N818 - the user's wish, no error
    """The user ended the run before there was anything to keep."""

    exit_code = ExitCode.INTERRUPTED


class RunBroken(StressError):  # noqa: N818 - names a state of the run, like the exit code it stands for
    """The run broke: a process died, hung, or its result could not be kept."""

    exit_code = ExitCode.BROKEN


class TooFewSamples(RunBroken):
    """There are too few samples for a verdict."""
