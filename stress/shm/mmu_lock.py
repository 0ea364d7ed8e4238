"""mmu_lock: one word that names its owner, so that a death in the critical section can be explained."""

from __future__ import annotations

from stress.shm.atomics import compare_exchange, load, pause, store
from stress.shm.jit import kernel
from stress.shm.layout import LOCK, STATE, STOP, Machine, State
from stress.shm.syscalls import sched_yield

_SPINS = 64  # then give the core away: with more runnable processes than cores the holder may need this one
_WAIT = int(State.LOCK_WAIT)
_HELD = int(State.LOCK_HELD)


@kernel
def acquire(s: Machine, who: int) -> bool:
    """Take mmu_lock for process ``who``; False if the run stops first. Unfair; sets the process's state."""
    if not compare_exchange(s.control, LOCK, 0, who + 1):
        store(s.procs, (who, STATE), _WAIT)
        spins = 0
        while load(s.control, LOCK) != 0 or not compare_exchange(s.control, LOCK, 0, who + 1):
            if load(s.control, STOP) != 0:
                return False
            spins += 1
            if spins < _SPINS:
                pause()
            else:
                sched_yield()
    store(s.procs, (who, STATE), _HELD)
    return True


@kernel
def release(s: Machine, who: int, state: int) -> None:
    """Give mmu_lock back and note what ``who`` does next."""
    store(s.procs, (who, STATE), state)
    store(s.control, LOCK, 0)
