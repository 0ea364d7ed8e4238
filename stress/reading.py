"""Files that the user names, read whole: an endless one has an end, and waiting for one can be interrupted."""

from __future__ import annotations

import errno
import os
import select
import stat
from pathlib import Path
from typing import Final

from stress import interrupt
from stress.errors import Interrupted

#: The most that is read of what is no regular file: /dev/zero would take all memory.
LIMIT: Final = 256 << 20
_TICK_S: Final = 0.1


def read_bytes(path: Path) -> bytes:
    """The content of a file, or of a pipe. Raises OSError, and Interrupted while it waits for a pipe's writer."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with open(descriptor, "rb", buffering=0) as file:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return file.read()
        content = bytearray()
        while len(content) <= LIMIT:
            if interrupt.requested.is_set():
                raise Interrupted(f"interrupted while {path} was read", "nothing was done")
            if not select.select([descriptor], [], [], _TICK_S)[0]:
                continue
            more = file.read(1 << 20)
            if more is None:
                continue
            if not more:
                return bytes(content)
            content += more
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
