"""Ctrl-C, SIGTERM and a lost terminal as a flag that whoever works looks at: nothing is torn down half-way.

A signal that was ignored when the process started stays ignored: ``nohup`` asks for that with SIGHUP, and a shell
without job control with SIGINT for what it runs in the background.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP})

#: Set once the user wants the process to end.
requested = threading.Event()

_noticed: list[int] = []


def _notice(number: int, frame: FrameType | None) -> None:
    _noticed.append(number)
    requested.set()


def _catch() -> dict[int, Any]:
    """Catch the signals that are not ignored; what handled each before."""
    wanted = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    return {number: signal.signal(number, _notice) for number in wanted}


def install() -> None:
    """Catch the signals for the rest of the process's life; the command does so before it imports anything else."""
    _catch()


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
    caught_already = any(signal.getsignal(number) is _notice for number in SIGNALS)
    if caught_already or threading.current_thread() is not threading.main_thread():
        yield requested
        return
    requested.clear()
    _noticed.clear()
    previous = _catch()
    try:
        yield requested
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        requested.clear()  # it was about this time alone
        for noticed in set(_noticed) - {signal.SIGINT}:
            signal.raise_signal(noticed)
