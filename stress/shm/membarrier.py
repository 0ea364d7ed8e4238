"""membarrier(2) for Python: whether it is there, and asking for it."""

from __future__ import annotations

import ctypes
import platform

#: Number of membarrier(2) on this machine, or -1 where we do not know it.
SYS_MEMBARRIER = {"x86_64": 324, "aarch64": 283, "riscv64": 283, "ppc64le": 365, "s390x": 356}.get(
    platform.machine(), -1
)
# <linux/membarrier.h>
_QUERY = 0
GLOBAL_EXPEDITED = 1 << 1
_REGISTER_GLOBAL_EXPEDITED = 1 << 2

_libc = ctypes.CDLL(None, use_errno=True)


def _membarrier(command: int) -> int:
    if SYS_MEMBARRIER < 0:
        return -1
    return int(_libc.syscall(SYS_MEMBARRIER, command, 0, 0))


def membarrier_available() -> bool:
    """Whether the kernel has MEMBARRIER_CMD_GLOBAL_EXPEDITED (Linux 4.16 and later)."""
    wanted = GLOBAL_EXPEDITED | _REGISTER_GLOBAL_EXPEDITED
    supported = _membarrier(_QUERY)
    return supported >= 0 and supported & wanted == wanted


def membarrier_register() -> bool:
    """Ask that global expedited membarriers reach this process; False where the kernel refuses."""
    return _membarrier(_REGISTER_GLOBAL_EXPEDITED) == 0


def expedited_membarrier() -> int:
    """As `stress.shm.syscalls.membarrier`, with the cost of a call through ctypes."""
    return _membarrier(GLOBAL_EXPEDITED)
