"""How the event loop is compiled: as kernels are, but kept by `stress.predict.native`, not by Numba."""

from __future__ import annotations

from typing import Any

from numba import njit

from stress.shm.jit import kernel
from stress.shm.whole import WholeProgramCompiler

__all__ = ["entry", "kernel"]


class _KeepingCompiler(WholeProgramCompiler):
    """A compiler that keeps the code of a whole program, as ``library.kept``, before it is linked into this process."""

    def define_pipelines(self) -> list[Any]:
        passes = super().define_pipelines()
        library = self.state.library
        optimize = library._optimize_final_module

        def keep() -> None:
            optimize()
            library.kept = library._final_module.as_bitcode()

        library._optimize_final_module = keep
        return passes


def entry(function: Any) -> Any:
    """The compiled function whose code is kept."""
    options: dict[str, Any] = {"nogil": True, "boundscheck": False, "_nrt": False, "no_cfunc_wrapper": True}
    return njit(pipeline_class=_KeepingCompiler, **options)(function)
