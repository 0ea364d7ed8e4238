"""Life cycle of the segment: created and removed by the supervisor, attached by the others.

Only the creator unlinks, and it holds a lease on its segment. After SIGKILL of everything a segment may stay, without
a lease; its name tells its creator.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import secrets
import signal
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import resource_tracker, shared_memory
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from stress.errors import Interrupted, MachineError
from stress.shm.layout import (
    Geo,
    Machine,
    carve,
    initialise,
    segment_bytes,
)
from stress.shm.lease import Lease
from stress.shm.mode import JIT_DISABLED
from stress.shm.stale import PREFIX, SHM
from stress.shm.words import MAGIC
from stress.units import format_bytes

_STRIDE = 256 << 20  # bytes reserved between two looks at whether to stop


class _FileLock:
    """Excludes other processes with a lock on a file, which the kernel drops when its holder dies."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        os.close(self._file)

    def __enter__(self) -> Self:
        fcntl.flock(self._file, fcntl.LOCK_EX)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        fcntl.flock(self._file, fcntl.LOCK_UN)


class _Memory(shared_memory.SharedMemory):
    """Shared memory whose mapping may outlive the object, for as long as a view needs it; no open file keeps it."""

    def __init__(self, name: str, size: int) -> None:
        _start_tracker()
        super().__init__(name, create=True, size=size)
        # SharedMemory would lose the file where a view outlives it, and with that all of the memory.
        os.close(self._fd)  # type: ignore[has-type]
        self._fd = -1

    def remove(self) -> bool:
        """Unlink the file, unless somebody was faster; False if the tracker was killed meanwhile."""
        tracked = _has_tracker()
        with suppress(FileNotFoundError):
            if tracked:
                self.unlink()
            else:
                (SHM / self.name).unlink()
        return tracked

    def __del__(self) -> None:
        with suppress(BufferError):  # a view is still alive: the mapping goes when it does
            self.close()


def _start_tracker() -> None:
    """Start Python's resource tracker, which removes the segment should this process be killed; it ignores SIGHUP.

    Of itself it ignores SIGINT and SIGTERM alone, and would go before us when a terminal closes.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        resource_tracker.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _has_tracker() -> bool:
    """Whether the tracker lives. Told of a removal, a new one would print a warning and a traceback."""
    tracker: Any = resource_tracker._resource_tracker
    return tracker._fd is not None and bool(tracker._check_alive())


class _Mapping:
    """Another process's shared memory. `SharedMemory` would have the resource tracker remove it with this process."""

    def __init__(self, name: str) -> None:
        self.name = name
        with (SHM / name).open("r+b") as file:
            self.buf = mmap.mmap(file.fileno(), 0)
        self.size = len(self.buf)


def _magic(memory: _Memory | _Mapping) -> npt.NDArray[np.int64]:
    """The segment's first word."""
    buffer: Any = memory.buf
    return np.frombuffer(buffer, dtype=np.int64, count=1)


def _check(stop: Callable[[], bool]) -> None:
    if stop():
        raise Interrupted("interrupted while setting up", "nothing was measured")


class Segment:
    """One shared segment and its views. Use ``create`` or ``attach``."""

    def __init__(self, memory: _Memory | _Mapping, geo: Geo, orders: int, lease: Lease | None = None) -> None:
        self._memory = memory
        self._lease = lease  # the creator's
        self.name = memory.name
        self.size = memory.size
        self.machine: Machine = carve(memory.buf, geo, orders)
        if JIT_DISABLED:
            from stress.shm.atomics import set_rmw_lock  # here, because it loads numba

            set_rmw_lock(_FileLock(SHM / memory.name))

    @classmethod
    def create(cls, geo: Geo, orders: int, stop: Callable[[], bool] = lambda: False) -> Segment:
        """Reserve and initialise a segment; MachineError if it does not fit into /dev/shm.

        A large one takes seconds: Interrupted as soon as ``stop()`` says so.
        """
        size = segment_bytes(geo, orders)
        free = _free_bytes()
        if size > free:
            raise _too_large(size, free)
        name = f"{PREFIX}{os.getpid()}-{secrets.token_hex(4)}"
        try:
            memory = _Memory(name, size)
        except OSError as error:
            raise MachineError(
                f"cannot create shared memory: {error.strerror}", "check that /dev/shm is mounted and writable"
            ) from error
        complete = False
        try:
            lease = Lease(SHM / name)
            # Without a reservation a store past a full /dev/shm is a SIGBUS.
            with (SHM / name).open("r+b") as file:
                for start in range(0, size, _STRIDE):
                    _check(stop)
                    os.posix_fallocate(file.fileno(), start, min(_STRIDE, size - start))
            segment = cls(memory, geo, orders, lease)
            for _ in initialise(segment.machine):
                _check(stop)
            complete = True
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise _too_large(size, _free_bytes()) from error
            raise MachineError(
                f"cannot reserve {format_bytes(size)} in /dev/shm: {error.strerror}",
                "use fewer or smaller blocks",
            ) from error
        finally:
            if not complete:  # whatever came: an interrupt, a MemoryError
                memory.remove()
        _magic(memory)[0] = MAGIC
        return segment

    @classmethod
    def attach(cls, name: str, geo: Geo, orders: int) -> Segment:
        """Map the segment of another process of this run."""
        memory = _Mapping(name)
        if _magic(memory)[0] != MAGIC:
            raise MachineError(f"{name} is not a segment of this version", "run `stress clean`")
        return cls(memory, geo, orders)

    def remove(self) -> bool:
        """Unlink the segment (creator only). The views stay usable until they are garbage.

        False if Python's resource tracker, which would do so after a crash, had been killed.
        """
        tracked = True
        if self._lease is not None and isinstance(self._memory, _Memory):
            tracked = self._memory.remove()
            self._lease.release()
            self._lease = None
        return tracked


def _free_bytes() -> int:
    try:
        status = os.statvfs(SHM)
    except OSError as error:
        raise MachineError("there is no /dev/shm", "run on Linux with a tmpfs on /dev/shm") from error
    return status.f_bavail * status.f_frsize


def _too_large(size: int, free: int) -> MachineError:
    return MachineError(
        f"the run needs {format_bytes(size)} of shared memory, /dev/shm has {format_bytes(free)} free",
        "use fewer blocks, or enlarge it: mount -o remount,size=... /dev/shm",
    )
