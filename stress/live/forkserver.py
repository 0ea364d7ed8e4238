"""The forkserver's own program: it loads the kernels once, and forks each worker with them ready.

Requests come over the socket that is its standard input. Each is a pickled function with its arguments, and carries the
write end of a pipe, which tells the supervisor the worker's pid, or minus the errno of a fork that failed, and in the
end the worker's exit code.

Neither the server nor a worker outlives the supervisor: the kernel kills the server when its parent goes, and then the
workers, also stopped ones, which notice nothing. A worker inherits no pipe whose end any process waits for.
"""

from __future__ import annotations

import ctypes
import errno
import gc
import os
import pickle
import select
import signal
import socket
import sys
import traceback
from contextlib import suppress
from struct import Struct
from typing import NoReturn

#: A pid, minus an errno, or an exit code, as they are in the pipe.
NUMBER = Struct("q")
#: A request is no longer than this.
REQUEST_BYTES = 1 << 17

_PR_SET_PDEATHSIG = 1


def _die_with(parent: int) -> None:
    """Have the kernel kill this process when ``parent``, which forked it, is gone; at once if it is already."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def serve(supervisor: int) -> NoReturn:
    """Fork workers until the supervisor, process ``supervisor``, wants no more."""
    _die_with(supervisor)
    os.setpgid(0, os.getpgid(supervisor))  # a signal to the command's group is meant for us, too
    requests = socket.socket(fileno=0)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))  # files that the caller's program leaves open for its children
    gc.disable()  # nothing of what is loaded is garbage
    import stress.live.worker  # noqa: F401 - else each worker would import it for itself
    from stress.live.warm import compile_all

    compile_all()
    gc.freeze()
    gc.enable()
    awake, wake = os.pipe()
    for end in (awake, wake):
        os.set_blocking(end, False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    workers: dict[int, int] = {}  # pid: pipe to the supervisor
    while True:
        ready, _, _ = select.select([requests.fileno(), awake], [], [])
        if awake in ready:
            os.read(awake, 4096)
            _bury(workers)
        if requests.fileno() in ready:
            request, pipes, _, _ = socket.recv_fds(requests, REQUEST_BYTES, 1)
            if not request:
                os._exit(0)  # the supervisor has closed its end
            if not pipes:
                os._exit(errno.EMFILE)
            _fork(request, pipes[0], workers, (awake, wake))


def _tell(pipe: int, number: int) -> None:
    with suppress(BrokenPipeError):  # the supervisor has closed its end
        os.write(pipe, NUMBER.pack(number))


def _bury(workers: dict[int, int]) -> None:
    """Tell the supervisor how workers ended."""
    for pid in list(workers):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            pipe = workers.pop(pid)
            _tell(pipe, os.waitstatus_to_exitcode(status))
            os.close(pipe)


def _fork(request: bytes, pipe: int, workers: dict[int, int], own: tuple[int, int]) -> None:
    server = os.getpid()
    try:
        pid = os.fork()
    except OSError as error:
        _tell(pipe, -(error.errno or errno.EAGAIN))
        os.close(pipe)
        return
    if pid:
        workers[pid] = pipe
        _tell(pipe, pid)
        return
    try:
        _die_with(server)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for inherited in (*own, pipe, *workers.values()):
            os.close(inherited)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        function, arguments = pickle.loads(request)
        function(*arguments)
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(1)
