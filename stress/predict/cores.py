"""Cores, of which a machine may have fewer than there are runnable threads: first come first served, by quanta.

A vCPU that is on a core keeps it from the guest's exit until it is back there: Linux preempts nobody who holds mmu_lock
or spins for it. In the guest, or between two faults of a lost race, it goes to the end of the queue once its quantum is
over and another waits. A switch costs nothing, so N vCPUs on one core take the sum of what each takes alone. The
hypervisor sleeps between its tasks, and needs a core for each.
"""

from __future__ import annotations

from typing import Final

from stress.predict import virtual as v
from stress.predict.agenda import schedule
from stress.predict.decorators import kernel
from stress.predict.virtual import World

#: Linux's base slice on machines of 8 cores and more, in ps: 0.75 ms x (1 + log2(8)) (kernel/sched/fair.c, 6.12).
QUANTUM: Final = 3 * 10**9


@kernel
def timer_of(w: World) -> int:
    """The number of the actor that ends quanta; it is on the agenda while any actor waits for a core."""
    return int(w.s.control[v.VCPUS] + 1)


@kernel
def wait_for_core(w: World, who: int, now: int) -> None:
    """Put ``who`` at the end of the queue for a core."""
    control = w.s.control
    w.s.actor[who, v.A_PHASE] = v.READY
    w.s.ready[(control[v.READY_HEAD] + control[v.READY_COUNT]) % w.s.ready.size] = who
    control[v.READY_COUNT] += 1
    if w.s.actor[timer_of(w), v.A_AT] < 0:
        schedule(w, timer_of(w), now)  # a quantum may have been over for long


@kernel
def leave_core(w: World, who: int, now: int) -> None:
    """Take ``who`` off its core, which the actor that has waited longest gets."""
    control = w.s.control
    if w.s.actor[who, v.A_CORE] < 0:
        return
    w.s.actor[who, v.A_CORE] = -1
    if control[v.READY_COUNT] == 0:
        control[v.CORES_FREE] += 1
        return
    first = w.s.ready[control[v.READY_HEAD]]
    control[v.READY_HEAD] = (control[v.READY_HEAD] + 1) % w.s.ready.size
    control[v.READY_COUNT] -= 1
    w.s.actor[first, v.A_CORE] = now
    schedule(w, first, now)


@kernel
def yield_core(w: World, who: int, now: int) -> None:
    """Put ``who`` behind all that wait for a core."""
    leave_core(w, who, now)
    wait_for_core(w, who, now)


@kernel
def has_core(w: World, who: int, now: int) -> bool:
    """Whether ``who`` goes on now; else it waits for a core, or yields because its quantum is over."""
    control = w.s.control
    if control[v.CORES] == 0:
        return True
    since = w.s.actor[who, v.A_CORE]
    if since < 0:
        if control[v.CORES_FREE] == 0:
            wait_for_core(w, who, now)
            return False
        control[v.CORES_FREE] -= 1
        w.s.actor[who, v.A_CORE] = now
    elif control[v.READY_COUNT] > 0 and now - since >= QUANTUM:
        yield_core(w, who, now)
        return False
    return True
