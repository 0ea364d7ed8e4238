"""Clock, yield and membarrier, callable from compiled code without leaving it.

The C functions are called by symbol, so compiled code that uses them can be cached.
"""

from __future__ import annotations

import ctypes
import os
import platform
import time
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from stress.shm.atomics import JIT_DISABLED

#: Number of membarrier(2) on this machine, or -1 where we do not know it.
SYS_MEMBARRIER = {"x86_64": 324, "aarch64": 283, "riscv64": 283, "ppc64le": 365, "s390x": 356}.get(
    platform.machine(), -1
)
# <linux/membarrier.h>
_QUERY = 0
_GLOBAL_EXPEDITED = 1 << 1
_REGISTER_GLOBAL_EXPEDITED = 1 << 2

_libc = ctypes.CDLL(None, use_errno=True)


def _membarrier(command: int) -> int:
    if SYS_MEMBARRIER < 0:
        return -1
    return int(_libc.syscall(SYS_MEMBARRIER, command, 0, 0))


def membarrier_available() -> bool:
    """Whether the kernel has MEMBARRIER_CMD_GLOBAL_EXPEDITED (Linux 4.16 and later)."""
    wanted = _GLOBAL_EXPEDITED | _REGISTER_GLOBAL_EXPEDITED
    supported = _membarrier(_QUERY)
    return supported >= 0 and supported & wanted == wanted


def membarrier_register() -> bool:
    """Ask that global expedited membarriers reach this process; False where the kernel refuses."""
    return _membarrier(_REGISTER_GLOBAL_EXPEDITED) == 0


def expedited_membarrier() -> int:
    """As `membarrier`, for Python: with the cost of a call through ctypes."""
    return _membarrier(_GLOBAL_EXPEDITED)


if JIT_DISABLED:

    def clock_ns() -> int:
        """CLOCK_MONOTONIC in ns."""
        return time.monotonic_ns()

    def sched_yield() -> None:
        """sched_yield(2)."""
        os.sched_yield()

    def membarrier() -> int:
        """membarrier(2), MEMBARRIER_CMD_GLOBAL_EXPEDITED; 0, or -1 where there is none."""
        return _membarrier(_GLOBAL_EXPEDITED)

    def fence() -> None:
        """Sequentially consistent fence."""

else:
    _I32, _I64 = ir.IntType(32), ir.IntType(64)

    @intrinsic
    def clock_ns(typing_context: Any) -> Any:
        """CLOCK_MONOTONIC in ns."""

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            timespec = cgutils.alloca_once(builder, ir.ArrayType(_I64, 2))
            kind = ir.FunctionType(_I32, [_I32, timespec.type])
            function = cgutils.get_or_insert_function(builder.module, kind, "clock_gettime")
            builder.call(function, [ir.Constant(_I32, time.CLOCK_MONOTONIC), timespec])
            seconds = builder.load(cgutils.gep_inbounds(builder, timespec, 0, 0))
            nanoseconds = builder.load(cgutils.gep_inbounds(builder, timespec, 0, 1))
            return builder.add(builder.mul(seconds, ir.Constant(_I64, 1_000_000_000)), nanoseconds)

        return types.int64(), generate

    @intrinsic
    def sched_yield(typing_context: Any) -> Any:
        """sched_yield(2)."""

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(_I32, []), "sched_yield")
            builder.call(function, [])
            return context.get_dummy_value()

        return types.void(), generate

    @intrinsic
    def membarrier(typing_context: Any) -> Any:
        """membarrier(2), MEMBARRIER_CMD_GLOBAL_EXPEDITED; 0, or -1 where there is none."""

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            kind = ir.FunctionType(_I64, [_I64, _I64, _I64, _I64])
            function = cgutils.get_or_insert_function(builder.module, kind, "syscall")
            numbers = (SYS_MEMBARRIER, _GLOBAL_EXPEDITED, 0, 0)
            return builder.call(function, [ir.Constant(_I64, number) for number in numbers])

        return types.int64(), generate

    @intrinsic
    def fence(typing_context: Any) -> Any:
        """Sequentially consistent fence."""

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            builder.fence("seq_cst")
            return context.get_dummy_value()

        return types.void(), generate
