"""Ctrl-C, SIGTERM and a lost terminal as a flag that whoever works looks at: nothing is torn down half-way."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP})

#: Set once the user wants the process to end.
requested = threading.Event()

_noticed: list[int] = []


def _notice(number: int, frame: FrameType | None) -> None:
    _noticed.append(number)
    requested.set()


def install() -> None:
    """Catch the signals for the rest of the process's life; the command does so before it imports anything else."""
    for number in SIGNALS:
        signal.signal(number, _notice)


def ignore() -> None:
    """The work is done: a late signal must not change the exit code while the interpreter ends."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def caught() -> Iterator[threading.Event]:
    """The flag, with the signals caught meanwhile if they are not already (and cannot be outside the main thread).

    What came is not lost on the caller's program: SIGTERM and SIGHUP are raised again at the end, for its own handlers;
    SIGINT is left to whoever looked at the flag.
    """
    mine = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is not _notice
    if not mine:
        yield requested
        return
    requested.clear()
    _noticed.clear()
    previous = {number: signal.signal(number, _notice) for number in SIGNALS}
    try:
        yield requested
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        requested.clear()  # it was about this time alone
        for noticed in set(_noticed) - {signal.SIGINT}:
            signal.raise_signal(noticed)
