"""Compilation for the cache alone: a process that calls nothing leaves out a third of the work."""

from __future__ import annotations

import gc
from typing import Any

from numba.core import codegen
from numba.core.cpu import CPUContext


def fill_only() -> None:
    """Leave out, from here on, what Numba makes of functions that only compiled code calls, for callers from Python.

    Such a function needs no machine code, because its callers take over its LLVM code, and none that takes Python's
    arguments apart. The machine code of an entry point is the same as ever, and made when it is kept. What the compiler
    drops is not collected: the process ends soon.
    """
    gc.disable()
    library: Any = codegen.JITCodeLibrary
    library._finalize_specific = lambda self: None
    library.get_pointer_to_function = lambda self, name: 0
    library._get_compiled_object = _machine_code
    owner: Any = codegen.JITCPUCodegen
    owner.set_env = lambda self, name, environment: None
    context: Any = CPUContext
    wrapper = context.create_cpython_wrapper

    def wrap_entry_point(self: Any, library: Any, *arguments: Any, **options: Any) -> None:
        if type(library) is not codegen.JITCodeLibrary:  # it is an entry point's (`stress.shm.whole`)
            wrapper(self, library, *arguments, **options)

    context.create_cpython_wrapper = wrap_entry_point


def _machine_code(library: Any) -> bytes:
    """A library's machine code: LLVM makes it for the module that has the name which is asked for."""
    name = next(iter(library.get_defined_functions())).name
    library.codegen._engine.get_function_address(name)
    code: bytes = library._compiled_object
    return code
