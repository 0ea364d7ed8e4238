"""Text to standard output and standard error, and what happens when it cannot get there."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import sys
import time
from contextlib import suppress
from typing import Final

import click

from stress.errors import RunBroken, one_line, printable

_FULL: Final = os.makedev(1, 7)


def check_stdout() -> None:
    """Raise `RunBroken` if standard output can be foreseen to take nothing: better now than after a run."""
    if sys.stdout is None:
        raise _cannot_write("it is closed")
    try:
        descriptor = sys.stdout.fileno()
        status = os.fstat(descriptor)
    except (OSError, ValueError):  # no file: somebody captures it
        return
    if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
        raise _cannot_write("it is open for reading only")
    full = stat.S_ISREG(status.st_mode) and os.fstatvfs(descriptor).f_bavail == 0
    if full or (stat.S_ISCHR(status.st_mode) and status.st_rdev == _FULL):
        raise _cannot_write(os.strerror(errno.ENOSPC))


def stdout_failure() -> RunBroken | None:
    """Flush standard output; returns why it does not take the rest, which is discarded then, or None."""
    try:
        sys.stdout.flush()
    except OSError as error:
        _discard_stdout()
        return _cannot_write(error.strerror)
    return None


def _cannot_write(why: str | None) -> RunBroken:
    return RunBroken(
        f"cannot write to standard output: {why}", "redirect it elsewhere, to /dev/null if nobody reads it"
    )


_announced: list[str] = []


def announce(text: str) -> None:
    """Show a line on a terminal until something else is printed: to import what a command needs takes a while."""
    if sys.stderr is None or not sys.stderr.isatty() or os.environ.get("TERM", "dumb") == "dumb":
        return  # without escape codes the line would stay
    make_way()
    with suppress(OSError):  # the terminal may be gone
        click.echo(f"stress: {text}", err=True, nl=False)
        _announced.append(text)


def make_way() -> None:
    """Wipe out the announced line."""
    if _announced:
        _announced.clear()
        with suppress(OSError):
            click.echo("\r\x1b[K", err=True, nl=False)


class Announcer:
    """Announces how far something is: the first time after a second, then every half second at most."""

    def __init__(self) -> None:
        self._next = time.monotonic() + 1

    def __call__(self, text: str) -> None:
        """Announce the text, if it is time."""
        if time.monotonic() >= self._next:
            announce(text)
            self._next = time.monotonic() + 0.5


def say_what_is_compiled() -> None:
    """Say so if predictions on this machine begin with a compilation."""
    from stress.predict import is_compiled

    if not is_compiled():
        say("compiling the event loop for this version, once (up to a minute)")


def emit(text: str) -> None:
    """Print to standard output. A reader that left (``| head``) is fine; a full disk raises `RunBroken`."""
    make_way()
    try:
        click.echo(printable(text))
        sys.stdout.flush()
    except BrokenPipeError:
        _discard_stdout()
    except OSError as error:
        _discard_stdout()
        raise _cannot_write(error.strerror) from None


def say(text: str) -> None:
    """Print one line about the run to standard error."""
    make_way()
    with suppress(OSError):  # the terminal may be gone
        click.echo(f"stress: {one_line(text)}", err=True)


def _discard_stdout() -> None:
    # What is left in the buffer would fail again when the interpreter flushes it at exit.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
