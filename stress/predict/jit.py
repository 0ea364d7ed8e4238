"""How the event loop is compiled: like kernels, and kept beside them, but in a directory of its own.

It compiles in seconds, they in a minute: a change here must not throw them away.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from numba import config, njit

from stress.shm.cache import cache_directory
from stress.shm.jit import kernel
from stress.shm.mode import JIT_DISABLED
from stress.shm.whole import WholeProgramCompiler

__all__ = ["entry", "kernel"]


def _directory() -> Path:
    """Where this version is kept: Numba sees no change in a function that a kept one calls from another file."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return cache_directory() / f"predict-{digest.hexdigest()[:16]}"


def is_compiled() -> bool:
    """Whether nothing has to be compiled, because it is kept or because plain Python runs."""
    return JIT_DISABLED or _directory().is_dir()


_OPTIONS: dict[str, Any] = {"nogil": True, "boundscheck": False, "_nrt": False, "no_cfunc_wrapper": True}


def entry(function: Any) -> Any:
    """A compiled function that Python calls, kept with all that it calls."""
    kernels, config.CACHE_DIR = config.CACHE_DIR, str(_directory())  # type: ignore[attr-defined]
    try:
        made = njit(cache=True, pipeline_class=WholeProgramCompiler, **_OPTIONS)(function)
    finally:
        config.CACHE_DIR = kernels  # type: ignore[attr-defined]
    if not JIT_DISABLED:
        made._cache.load_overload = made._cache._load_overload  # what is kept is whole (stress.shm.jit)
    return made
