"""The server that forks workers, with the kernels loaded: `multiprocessing`'s forkserver, but one of our own.

Only the supervisor acts on Ctrl-C and the loss of the terminal, so the server blocks these signals, and its workers
inherit that. A program that runs us and has a forkserver for itself must not: its children could not be terminated.
Nor do workers import the caller's main module, as `multiprocessing` would: a notebook has none, and a script without a
guard would start all over again.
"""

from __future__ import annotations

import io
import os
import signal
from contextlib import suppress
from multiprocessing import forkserver, popen_forkserver, resource_tracker, spawn, util
from multiprocessing.context import reduction, set_spawning_popen  # type: ignore[attr-defined]
from multiprocessing.process import BaseProcess
from typing import Any

from stress.interrupt import SIGNALS
from stress.shm import cache

_server = forkserver.ForkServer()
_server.set_forkserver_preload(["stress.live.preload"])


def _start_anew() -> None:
    """In a process forked from the caller's program: the server is its parent's, who alone may wait for it."""
    inherited = _server._forkserver_alive_fd  # type: ignore[attr-defined]
    if inherited is not None:
        os.close(inherited)  # else the server would outlive the one it belongs to
    forgotten: Any = _server
    forgotten.__init__()
    forgotten.set_forkserver_preload(["stress.live.preload"])


os.register_at_fork(after_in_child=_start_anew)


def ensure_running() -> None:
    """Start the server unless it runs, without waiting until it is ready."""
    resource_tracker.ensure_running()  # first: once it has started it unblocks signals for whoever started it
    # The server inherits the mask before its first instruction.
    unmasked = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        _server.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, unmasked)


def start_early() -> None:
    """Let the server load the kernels while the supervisor still imports; not if they must be compiled first."""
    if cache.is_complete():
        ensure_running()


def kill() -> None:
    """End the server at once, whatever it is doing; the next `ensure_running` starts another."""
    pid = _server._forkserver_pid  # type: ignore[attr-defined]
    if pid is not None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def end_with_supervisor() -> None:
    """In a worker: let the server go when the supervisor does, not when the last worker does.

    Its death then kills every worker, also one that is stopped and cannot notice anything.
    """
    mine: Any = forkserver._forkserver
    os.close(mine._forkserver_alive_fd)
    mine._forkserver_alive_fd = None


class _Popen(popen_forkserver.Popen):
    def _launch(self, process: BaseProcess) -> None:
        # As in CPython, but for the server and the main module.
        preparation = spawn.get_preparation_data(process.name)
        for key in ("init_main_from_name", "init_main_from_path"):
            preparation.pop(key, None)
        message = io.BytesIO()
        set_spawning_popen(self)
        try:
            reduction.dump(preparation, message)
            reduction.dump(process, message)
        finally:
            set_spawning_popen(None)
        self.sentinel, writer = _server.connect_to_new_process(self._fds)  # type: ignore[attr-defined]
        # The worker ends when this duplicate is closed: its supervisor has gone.
        ends = (os.dup(writer), self.sentinel)
        self.finalizer = util.Finalize(self, util.close_fds, ends)  # type: ignore[attr-defined]
        with open(writer, "wb") as file:
            file.write(message.getbuffer())
        self.pid = forkserver.read_signed(self.sentinel)


class Process(BaseProcess):
    """A process forked from the server."""

    _start_method = "forkserver"

    @staticmethod
    def _Popen(process: Any) -> _Popen:  # noqa: N802 - the name that BaseProcess calls
        return _Popen(process)
