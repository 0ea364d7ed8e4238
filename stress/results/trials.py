"""The file of a sweep, JSON Lines: a header, then one line per trial that came to an end.

    {"sweep_schema": 1, "stress_version": ..., "sweep": hash, "trials": N, "swept": [...], "tables": {...}, ...}
    {"trial": id, "point": 0, "values": {...}, "repeat": 0, "started_at": ..., "document": {...} or null, "error": ...}

The last line of a trial holds. A trial is done if another run would not give a more complete result; a trial that
broke, was interrupted or could not run is not done.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from stress.errors import ExitCode, UsageError, why
from stress.reading import read_bytes
from stress.results import lines
from stress.results.store import checked

#: The version of the header and of the keys around the documents in the lines; the documents have their own.
SWEEP_SCHEMA: Final = 1

_KEY: Final = "sweep_schema"
_OTHER: Final = "name a sweep's file, or remove it"
_REPAIR: Final = "remove that line, and run its trial again with --resume"


@dataclass(frozen=True, slots=True)
class TrialResult:
    """One trial as it ended: a result document, or the error that left none."""

    id: str
    point: int  # index of its point in the configuration
    values: dict[str, Any]  # what sets its point apart, as written in the configuration
    repeat: int  # from 0
    started_at: str  # ISO 8601, UTC
    document: dict[str, Any] | None
    error: dict[str, Any] | None = None  # exit_code, message

    @property
    def verdict(self) -> str:
        """The document's verdict; ``failed`` without one."""
        return str(self.document["verdict"]) if self.document else "failed"

    @property
    def exit_code(self) -> int:
        """The exit code that the trial alone would have had."""
        found = self.document or self.error or {}
        return int(found.get("exit_code", ExitCode.BROKEN))

    @property
    def done(self) -> bool:
        """Whether it need not run again: a verdict on the order, and not cut short by the user."""
        if self.document is None or self.verdict not in ("correct", "violations", "predicted"):
            return False
        return bool(self.document["complete"] or self.document["failure"] is not None)

    def to_record(self) -> dict[str, Any]:
        """The trial's line in the file, as plain values."""
        names = ("point", "values", "repeat", "started_at", "document", "error")
        return {"trial": self.id, **{name: getattr(self, name) for name in names}}


@dataclass(frozen=True, slots=True)
class SweepFile:
    """A sweep's file as it was read."""

    header: dict[str, Any]
    trials: tuple[TrialResult, ...]  # the last of each, in the order of the file
    end: int  # bytes up to the end of the last whole line
    cut_off: bool  # whether anything follows it

    @property
    def swept(self) -> tuple[str, ...]:
        """The keys in which points differ."""
        return tuple(self.header["swept"])

    @property
    def done(self) -> frozenset[str]:
        """Ids of the trials that need not run again."""
        return frozenset(trial.id for trial in self.trials if trial.done)


def is_sweep(content: bytes) -> bool:
    """Whether a file with this content is a sweep's."""
    return lines.is_of(_KEY, content)


def read_sweep(path: Path) -> SweepFile:
    """The sweep in a file; `UsageError` if it cannot be read, is none, is damaged, or of a newer schema."""
    try:
        content = read_bytes(path)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {why(error)}", _OTHER) from error
    return parse_sweep(content, str(path))


def parse_sweep(content: bytes, name: str) -> SweepFile:
    """The sweep that a file of this name contains."""
    if not is_sweep(content) or lines.never_began(_KEY, content):
        raise UsageError(f"cannot read {name}: it is no result of stress sweep, or cut off in its first line", _OTHER)
    read = lines.parse(content, name, _OTHER)
    header = _header(read.header, name)
    trials: dict[str, TrialResult] = {}
    for where, line in read.records(_REPAIR):
        found = _trial(line, where)
        trials.pop(found.id, None)
        trials[found.id] = found
    return SweepFile(header, tuple(trials.values()), read.end, read.cut_off)


def _header(header: dict[str, Any], name: str) -> dict[str, Any]:
    version = header.get(_KEY)
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise UsageError(f"cannot read {name}: it is no result of stress sweep", _OTHER)
    if version > SWEEP_SCHEMA:
        message = f"{name} has sweep schema version {version}, this stress reads versions up to {SWEEP_SCHEMA}"
        raise UsageError(message, "read it with the newer stress that wrote it")
    kinds = {"sweep": str, "swept": list, "tables": dict, "trials": int}
    if not all(isinstance(header.get(key), kind) for key, kind in kinds.items()):
        raise lines.damaged(f"{name} line 1", _OTHER)
    if not all(isinstance(key, str) for key in header["swept"]):
        raise lines.damaged(f"{name} line 1", _OTHER)
    return header


def _trial(line: dict[str, Any], where: str) -> TrialResult:
    kinds = {"trial": str, "point": int, "values": dict, "repeat": int, "started_at": str}
    if not all(isinstance(line.get(key), kind) for key, kind in kinds.items()):
        raise lines.damaged(where, _REPAIR)
    document, error = line.get("document"), line.get("error")
    if document is None and not isinstance(error, dict):
        raise lines.damaged(where, _REPAIR)
    if document is not None:
        document = checked(document, where, _REPAIR)
    values, started_at = line["values"], line["started_at"]
    return TrialResult(line["trial"], line["point"], values, line["repeat"], started_at, document, error)
