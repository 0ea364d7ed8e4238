"""Files that the user names, read whole: an endless one is refused, and waiting for one can be interrupted."""

from __future__ import annotations

import errno
import os
import select
from pathlib import Path
from typing import Final

from stress import interrupt
from stress.errors import Interrupted

#: The most bytes read of one file, and more than a sweep writes: /dev/zero or a sparse file would take all memory.
LIMIT: Final = 1 << 30
_TICK_S: Final = 0.1


def read_bytes(path: Path) -> bytes:
    """The content of a file, or of a pipe.

    Raises OSError, also if it has more than `LIMIT` bytes, and Interrupted while it waits for a pipe's writer.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        return read_open(descriptor, path)
    finally:
        os.close(descriptor)


def read_open(descriptor: int, path: Path) -> bytes:
    """As `read_bytes`, from a descriptor that was opened without blocking."""
    size = os.fstat(descriptor).st_size  # 0 of a pipe
    content = bytearray()
    while max(size, len(content)) <= LIMIT:
        if interrupt.requested.is_set():
            raise Interrupted(f"interrupted while {path} was read", "nothing was done")
        if not select.select([descriptor], [], [], _TICK_S)[0]:
            continue
        try:
            more = os.read(descriptor, 1 << 20)
        except BlockingIOError:
            continue
        if not more:
            return bytes(content)
        content += more
    raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
