"""Grace periods: a fault handler under a shared mmu_lock, or a walker without a lock, may still walk a detached table.

KVM walks in an RCU read-side critical section (Linux 6.2 ``kvm_pgtable_walk_begin``) and frees detached tables by
``call_rcu``. Here each process counts its sections: odd inside, even outside.
"""

from __future__ import annotations

from stress.bugs import NO_GRACE
from stress.kernels.inject import injected
from stress.shm.atomics import get, load, store
from stress.shm.back_off import back_off
from stress.shm.jit import kernel
from stress.shm.layout import Machine
from stress.shm.syscalls import fence
from stress.shm.words import STOP, STOP_ABORT, WALKING


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
def synchronize(s: Machine, who: int) -> None:
    """Wait until every section of others that runs now has ended (``synchronize_rcu``).

    The caller's own section ends: two rebuilders would otherwise wait for each other. It must not use what it walked.
    """
    end_walk(s, who)
    fence()
    for process in range(s.geo.hypervisor + 1):
        entered = load(s.procs, (process, WALKING))
        spins = 0
        while entered & 1 and load(s.procs, (process, WALKING)) == entered and load(s.control, STOP) != STOP_ABORT:
            spins = back_off(spins)


@kernel
def grace(s: Machine, who: int) -> None:
    """Before a detached table is freed: wait for all who may still walk it, if anybody walks without excluding us."""
    if (s.geo.shared != 0 or s.geo.lockless != 0) and not injected(s, NO_GRACE):
        synchronize(s, who)
