"""Text to standard output and standard error, and what happens when it cannot get there."""

from __future__ import annotations

import os
import sys
from contextlib import suppress

import click

from stress.errors import RunBroken, one_line, printable


def emit(text: str) -> None:
    """Print to standard output. A reader that left (``| head``) is fine; a full disk raises `RunBroken`."""
    try:
        click.echo(printable(text))
        sys.stdout.flush()
    except BrokenPipeError:
        _discard_stdout()
    except OSError as error:
        _discard_stdout()
        raise RunBroken(f"cannot write to standard output: {error.strerror}", "redirect it elsewhere") from None


def say(text: str) -> None:
    """Print one line about the run to standard error."""
    with suppress(OSError):  # the terminal may be gone
        click.echo(f"stress: {one_line(text)}", err=True)


def _discard_stdout() -> None:
    # What is left in the buffer would fail again when the interpreter flushes it at exit.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
