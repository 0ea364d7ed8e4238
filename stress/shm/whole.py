"""An entry point and all that it calls, optimised as one program.

Numba links what was compiled before as functions that another module may replace, of which the optimiser may assume
nothing. Each call made room for a result and for an exception, cleared both, and asked afterwards whether there was an
exception, in kernels that raise none. Made private to the entry point, they are known to raise nothing.

Private, not internal: LLVM's linker finds internal functions by name, too. What another program called by that name
would then be this one's, whose arguments the optimiser has changed.
"""

from __future__ import annotations

from typing import Any

import llvmlite.binding as llvm
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase, DefaultPassBuilder


class _WholeProgram(JITCodeLibrary):
    """The machine code of one entry point."""

    def _optimize_final_module(self) -> None:
        for function in self._final_module.functions:
            if not function.is_declaration and function.linkage == llvm.Linkage.linkonce_odr:
                function.linkage = llvm.Linkage.private
        super()._optimize_final_module()


class WholeProgramCompiler(CompilerBase):
    """Numba's compiler, but for the library that it compiles into."""

    def define_pipelines(self) -> list[Any]:
        """The passes; called once per function, before they run."""
        state = self.state
        state.library = _WholeProgram(state.targetctx.codegen(), state.func_id.func_qualname)
        state.library.enable_object_caching()
        return [DefaultPassBuilder.define_nopython_pipeline(state)]
