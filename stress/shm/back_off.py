"""How compiled code waits for a word that another process changes."""

from __future__ import annotations

from stress.shm.atomics import pause
from stress.shm.jit import kernel
from stress.shm.syscalls import sched_yield

_SPINS = 64  # then give the core away: with more runnable processes than cores the other may need this one


@kernel
def back_off(spins: int) -> int:
    """Wait for a moment, for the ``spins``-th time; the number of the next time."""
    if spins < _SPINS:
        pause()
    else:
        sched_yield()
    return spins + 1
