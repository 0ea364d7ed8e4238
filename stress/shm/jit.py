"""How functions are compiled here.

Compiled functions take the machine as one pointer (``stress.shm.machine_type``). They never allocate, so Numba's
reference counting is off (``_nrt``): with it every use of an array would count it up and down atomically, which made
a TLB walk eight times slower. They run without the GIL, so that a worker's watch over its supervisor never waits.
"""

from __future__ import annotations

from typing import Any

from numba import config, njit, types

from stress.shm.cache import cache_directory
from stress.shm.mode import JIT_DISABLED
from stress.shm.whole import WholeProgramCompiler

if not JIT_DISABLED:
    import stress.shm.machine_type  # noqa: F401 - registers what a Machine is in compiled code

# Numba does not see a change in a function that a cached one calls from another file, so the cache is keyed by a
# hash of all sources that get compiled.
config.CACHE_DIR = str(cache_directory())  # type: ignore[attr-defined]

_OPTIONS: dict[str, Any] = {"_nrt": False, "boundscheck": False, "nogil": True, "no_cfunc_wrapper": True}


def _compiled(function: Any, **options: Any) -> Any:
    """A function compiled once for all values of its arguments.

    Numba would compile it anew for every constant that a caller passes, which doubled the time to compile everything
    and made nothing faster: what is inlined knows its constants anyway.
    """
    made = njit(**_OPTIONS, **options)(function)
    if not JIT_DISABLED:
        lookup = made.get_call_template
        made.get_call_template = lambda args, kws: lookup(tuple(map(types.unliteral, args)), kws)
    return made


def kernel(function: Any) -> Any:
    """A compiled function that is called from other compiled code. The compiler decides what to inline.

    Left unsaid, what a function of the fast path calls would be inlined as it is, and so all of a rebuild into the
    fault handler.
    """
    return _compiled(function, forceinline=False)


def inline(function: Any) -> Any:
    """A function of the vCPU's fast path, always inlined."""
    return _compiled(function, forceinline=True)


def entry(function: Any) -> Any:
    """A compiled function that a run calls from Python.

    Only these are cached, each with all that it calls: two processes may then fill the cache at once, because no two
    entry points share a cached function.
    """
    made = _compiled(function, cache=True, forceinline=False, pipeline_class=WholeProgramCompiler)
    if not JIT_DISABLED:
        # What is kept is whole. Numba would fill its registries first, with all that could be compiled: 0.3 s.
        made._cache.load_overload = made._cache._load_overload
    return made
