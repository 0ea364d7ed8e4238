"""Where the compiler puts code: what Numba has no option for, said by a function's first statement.

The compiler would inline what hardly ever runs into what always does. A fault's handler then had 37 KiB, in which it
cleared two hundred bytes of stack for paths that it did not take, and jumped around the code of these paths.
"""

from __future__ import annotations

from typing import Any

from numba import types
from numba.extending import intrinsic

from stress.shm.mode import JIT_DISABLED

if JIT_DISABLED:

    def out_of_line() -> None:
        """The function is called, never inlined."""

    def cold() -> None:
        """The function is hardly ever called: it is never inlined, and where it is called is laid out as unlikely."""

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
