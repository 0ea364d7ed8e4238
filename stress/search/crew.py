"""Processes that judge orders. Kernels are plain Python in these processes, while this one may have them compiled."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import active_children, get_context
from types import TracebackType
from typing import Any, Final, Self

from stress import interrupt
from stress.errors import RunBroken

#: Seconds between two looks for an interrupt.
_PATIENCE_S: Final = 0.2
_PR_SET_PDEATHSIG = 1

#: The name of a function of `stress.search.judging`, and its arguments.
Task = tuple[Any, ...]


def _begin() -> None:
    """Set up a new process: its kernels are plain Python, which is decided when they are imported."""
    os.environ["NUMBA_DISABLE_JIT"] = "1"
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    for number in interrupt.SIGNALS:  # the process that started this one ends it
        signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, interrupt.SIGNALS)


def perform(task: Task) -> Any:
    """Do a task in this process; returns its result."""
    from stress.search import judging

    what, *arguments = task
    return getattr(judging, what)(*arguments)


class Crew:
    """Up to ``jobs`` processes, while entered; none if kernels are plain Python in this one and ``jobs`` is 1."""

    def __init__(self, jobs: int) -> None:
        from stress.shm.mode import JIT_DISABLED

        self._jobs = jobs
        self._alone = JIT_DISABLED and jobs == 1
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Self:
        self._others = set(active_children())
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self._pool is None:
            return
        for process in set(active_children()) - self._others:
            process.terminate()
        self._pool.shutdown(cancel_futures=True)

    def results(self, tasks: Iterable[Task]) -> Iterator[tuple[Task, Any]]:
        """Yield each task with its result, as results come; ends early if the user interrupts.

        Raises `RunBroken` if a process dies.
        """
        tasks = iter(tasks)
        if self._alone:
            for task in tasks:
                if interrupt.requested.is_set():
                    return
                yield task, perform(task)
            return
        if self._pool is None:
            self._pool = ProcessPoolExecutor(self._jobs, get_context("spawn"), _begin)
        pending: dict[Future[Any], Task] = {}
        while True:
            for task in islice(tasks, self._jobs + 1 - len(pending)):
                before = signal.pthread_sigmask(
                    signal.SIG_BLOCK, interrupt.SIGNALS
                )  # the call may start a process: see `_begin`
                pending[self._pool.submit(perform, task)] = task
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
            if not pending:
                return
            done, _ = wait(pending, _PATIENCE_S, FIRST_COMPLETED)
            if interrupt.requested.is_set():
                return
            for each in done:
                try:
                    yield pending.pop(each), each.result()
                except BrokenProcessPool as error:
                    raise RunBroken(
                        "a process that verifies orders died", "free memory, or use fewer --jobs"
                    ) from error
