"""Threads of which one runs at a time, handed on between two accesses to shared memory.

Compiled code cannot be stopped like that, so this is for the pure-Python twins, which share the source with it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any

import pytest


class Actor:
    """A thread that runs only while it is told to, from one pause to the next."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self._go, self._paused = threading.Semaphore(0), threading.Semaphore(0)
        self._work = work
        self.result: Any = None
        self.error: BaseException | None = None
        self.done = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self._go.acquire()
        try:
            self.result = self._work()
        except BaseException as error:
            self.error = error  # for whoever steps
        finally:
            self.done = True
            self._paused.release()

    @property
    def is_current(self) -> bool:
        """Whether this is asked in the actor's thread."""
        return threading.current_thread() is self._thread

    def pause(self) -> None:
        """Give the baton back, if this is the actor's thread."""
        if self.is_current:
            self._paused.release()
            self._go.acquire()

    def hand_over(self) -> None:
        """Give the baton to the other side: the actor's, or whoever steps it."""
        if self.is_current:
            self.pause()
        else:
            self.step()

    def step(self) -> None:
        """Let it run to its next pause, or to its end; raises what it raised."""
        assert not self.is_current
        if not self.done:
            self._go.release()
            self._paused.acquire()
        if self.error is not None:
            raise self.error


def before_each(
    patch: pytest.MonkeyPatch, modules: Iterable[ModuleType], names: Iterable[str], hook: Callable[[], None]
) -> None:
    """Call ``hook`` before each call of the functions ``names``, as these modules know them."""

    def hooked(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            hook()
            return function(*arguments)

        return call

    for module in modules:
        for name in names:
            if name in vars(module):
                patch.setattr(module, name, hooked(vars(module)[name]))
