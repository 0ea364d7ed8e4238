"""Compilation for the cache alone: a process that calls nothing leaves out a fifth of the work."""

from __future__ import annotations

from typing import Any

from numba.core import codegen


def fill_only() -> None:
    """Leave out, from here on, the machine code of functions that only compiled code calls.

    Numba makes machine code of each function. A function that only compiled code calls needs none: its callers take
    over its LLVM code. The machine code of an entry point is the same as ever, and made when it is kept.
    """
    library: Any = codegen.JITCodeLibrary
    library._finalize_specific = lambda self: None
    library.get_pointer_to_function = lambda self, name: 0
    library._get_compiled_object = _machine_code
    owner: Any = codegen.JITCPUCodegen
    owner.set_env = lambda self, name, environment: None


def _machine_code(library: Any) -> bytes:
    """A library's machine code: LLVM makes it for the module that has the name which is asked for."""
    name = next(iter(library.get_defined_functions())).name
    library.codegen._engine.get_function_address(name)
    code: bytes = library._compiled_object
    return code
