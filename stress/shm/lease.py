"""A lease on a file: its holder's open file keeps it, and the kernel drops it when the holder is gone.

Unlike a pid, a lease is not mistaken for another's: not after the pid was given to a new process, and not from a
container with pids of its own that shares the file. Open file description locks (fcntl(2), Linux 3.15): flock(2), which
kernels that run as plain Python take on the same file, does not meet them.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from pathlib import Path

# struct flock on 64-bit Linux: l_type, l_whence, l_start, l_len, l_pid. The lock is on the first byte.
_FLOCK = struct.Struct("hhqqi4x")


class Lease:
    """An exclusive lease, held until `release` or the end of the process."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.fcntl(self._file, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 1, 0))
        except OSError as error:
            if error.errno != errno.EINVAL:  # some sandboxes have no such locks, and `is_leased` says so too
                self.release()
                raise

    def release(self) -> None:
        """Give the lease up; a lease that was given up before stays so."""
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            self.release()


def is_leased(file: int) -> bool:
    """Whether somebody holds a lease on this open file. Raises OSError if it is none that can be locked."""
    answer = fcntl.fcntl(file, fcntl.F_OFD_GETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 1, 0))
    return int(_FLOCK.unpack(answer)[0]) != fcntl.F_UNLCK
