"""Grace periods: a fault handler under a shared mmu_lock, or a walker without a lock, may still walk a detached table.

KVM walks in an RCU read-side critical section (Linux 6.2 ``kvm_pgtable_walk_begin``) and frees detached tables by
``call_rcu``. Here each process counts its sections: odd inside, even outside.

Grace periods are numbered as they begin. When a table is freed, these numbers alone tell whether a grace period that
covers the table has ended: a table freed too soon is reported whether a walker was in it or not.
"""

from __future__ import annotations

from stress.bugs import NO_GRACE
from stress.kernels.codes import FREED_WITHOUT_GRACE
from stress.kernels.inject import injected
from stress.kernels.oracle import broke_rule
from stress.shm.accounts import Kind
from stress.shm.atomics import fetch_add, fetch_max, get, load, store
from stress.shm.back_off import back_off
from stress.shm.jit import kernel
from stress.shm.layout import Machine
from stress.shm.syscalls import fence
from stress.shm.words import GRACE_BEGUN, GRACE_DONE, STOP, STOP_ABORT, WALKING

_AFTER_FREE = int(Kind.TABLE_USE_AFTER_FREE)


@kernel
def begin_walk(s: Machine, who: int) -> None:
    """Enter a read-side section."""
    store(s.procs, (who, WALKING), get(s.procs, (who, WALKING)) | 1)
    fence()  # whoever detaches a table sees this, or we see the table detached


@kernel
def end_walk(s: Machine, who: int) -> None:
    """Leave the read-side section, if in one."""
    store(s.procs, (who, WALKING), (get(s.procs, (who, WALKING)) + 1) & ~1)


@kernel
def synchronize(s: Machine, who: int) -> bool:
    """Wait until every section of others that runs now has ended (``synchronize_rcu``); False if the run was cut short.

    The caller's own section ends first, because two rebuilders would otherwise wait for each other. The caller must not
    use what it walked.
    """
    end_walk(s, who)
    number = fetch_add(s.control, GRACE_BEGUN, 1) + 1
    fence()
    for process in range(s.geo.hypervisor + 1):
        entered = load(s.procs, (process, WALKING))
        spins = 0
        while entered & 1 and load(s.procs, (process, WALKING)) == entered:
            if load(s.control, STOP) == STOP_ABORT:
                return False
            spins = back_off(spins)
    fetch_max(s.control, GRACE_DONE, number)
    return True


@kernel
def unexcluded(s: Machine) -> bool:
    """Whether walkers do not exclude the processes that free tables: under a shared mmu_lock, or without any lock."""
    return s.geo.shared != 0 or s.geo.lockless != 0


@kernel
def grace(s: Machine, who: int) -> bool:
    """Before a detached table is freed: wait for all who may still walk it; False if the run was cut short."""
    if unexcluded(s) and not injected(s, NO_GRACE):
        return synchronize(s, who)
    return True


@kernel
def grace_clock(s: Machine) -> int:
    """The clock for a table that has just been detached: a grace period with a higher number covers the table.

    As ``get_state_synchronize_rcu``.
    """
    fence()  # a process that begins a grace period after this sees the entry broken
    return load(s.control, GRACE_BEGUN)


@kernel
def judge_free(s: Machine, clock: int, gfn: int, level: int, who: int) -> None:
    """Report a table freed before a grace period has ended that covers when it was detached (``clock``).

    As ``poll_state_synchronize_rcu``.
    """
    done = load(s.control, GRACE_DONE)
    if done <= clock and unexcluded(s):
        broke_rule(s, _AFTER_FREE, who, gfn, level, done, clock + 1, FREED_WITHOUT_GRACE)
