"""Clock, yield and membarrier, callable from compiled code without leaving it.

The C functions are called by symbol, so compiled code that uses them can be cached.
"""

from __future__ import annotations

import time
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from stress.shm.membarrier import GLOBAL_EXPEDITED, SYS_MEMBARRIER
from stress.shm.mode import JIT_DISABLED
from stress.shm.processor import Twins

if JIT_DISABLED:

    def clock_ns() -> int:
        """CLOCK_MONOTONIC in ns."""
        return Twins.processor.clock_ns()

    def sched_yield() -> None:
        """sched_yield(2)."""
        Twins.processor.sched_yield()

    def membarrier() -> int:
        """membarrier(2), MEMBARRIER_CMD_GLOBAL_EXPEDITED; 0, or -1 where there is none."""
        return Twins.processor.membarrier()

    def fence() -> None:
        """Sequentially consistent fence."""
        Twins.processor.fence()

else:
    _I32, _I64 = ir.IntType(32), ir.IntType(64)

    @intrinsic
    def clock_ns(typing_context: Any) -> Any:
        """CLOCK_MONOTONIC in ns."""

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            with builder.goto_entry_block():  # Numba's own allocation would be cleared, taken or not
                timespec = builder.alloca(ir.ArrayType(_I64, 2))
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
            numbers = (SYS_MEMBARRIER, GLOBAL_EXPEDITED, 0, 0)
            return builder.call(function, [ir.Constant(_I64, number) for number in numbers])

        return types.int64(), generate

    @intrinsic
    def fence(typing_context: Any) -> Any:
        """Sequentially consistent fence."""

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            builder.fence("seq_cst")
            return context.get_dummy_value()

        return types.void(), generate
