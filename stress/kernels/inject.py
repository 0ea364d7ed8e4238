"""Whether an injected bug acts here, counted: a bug that never acts shows nothing."""

from __future__ import annotations

from stress.shm.accounts import ACTED
from stress.shm.atomics import fetch_add
from stress.shm.jit import inline, kernel
from stress.shm.layout import Machine
from stress.shm.placement import cold


@kernel
def count(s: Machine) -> None:
    """The bug acted once more."""
    cold()
    fetch_add(s.tally, ACTED, 1)


@inline
def injected(s: Machine, flag: int) -> bool:
    """Whether the bug with this flag is injected.

    Each yes counts as an act of the bug, so ask last, and only where the answer changes what happens.
    """
    if s.geo.inject & flag == 0:
        return False
    count(s)
    return True
