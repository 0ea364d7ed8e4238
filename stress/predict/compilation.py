"""From the event loop's source to an object file, by Numba."""

from __future__ import annotations

import llvmlite.binding as llvm
from numba import int64, typeof

from stress.predict.native import SYMBOL
from stress.predict.play import play
from stress.predict.virtual import empty_world


def object_code() -> bytes:
    """The event loop and all that it calls as an object file that needs nothing of Numba or Python. Takes a minute."""
    play.compile((typeof(empty_world(1, 1, 1)), int64, int64))
    (result,) = play.overloads.values()
    library = result.library
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
