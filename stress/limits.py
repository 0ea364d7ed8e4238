"""Limits of this process that a run cannot live with, each named with the command that raises it."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from typing import Final

from stress.errors import MachineError

#: The least that a run needs: the JIT compiler recurses, its libraries take 350 MiB, and a worker has pipes.
_STACK_BYTES: Final = 1 << 20
_ADDRESS_SPACE_BYTES: Final = 512 << 20
#: The least that numpy needs: with less its OpenBLAS ends the process, with an exit code that means another thing here.
_NUMPY_BYTES: Final = 256 << 20
_OPEN_FILES: Final = 24

#: How the dynamic linker, malloc and thread libraries say that there is no memory.
_NO_MEMORY: Final = ("failed to map segment", "cannot allocate memory", "can't start new thread")


def check_numpy(needed: int = _NUMPY_BYTES) -> None:
    """Raise MachineError if ``needed`` bytes of memory are too many here; the default is what numpy needs."""
    if (limit := _limit(resource.RLIMIT_AS)) < needed:
        raise _too_low("virtual memory", limit, needed, "ulimit -v unlimited")


def check_run() -> None:
    """Raise MachineError if a run may have too little memory, stack or files, or there is no /proc.

    Such a run would end in a crash somewhere in a library, not in an error.
    """
    check_numpy(_ADDRESS_SPACE_BYTES)
    if (limit := _limit(resource.RLIMIT_STACK)) < _STACK_BYTES:
        raise _too_low("the stack", limit, _STACK_BYTES, "ulimit -s 8192")
    if _limit(resource.RLIMIT_NOFILE) < _OPEN_FILES:
        raise MachineError(
            f"only {_limit(resource.RLIMIT_NOFILE)} files may be open, a run needs at least {_OPEN_FILES}",
            "raise the limit: ulimit -n 1024",
        )
    if not os.path.exists("/proc/self/stat"):
        raise _no_proc()


def starvation(error: BaseException) -> MachineError | None:
    """The limit of the machine that ``error`` comes from; None if it comes from something else."""
    for each in _chain(error):
        code = each.errno if isinstance(each, OSError) else None
        if code in (errno.EMFILE, errno.ENFILE) or os.strerror(errno.EMFILE) in str(each):
            number = _limit(resource.RLIMIT_NOFILE)
            return MachineError(f"too many open files: at most {number} may be", "raise the limit: ulimit -n 1024")
        if isinstance(each, MemoryError) or code == errno.ENOMEM or any(text in str(each) for text in _NO_MEMORY):
            return _no_memory()
        if isinstance(each, OSError) and str(each.filename).startswith("/proc/"):
            return _no_proc()
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error, and the errors that it came from."""
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__ or found.__context__


def _limit(which: int) -> float:
    """The limit in force; infinity if there is none."""
    now, _ = resource.getrlimit(which)
    return float("inf") if now == resource.RLIM_INFINITY else now


def _too_low(what: str, limit: float, needed: int, command: str) -> MachineError:
    limits = f"{what} is limited to {limit / 1024:.0f} KiB, this needs at least {needed // 1024}"
    return MachineError(limits, f"raise the limit: {command}")


def _no_memory() -> MachineError:
    address_space = _limit(resource.RLIMIT_AS)
    if address_space < float("inf"):
        what = f"out of memory: virtual memory is limited to {address_space / 1024:.0f} KiB"
        return MachineError(what, "raise the limit: ulimit -v unlimited")
    return MachineError("out of memory, or no more threads are allowed", "free some, or raise ulimit -u")


def _no_proc() -> MachineError:
    return MachineError("there is no /proc", "mount it: mount -t proc proc /proc")
