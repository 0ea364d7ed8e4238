"""The turn to measure on this host: a lock on a file, which the kernel drops with the process that holds it.

The file lies in a directory of the user's own. Every user may write to the temporary directory itself, and a pipe or a
link that another user puts there under the file's name must neither block a measurement nor be opened.
"""

from __future__ import annotations

import fcntl
import os
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from stress.errors import Interrupted, MachineError

_POLL_S: Final = 0.05
_LOCK: Final = "measuring.lock"


@contextmanager
def turn(stop: Callable[[], bool]) -> Iterator[None]:
    """Wait until nothing else of this user is measured on this host.

    Raises Interrupted once ``stop()``, MachineError if there can be no lock.
    """
    path = _directory() / _LOCK
    lock = _open(path)
    try:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if stop():
                    raise Interrupted("interrupted while another run was measured", "nothing was measured") from None
                time.sleep(_POLL_S)
            except OSError as error:
                raise MachineError(
                    f"cannot lock {path}: {error.strerror}", "set TMPDIR to a local directory"
                ) from error
        yield
    finally:
        os.close(lock)


def _directory() -> Path:
    """The user's own directory, made in the temporary directory or, if another user has it there, the runtime one."""
    own = f"stress-{os.geteuid()}"
    # The temporary directory comes first: not every session of a user knows the runtime directory.
    candidates = [Path(base) / own for base in (_temporary(), os.environ.get("XDG_RUNTIME_DIR")) if base]
    if found := next(filter(_is_private, candidates), None):
        return found
    where = " and ".join(map(str, candidates)) or "there is no temporary directory"
    raise MachineError(f"no directory is this user's alone: {where}", "have it removed, or set TMPDIR")


def _temporary() -> str | None:
    try:
        return tempfile.gettempdir()
    except FileNotFoundError:
        return None


def _is_private(directory: Path) -> bool:
    """Whether no other user can put anything into the directory, which is created if it is missing."""
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
        status = directory.lstat()
    except OSError:
        return False
    ours = status.st_uid == os.geteuid() and not status.st_mode & 0o077
    return stat.S_ISDIR(status.st_mode) and ours


def _open(path: Path) -> int:
    """Open the lock's file, not through a link, and without waiting for the writer of a pipe."""
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    except OSError as error:
        raise MachineError(f"cannot open {path}: {error.strerror}", "remove it") from error
    if not stat.S_ISREG(os.fstat(lock).st_mode):
        os.close(lock)
        raise MachineError(f"cannot lock {path}: it is no regular file", "remove it")
    return lock
