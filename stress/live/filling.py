"""What a process leaves out that compiles for the cache and calls nothing: a fifth of the work."""

from __future__ import annotations

from typing import Any

from numba.core import codegen


def fill_only() -> None:
    """Compile so from here on.

    Numba makes machine code of each function, for whoever calls it. Of one that only compiled code calls nobody needs
    it: its callers take over its LLVM code. An entry point's is the same as ever, and made when it is kept.
    """
    library: Any = codegen.JITCodeLibrary
    library._finalize_specific = lambda self: None
    library.get_pointer_to_function = lambda self, name: 0
    library._get_compiled_object = _machine_code
    owner: Any = codegen.JITCPUCodegen
    owner.set_env = lambda self, name, environment: None


def _machine_code(library: Any) -> bytes:
    """A library's machine code: LLVM makes that of the module in which it finds the name that is asked for."""
    name = next(iter(library.get_defined_functions())).name
    library.codegen._engine.get_function_address(name)
    code: bytes = library._compiled_object
    return code
