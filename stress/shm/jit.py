"""How functions are compiled here.

Compiled functions take the machine as a tuple of array views of the segment. They never allocate, so Numba's
reference counting is off (``_nrt``): with it every call would count each view up and down atomically, which made a
TLB walk eight times slower. They run without the GIL, so that a worker's watch over its supervisor never waits.
"""

from __future__ import annotations

from typing import Any

from numba import config, njit

from stress.shm.cache import cache_directory

# Numba does not see a change in a function that a cached one calls from another file, so the cache is keyed by a
# hash of all sources that get compiled.
config.CACHE_DIR = str(cache_directory())  # type: ignore[attr-defined]

_OPTIONS: dict[str, Any] = {"_nrt": False, "boundscheck": False, "cache": True, "nogil": True}

#: A compiled function, called from other compiled code or from Python.
kernel = njit(**_OPTIONS)

#: A function of the vCPU's fast path, always inlined.
inline = njit(forceinline=True, **_OPTIONS)
