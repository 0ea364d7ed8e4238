"""The first compilation of the kernels, in two halves that take as long."""

from __future__ import annotations

import threading

from stress.shm import cache
from stress.shm.compilers import run_compilers


def compile_in_background(interrupted: threading.Event) -> bool:
    """Fill the cache in two processes, which an interrupt can end at any time; False if it did.

    Raises RunBroken if the kernels do not compile.
    """
    halves = [f"from stress.live.warm import {part}; {part}()" for part in ("compile_vcpu_loop", "compile_others")]
    if not run_compilers(halves, interrupted):
        return False
    cache.mark_complete()
    return True
