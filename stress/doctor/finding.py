"""The finding of a check: how bad it is, what was found, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from stress.errors import one_line


class Status(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    UNKNOWN = "unknown"  # this machine, or its container, does not tell
    WARNING = "warning"  # runs are possible; their figures are less trustworthy
    PROBLEM = "problem"  # runs are impossible


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found in one line, and what to do about it ("" if nothing)."""

    status: Status
    found: str
    remedy: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "found", one_line(self.found))  # it may quote a file

    @classmethod
    def ok(cls, found: str) -> Finding:
        """A finding with nothing to do about it."""
        return cls(Status.OK, found)

    @classmethod
    def unknown(cls, found: str) -> Finding:
        """A finding of what this machine does not tell."""
        return cls(Status.UNKNOWN, found)

    @classmethod
    def warning(cls, found: str, remedy: str) -> Finding:
        """A finding to mend for trustworthy figures."""
        return cls(Status.WARNING, found, remedy)

    @classmethod
    def problem(cls, found: str, remedy: str) -> Finding:
        """A finding to mend before anything can run."""
        return cls(Status.PROBLEM, found, remedy)
