"""From the event loop's source to an object file, by Numba."""

from __future__ import annotations

import os
from pathlib import Path

import llvmlite.binding as llvm
from numba import int64, typeof
from numba.core.compiler_lock import global_compiler_lock

from stress.predict.native import SYMBOL, framed
from stress.predict.play import play
from stress.predict.virtual import empty_world


def object_code() -> bytes:
    """The event loop and all that it calls as an object file that needs nothing of Numba or Python. Takes a minute."""
    play.compile((typeof(empty_world(1, 1, 1)), int64, int64))
    (result,) = play.overloads.values()
    library = result.library
    with global_compiler_lock:
        library._ensure_finalized()  # where all is compiled for the cache alone, nobody has asked for code so far
    module = llvm.parse_bitcode(library.kept)
    for function in module.functions:
        if function.name == result.fndesc.llvm_func_name:
            function.name = SYMBOL
        elif not function.is_declaration:
            function.linkage = llvm.Linkage.internal  # what Python would call goes
    machine = library.codegen._tm
    passes = llvm.create_new_module_pass_manager()
    passes.add_global_dead_code_eliminate_pass()
    passes.run(module, llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options()))
    code: bytes = machine.emit_object(module)
    return code


def keep(path: str) -> None:
    """Compile the event loop into a file, which has either all of it or what it had before."""
    file = Path(path)
    new = file.with_name(f"{file.name}.{os.getpid()}")
    new.write_bytes(framed(object_code()))
    new.replace(file)  # a process that compiles it meanwhile makes the same
