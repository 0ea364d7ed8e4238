"""The forkserver as the supervisor sees it. The one of `multiprocessing` would not do, for three reasons.

Only the supervisor acts on Ctrl-C and the loss of the terminal, so the server blocks these signals, and its workers
inherit that. A calling program's own forkserver must not block them: its children could not be terminated. Workers do
not import the caller's main module: a notebook has none, and a script without a guard would start all over again. And
`multiprocessing` hands every worker the pipe whose end tells the server that it is no longer needed: a stopped worker
would keep everything alive after the supervisor's death.
"""

from __future__ import annotations

import os
import pickle
import signal
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import spawn
from multiprocessing.connection import wait
from typing import Any

from stress.interrupt import SIGNALS
from stress.live.forkserver import NUMBER
from stress.shm import cache


class ServerDied(Exception):  # noqa: N818 - an event
    """The server ended while it was needed; ``exit_code`` as of `Process.exitcode`."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code


class _Server:
    """One server, started when it is needed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: socket.socket | None = None
        self.pid: int | None = None
        self.exit_code = 0  # of the last one that ended

    def forget(self) -> None:
        """Forget the server in a process forked from the caller's program: only the parent may wait for it."""
        if self._requests is not None:
            self._requests.close()
        self.__init__()  # type: ignore[misc]

    def ensure_running(self) -> None:
        """Start the server unless it runs, without waiting until it is ready."""
        with self._lock:
            if self._runs():
                return
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                if threading.current_thread() is threading.main_thread():
                    self.pid = _spawn(theirs)
                else:
                    self.pid = _spawn_from_lasting_thread(theirs)
            self._requests = ours

    def request(self, message: bytes, pipe: int) -> None:
        """Hand the server a request. Raises ServerDied if there is none any more."""
        requests = self._requests
        try:
            if requests is None:
                raise BrokenPipeError
            socket.send_fds(requests, [message], [pipe])
        except (BrokenPipeError, ConnectionResetError):
            raise ServerDied(self.wait()) from None

    def wait(self) -> int:
        """Wait for the end of a server that is about to end, or has ended; returns its exit code."""
        with self._lock:
            if self._requests is not None:
                self._runs(0)
            return self.exit_code

    def _runs(self, options: int = os.WNOHANG) -> bool:
        if self.pid is None:
            return False
        try:
            ended, status = os.waitpid(self.pid, options)
        except ChildProcessError:  # the caller's program waits for every child it has
            ended, status = self.pid, 0
        if not ended:
            return True
        self.exit_code = os.waitstatus_to_exitcode(status)
        self.pid = None
        if self._requests is not None:
            self._requests.close()
        self._requests = None
        return False

    def kill(self) -> None:
        """End the server and all workers at once, whatever they are doing; the next `ensure_running` starts another."""
        with self._lock:
            if self._runs() and self.pid is not None:
                os.kill(self.pid, signal.SIGKILL)
                self._runs(0)


def _spawn(requests: socket.socket) -> int:
    """Start a server that reads ``requests``; returns its pid.

    Until the server has asked the kernel to be killed with this process, it is in a process group of its own: if this
    process dies while the server is stopped, the group is orphaned, and the kernel continues the server (setpgid(2)).
    """
    path = list(map(str, sys.path))
    code = f"import sys; sys.path[:] = {path!r}; from stress.live.forkserver import serve; serve({os.getpid()})"
    executable = spawn.get_executable()
    return os.posix_spawn(
        executable,
        [executable, "-c", code],
        os.environ,
        file_actions=[(os.POSIX_SPAWN_DUP2, requests.fileno(), 0)],
        setpgroup=0,
        setsigmask=SIGNALS,  # before the server's first instruction
        setsigdef=[signal.SIGCHLD],
    )


def _spawn_from_lasting_thread(requests: socket.socket) -> int:
    """Start a server as `_spawn` does, from a thread that lives as long as the server.

    The kernel takes the thread that forked for the parent: when a worker thread of the caller's ended, the server would
    end with it, in the middle of another thread's run. The main thread ends with the process.
    """
    pids: list[int | OSError] = []
    started = threading.Event()

    def keep() -> None:
        try:
            pids.append(_spawn(requests))
        except OSError as error:
            pids.append(error)
        started.set()
        if isinstance(pids[0], int):
            with suppress(ChildProcessError):
                os.waitid(os.P_PID, pids[0], os.WEXITED | os.WNOWAIT)

    threading.Thread(target=keep, name="stress forkserver", daemon=True).start()
    started.wait()
    if isinstance(pids[0], OSError):
        raise pids[0]
    return pids[0]


_server = _Server()
os.register_at_fork(after_in_child=_server.forget)

ensure_running = _server.ensure_running
kill = _server.kill
last_exit_code = _server.wait


def pid() -> int | None:
    """The pid of the server that runs, or ran when this process last looked; None without one."""
    return _server.pid


def start_early() -> None:
    """Let the server load the kernels while the supervisor still imports; not if they must be compiled first."""
    if cache.is_complete():
        ensure_running()


class Process:
    """A process that the server forked to call a function with some arguments.

    Raises ServerDied if that ends first, and OSError if the machine allows no more processes or open files.
    """

    def __init__(self, name: str, function: Callable[..., None], *arguments: Any) -> None:
        self.name = name
        self.exitcode: int | None = None  # minus the signal that killed it; None while it runs, and if nobody knows
        self._ended = False
        self.sentinel, pipe = os.pipe()  # readable once it has ended
        try:
            try:
                _server.request(pickle.dumps((function, arguments)), pipe)
            finally:
                os.close(pipe)
            told = self._read()
            if told is None:
                raise ServerDied(_server.wait())
            if told < 0:
                raise OSError(-told, os.strerror(-told))
        except BaseException:
            self.close()
            raise
        self.pid = told

    def _read(self) -> int | None:
        """The next number from the server; None if there is none to come: the server has gone."""
        found = os.read(self.sentinel, NUMBER.size)  # written at once
        return int(NUMBER.unpack(found)[0]) if found else None

    def is_alive(self) -> bool:
        """Whether the process runs; if the server has gone, the process has, too."""
        return self.join(0)

    def join(self, timeout_s: float) -> bool:
        """Wait for the end of the process; True if it still runs after ``timeout_s``."""
        if not self._ended and wait([self.sentinel], timeout_s):
            self._ended = True
            self.exitcode = self._read()
        return not self._ended

    def kill(self) -> None:
        """End the process at once, whatever it is doing."""
        if self.is_alive():
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """Close the pipe from the process; nothing can be learnt about it any more."""
        os.close(self.sentinel)
        self._ended = True
