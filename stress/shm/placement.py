"""Where the compiler puts code: what Numba has no option for, said by a function's first statement.

The compiler would inline what hardly ever runs into what always does. A fault's handler then had 37 KiB, in which it
cleared two hundred bytes of stack for paths that it did not take, and jumped around the code of these paths.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from stress.shm.mode import JIT_DISABLED

if JIT_DISABLED:

    def out_of_line() -> None:
        """The function is called, never inlined."""

    def cold() -> None:
        """The function is hardly ever called: it is never inlined, and where it is called is laid out as unlikely."""

    def likely(condition: bool) -> bool:
        """The condition, which nearly always holds: its branch falls through."""
        return condition

    def unlikely(condition: bool) -> bool:
        """The condition, which hardly ever holds: its branch is laid out elsewhere."""
        return condition

else:

    def _marks(*attributes: str) -> Any:
        """An intrinsic without code that gives LLVM's ``attributes`` to the function it stands in."""

        def typed(typing_context: Any) -> Any:
            def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
                for attribute in attributes:
                    builder.function.attributes.add(attribute)
                return context.get_dummy_value()

            return types.void(), generate

        return intrinsic(typed)

    out_of_line = _marks("noinline")
    cold = _marks("noinline", "cold")

    def _expected(value: int) -> Any:
        """An intrinsic that hands a condition on, and tells LLVM what it usually is."""

        def typed(typing_context: Any, condition: Any) -> Any:
            def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
                bit = ir.IntType(1)
                expect = builder.module.declare_intrinsic("llvm.expect", [bit], ir.FunctionType(bit, [bit, bit]))
                return builder.call(expect, [args[0], ir.Constant(bit, value)])

            return types.boolean(types.boolean), generate

        return intrinsic(typed)

    likely, unlikely = _expected(1), _expected(0)
