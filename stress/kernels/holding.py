"""mmu_lock as a rebuild holds it: taken and given back at its steps, and given up for a while in a long tear-down.

A process that rebuilds block after block may keep mmu_lock from one rebuild to the next (``BATCH_KEEPS``): each rebuild
then finds it taken.
"""

from __future__ import annotations

from stress.kernels.batch import record_row
from stress.kernels.grace import begin_walk, end_walk
from stress.shm.accounts import HEARTBEAT, R_YIELDED_NS, T_YIELDS
from stress.shm.atomics import fetch_add
from stress.shm.jit import inline, kernel
from stress.shm.layout import Machine
from stress.shm.mmu_lock import acquire, acquire_shared, contended, let_pass, release
from stress.shm.placement import out_of_line
from stress.shm.syscalls import clock_ns
from stress.shm.words import (
    B_ORDER,
    BATCH_HOLD_NS,
    BATCH_KEEPS,
    BATCH_KEPT_NS,
    BATCH_LOCKED_NS,
    BATCH_LOCKS,
    BATCH_NEXT_STATE,
    BATCH_SIZE,
    BATCH_VISITED,
    BATCH_WAIT_NS,
    BATCH_YIELDED,
)


@kernel
def take_lock(s: Machine, who: int, requested_ns: int) -> bool:
    """Take mmu_lock, alone or for reading as the run has it; False if the run stops first."""
    batch = s.batches[who]
    if batch[BATCH_KEPT_NS] != 0:
        if s.geo.shared != 0:
            begin_walk(s, who)
        own_lock(s, who, batch[BATCH_KEPT_NS], batch[BATCH_KEPT_NS])
        batch[BATCH_KEPT_NS] = 0
        return True
    if s.geo.shared != 0:
        if not acquire_shared(s, who):
            return False
        begin_walk(s, who)
    elif not acquire(s, who):
        return False
    own_lock(s, who, requested_ns, clock_ns())
    return True


@kernel
def own_lock(s: Machine, who: int, requested_ns: int, locked_ns: int) -> None:
    """Note that ``who`` has mmu_lock, which it asked for and got at these times."""
    batch = s.batches[who]
    batch[BATCH_LOCKS] += 1
    batch[BATCH_WAIT_NS] += locked_ns - requested_ns
    batch[BATCH_LOCKED_NS] = locked_ns


@kernel
def disown_lock(s: Machine, who: int) -> int:
    """Note that ``who`` gives mmu_lock back; returns the clock."""
    batch = s.batches[who]
    now = clock_ns()
    batch[BATCH_HOLD_NS] += now - batch[BATCH_LOCKED_NS]
    batch[BATCH_LOCKED_NS] = 0
    return now


@kernel
def drop_lock(s: Machine, who: int) -> None:
    """Give mmu_lock back, or keep it for the next rebuild, and note that."""
    end_walk(s, who)
    batch = s.batches[who]
    if batch[BATCH_KEEPS] != 0:
        batch[BATCH_KEPT_NS] = batch[BATCH_LOCKED_NS]
    else:
        release(s, who, batch[BATCH_NEXT_STATE])
    disown_lock(s, who)


@inline
def entries_at_once(s: Machine, who: int) -> int:
    """How many entries of a table a tear-down may visit before the next ``offer_lock``."""
    if s.geo.yield_every == 0:
        return 1 << s.geo.index_bits
    return s.geo.yield_every - s.batches[who, BATCH_VISITED]


@inline
def offer_lock(s: Machine, who: int, visited: int) -> None:
    """Count ``visited`` more entries of a tear-down; at the end of a chunk of them let waiting processes have mmu_lock.

    As KVM's unmap of a range between two tables (Linux 6.1 ``stage2_apply_range``, ``cond_resched_rwlock_write``).
    """
    if s.geo.yield_every != 0:
        yield_lock(s, who, visited)


@kernel
def yield_lock(s: Machine, who: int, visited: int) -> None:
    """``offer_lock`` if tear-downs have chunks and ``who`` holds mmu_lock.

    If the run stops meanwhile ``who`` is left without mmu_lock; what it tears down is its own all the same.
    """
    out_of_line()
    batch = s.batches[who]
    batch[BATCH_VISITED] += visited
    if batch[BATCH_VISITED] < s.geo.yield_every:
        return
    batch[BATCH_VISITED] = 0
    s.states[who, HEARTBEAT] += 1
    if batch[BATCH_LOCKED_NS] == 0 or not contended(s):
        return
    end_walk(s, who)
    given = disown_lock(s, who)
    let_pass(s, who)
    batch[BATCH_YIELDED] = 1
    fetch_add(s.totals, (s.building[who, 0, B_ORDER], T_YIELDS), 1)
    take_lock(s, who, given)
    passed = clock_ns() - given
    for entry in range(batch[BATCH_SIZE]):
        s.records[record_row(s, who, entry), R_YIELDED_NS] += passed
