"""mmu_lock: one word that names its owner, so that a death in the critical section can be explained.

Held alone, as KVM's spinlock was until v5.18 and as its rwlock is by whoever changes the table's shape from outside;
or for reading, as fault handlers take it since Linux 6.2. Readers let a waiting writer pass, as the kernel's queued
rwlock does: many vCPUs could otherwise keep it out for ever.
"""

from __future__ import annotations

from stress.shm.accounts import STATE, State
from stress.shm.atomics import compare_exchange, fetch_add, load, store
from stress.shm.back_off import back_off
from stress.shm.jit import kernel
from stress.shm.layout import Machine
from stress.shm.placement import cold
from stress.shm.trace_log import trace
from stress.shm.traced import Traced
from stress.shm.words import LOCK, LOCK_PASSED, LOCK_WRITERS, STOP

_WAIT = int(State.LOCK_WAIT)
_HELD = int(State.LOCK_HELD)
_LOCK = int(Traced.LOCK)
_UNLOCK = int(Traced.UNLOCK)


@kernel
def wait_alone(s: Machine, who: int) -> bool:
    """Take mmu_lock alone once whoever holds it has given it back; False if the run stops first."""
    cold()
    store(s.states, (who, STATE), _WAIT)
    fetch_add(s.control, LOCK_WRITERS, 1)
    spins = 0
    while load(s.control, LOCK) != 0 or not compare_exchange(s.control, LOCK, 0, who + 1):
        if load(s.control, STOP) != 0:
            fetch_add(s.control, LOCK_WRITERS, -1)
            return False
        spins = back_off(spins)
    fetch_add(s.control, LOCK_PASSED, 1)
    fetch_add(s.control, LOCK_WRITERS, -1)
    return True


@kernel
def acquire(s: Machine, who: int) -> bool:
    """Take mmu_lock alone for process ``who``; False if the run stops first. Sets the process's state."""
    if not compare_exchange(s.control, LOCK, 0, who + 1) and not wait_alone(s, who):
        return False
    trace(s, _LOCK, who, 0, 0)
    store(s.states, (who, STATE), _HELD)
    return True


@kernel
def wait_shared(s: Machine, who: int) -> bool:
    """Take mmu_lock for reading once no writer has it or waits for it; False if the run stops first."""
    cold()
    store(s.states, (who, STATE), _WAIT)
    spins = 0
    while True:
        held = load(s.control, LOCK)
        if held <= 0 and load(s.control, LOCK_WRITERS) == 0:
            if compare_exchange(s.control, LOCK, held, held - 1):
                return True
            continue  # another reader was faster
        if load(s.control, STOP) != 0:
            return False
        spins = back_off(spins)


@kernel
def acquire_shared(s: Machine, who: int) -> bool:
    """Take mmu_lock for reading; False if the run stops first. Sets the process's state."""
    held = load(s.control, LOCK)
    free = held <= 0 and load(s.control, LOCK_WRITERS) == 0
    if not (free and compare_exchange(s.control, LOCK, held, held - 1)) and not wait_shared(s, who):
        return False
    store(s.states, (who, STATE), _HELD)
    return True


@kernel
def release(s: Machine, who: int, state: int) -> None:
    """Give mmu_lock back, however it is held, and note what ``who`` does next."""
    store(s.states, (who, STATE), state)
    if load(s.control, LOCK) > 0:
        trace(s, _UNLOCK, who, 0, 0)
        store(s.control, LOCK, 0)
    else:
        fetch_add(s.control, LOCK, 1)


@kernel
def contended(s: Machine) -> bool:
    """Whether somebody waits to hold mmu_lock alone (``rwlock_is_contended``)."""
    return load(s.control, LOCK_WRITERS) != 0


@kernel
def let_pass(s: Machine, who: int) -> None:
    """Give mmu_lock back, and wait until one of those who wait to hold it alone has got it, as if queued behind them.

    ``who`` is to take it again. A run that stops lets nobody pass.
    """
    passed = load(s.control, LOCK_PASSED)
    release(s, who, _WAIT)
    spins = 0
    while load(s.control, LOCK_PASSED) == passed and contended(s) and load(s.control, STOP) == 0:
        spins = back_off(spins)
