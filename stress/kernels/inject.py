"""Whether an injected bug acts here, counted: a bug that never acts shows nothing."""

from __future__ import annotations

from stress.shm.atomics import fetch_add
from stress.shm.jit import inline, kernel
from stress.shm.layout import Machine
from stress.shm.placement import cold
from stress.shm.words import ACTED


@kernel
def count(s: Machine) -> None:
    """The bug acted once more."""
    cold()
    fetch_add(s.control, ACTED, 1)


@inline
def injected(s: Machine, flag: int) -> bool:
    """Whether the bug with this flag is injected. Ask last, where the answer changes what happens: a yes is counted."""
    if s.geo.inject & flag == 0:
        return False
    count(s)
    return True
