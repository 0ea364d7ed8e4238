"""Ctrl-C, SIGTERM and a lost terminal set a flag that all work looks at, so that nothing is torn down half-way.

A signal that was ignored when the process started stays ignored: ``nohup`` asks for that with SIGHUP, and a shell
without job control with SIGINT for its background processes.
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
    """Catch the signals that are not ignored; returns the handler that each had before."""
    wanted = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    return {number: signal.signal(number, _notice) for number in wanted}


def install() -> None:
    """Catch the signals for the rest of the process's life; the command does so before it imports anything else."""
    _catch()


def ignore() -> None:
    """Ignore the signals once the work is done: a late one must not change the exit code while the interpreter ends."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def caught() -> Iterator[threading.Event]:
    """The flag, while the signals are caught: here, unless they are already, or this is not the main thread.

    The caller's program loses no signal: SIGTERM and SIGHUP are raised again at the end, for its own handlers; SIGINT
    is answered by the code that looked at the flag.
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
        requested.clear()  # the flag is about this block alone
        for noticed in set(_noticed) - {signal.SIGINT}:
            signal.raise_signal(noticed)
