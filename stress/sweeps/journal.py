"""The file of a sweep while it is written: one writer at a time, whole lines only, and nothing written is ever lost."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from stress import __version__
from stress.config import SweepPlan
from stress.errors import RunBroken, UsageError
from stress.results.document import SCHEMA_VERSION, plain
from stress.results.trials import SWEEP_SCHEMA, SweepResult, TrialResult, is_sweep, never_began, parse_sweep

_ELSEWHERE: Final = "choose another file with --output"


class Journal:
    """An open file, locked until it is closed. Use `opened`."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor
        self._end = 0
        self.before: tuple[TrialResult, ...] = ()
        self.cut_off = False  # what stood half-written at the end was dropped

    @property
    def done(self) -> frozenset[str]:
        """Ids of the trials that an earlier sweep has finished."""
        return frozenset(trial.id for trial in self.before if trial.done)

    def append(self, trial: TrialResult) -> None:
        """Add a line that is on the disk when this returns. `RunBroken` if it cannot be; the file is as before then."""
        if os.fstat(self._descriptor).st_nlink == 0:
            what = f"{self._path} was removed or replaced while the sweep was running"
            raise RunBroken(what, "leave it where it is, and start the sweep again")
        self._write(trial.to_line())

    def begin(self, plan: SweepPlan, resume: bool) -> None:
        """Write the header into a new file, or check that an old one is of the same sweep and go on after it."""
        with open(self._descriptor, "rb", closefd=False) as file:
            content = file.read()
        # A sweep that ended before its first run has left nothing to lose, such as one whose scheduler was not there.
        empty = is_sweep(content) and content.find(b"\n") == len(content) - 1
        if content and not resume and not empty:
            raise _exists(self._path)
        if not content or never_began(content) or (empty and not resume):
            self._cut(0)
            self._write(json.dumps(header(plan), allow_nan=False).encode() + b"\n")
            return
        found = parse_sweep(content, str(self._path))
        if found.header["sweep"] != sweep_hash(plan):
            raise UsageError(
                f"{self._path} is of another sweep: {_difference(found, plan)}",
                "restore the configuration, or start anew with another --output",
            )
        self.before, self.cut_off = found.trials, found.cut_off
        self._cut(found.end)

    def _cut(self, size: int) -> None:
        os.ftruncate(self._descriptor, size)
        self._end = size

    def _write(self, line: bytes) -> None:
        try:
            written = 0
            while written < len(line):
                written += os.pwrite(self._descriptor, line[written:], self._end + written)
            os.fsync(self._descriptor)
        except OSError as error:
            # Half a line would hide what is appended after it.
            with contextlib.suppress(OSError):
                self._cut(self._end)
            remedy = "make room, then continue with --resume; what the file has is kept"
            raise RunBroken(f"cannot write {self._path}: {_why(error)}", remedy) from error
        self._end += len(line)


@contextmanager
def opened(path: Path, plan: SweepPlan, *, resume: bool) -> Iterator[Journal]:
    """The journal of ``plan`` in ``path``. With ``resume`` a file may be there, and is continued.

    `UsageError` if it may not be there, is of another sweep, is damaged, cannot be written, or another sweep writes it.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o666)
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot write {path}: {_why(error)}", _ELSEWHERE) from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise UsageError(f"cannot write {path}: it is no regular file", _ELSEWHERE)
        try:
            # The kernel drops the lock with the process, however it ends.
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            remedy = "wait for it, or choose another file with --output"
            raise UsageError(f"another sweep is writing to {path}", remedy) from error
        journal = Journal(path, descriptor)
        journal.begin(plan, resume)
        yield journal
    finally:
        os.close(descriptor)


def header(plan: SweepPlan) -> dict[str, Any]:
    """The first line of the file."""
    return {
        "sweep_schema": SWEEP_SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "stress_version": __version__,
        "sweep": sweep_hash(plan),
        "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "points": len(plan.points),
        "repeats": plan.repeats,
        "trials": len(plan.points) * plan.repeats,
        "seed": plan.seed,
        "swept": list(plan.swept),
        "tables": plain(plan.tables),
    }


def sweep_hash(plan: SweepPlan) -> str:
    """Equal for sweeps with the same trials, in whatever order they run."""
    digest = hashlib.sha256()
    for identity in sorted(point.identity for point in plan.points):
        digest.update(f"{identity}x{plan.repeats} ".encode())
    return digest.hexdigest()[:16]


def _exists(path: Path) -> UsageError:
    return UsageError(f"{path} exists already", "continue it with --resume, or choose another file with --output")


def _difference(found: SweepResult, plan: SweepPlan) -> str:
    """The keys whose values differ between a file and a plan."""
    before, now = dict(_flat(found.header["tables"])), dict(_flat(plain(plan.tables)))
    changed = [
        f"{path} was {_shown(before.get(path))} and is {_shown(now.get(path))}"
        for path in dict.fromkeys((*before, *now))
        if before.get(path) != now.get(path) and path != "plan.seed"
    ]
    if not changed:
        return "its file is the same, but the defaults are those of another machine or version of stress"
    return "; ".join(changed)


def _flat(tables: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, table in tables.items():
        if isinstance(table, dict):
            yield from ((f"{name}.{key}", value) for key, value in table.items())
        else:
            yield name, table


def _shown(value: object) -> str:
    return "absent" if value is None else json.dumps(value)


def _why(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) and error.strerror else str(error)).lower()
