"""A file of JSON lines that grows while something runs: one writer at a time, and nothing written is ever lost.

The first line is a header, known by its first key. A line counts once it ends: lines are appended, so only the last one
may be cut off, and a damaged one in the midst was damaged afterwards.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from stress.errors import RunBroken, UsageError, why
from stress.reading import read_open

_ELSEWHERE: Final = "choose another file with --output"


@dataclass(frozen=True, slots=True)
class Found:
    """The contents of a file; its lines are parsed when they are asked for."""

    name: str
    header: dict[str, Any]
    lines: tuple[bytes, ...]  # without the header
    end: int  # bytes up to the end of the last whole line
    cut_off: bool  # whether anything follows it

    def records(self, remedy: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Place and record of each line; `UsageError` with the ``remedy`` for a line that is damaged."""
        for number, line in enumerate(self.lines, start=2):
            where = f"{self.name} line {number}"
            yield where, _parsed(line, where, remedy)


def is_of(key: str, content: bytes) -> bool:
    """Whether a file with this content has a header whose first key is ``key``."""
    return content.startswith(_start(key))


def never_began(key: str, content: bytes) -> bool:
    """Whether a file with such a header ends before the header does: it holds nothing."""
    return b"\n" not in content and (is_of(key, content) or _start(key).startswith(content))


def parse(content: bytes, name: str, remedy: str) -> Found:
    """The parsed content of the file ``name``; `UsageError` with the ``remedy`` for a damaged header."""
    first, *lines = content.split(b"\n")
    cut_off = lines.pop() if lines else b""  # the bytes after the last line break
    header = _parsed(first, f"{name} line 1", remedy)
    return Found(name, header, tuple(lines), len(content) - len(cut_off), bool(cut_off))


def damaged(where: str, remedy: str) -> UsageError:
    """The error of a line that is not as it was written."""
    return UsageError(f"{where} is damaged", remedy)


def changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The keys whose values differ, in words; empty if none do."""
    return "; ".join(
        f"{key} was {_shown(before.get(key))} and is {_shown(now.get(key))}"
        for key in dict.fromkeys((*before, *now))
        if before.get(key) != now.get(key)
    )


class Lines:
    """An open file, locked until it is closed. Use `opened`."""

    def __init__(self, path: Path, descriptor: int, writer: str) -> None:
        self._path = path
        self._descriptor = descriptor
        self._writer = writer
        self._end = 0

    def begin(self, header: Mapping[str, Any], resume: bool) -> bytes:
        """Write the header into a new file; returns an old file's content, which the caller judges and `keep`s."""
        key = next(iter(header))
        try:
            content = read_open(self._descriptor, self._path)
        except OSError as error:
            raise UsageError(f"cannot read {self._path}: {why(error)}", _ELSEWHERE) from error
        # A process that ended before there was anything to write has left nothing to lose.
        empty = is_of(key, content) and content.find(b"\n") == len(content) - 1
        if content and not resume and not empty:
            remedy = f"continue it with --resume, or {_ELSEWHERE}"
            raise UsageError(f"{self._path} exists already", remedy)
        if content and not never_began(key, content) and not (empty and not resume):
            return content
        self.keep(0)
        self._write(header)
        return b""

    def keep(self, size: int) -> None:
        """Go on after the first ``size`` bytes."""
        os.ftruncate(self._descriptor, size)
        self._end = size

    def append(self, record: Mapping[str, Any]) -> None:
        """Add a line that is on the disk when this returns. `RunBroken` if it cannot be; the file is as before then."""
        if os.fstat(self._descriptor).st_nlink == 0:
            what = f"{self._path} was removed or replaced while the {self._writer} was running"
            raise RunBroken(what, f"leave it where it is, and start the {self._writer} again")
        self._write(record)

    def _write(self, record: Mapping[str, Any]) -> None:
        line = json.dumps(record, allow_nan=False).encode() + b"\n"
        try:
            written = 0
            while written < len(line):
                written += os.pwrite(self._descriptor, line[written:], self._end + written)
            os.fsync(self._descriptor)
        except OSError as error:
            # Half a line would hide the lines that are appended after it.
            with contextlib.suppress(OSError):
                self.keep(self._end)
            remedy = "make room, then continue with --resume; what the file has is kept"
            raise RunBroken(f"cannot write {self._path}: {why(error)}", remedy) from error
        self._end += len(line)


@contextmanager
def opened(path: Path, writer: str) -> Iterator[Lines]:
    """The lines in ``path``, to be begun; the command ``writer`` is named in errors.

    `UsageError` if it cannot be written, or another process writes it.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o666)
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot write {path}: {why(error)}", _ELSEWHERE) from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise UsageError(f"cannot write {path}: it is no regular file", _ELSEWHERE)
        try:
            # The kernel drops the lock with the process, however it ends.
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            remedy = f"wait for it, or {_ELSEWHERE}"
            raise UsageError(f"another {writer} is writing to {path}", remedy) from error
        yield Lines(path, descriptor, writer)
    finally:
        os.close(descriptor)


def _start(key: str) -> bytes:
    return f'{{"{key}": '.encode()


def _parsed(line: bytes, where: str, remedy: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise damaged(where, remedy) from error
    if not isinstance(found, dict):
        raise damaged(where, remedy)
    return found


def _shown(value: object) -> str:
    return "absent" if value is None else json.dumps(value)
