"""Which actor has a core: what happens when a quantum is over, and when an actor gets a core."""

from __future__ import annotations

from stress.predict import virtual as v
from stress.predict.accounting import RETRY, stop_spinning
from stress.predict.agenda import schedule, take_off
from stress.predict.cores import QUANTUM, timer_of, yield_core
from stress.predict.decorators import kernel
from stress.predict.guest_time import cut_row, go_on
from stress.predict.roaming import follow, plan
from stress.predict.virtual import World


@kernel
def is_hopeless(w: World) -> bool:
    """Whether all that vCPUs do is to fault on entries whose owners will never be done with them."""
    if w.s.control[v.EVENTS] > 0:
        return False
    for who in range(w.s.control[v.VCPUS] + 1):
        a = w.s.actor[who]
        if a[v.A_PHASE] == v.READY:
            if who == w.s.control[v.VCPUS] or (a[v.P_PATTERN] == v.ONCE and a[v.A_LEFT] == 0):
                return False
            if w.block[a[v.A_PAGE] // w.s.control[v.BLOCK_PAGES], v.B_OWNER] == 0:
                return False
        elif a[v.A_PHASE] != v.SPIN and a[v.A_PHASE] != v.IDLE:
            return False
    return True


@kernel
def interrupt(w: World, who: int, now: int) -> None:
    """Take the core from a vCPU that is in the guest, once its access has ended, or that faults again and again."""
    a = w.s.actor[who]
    if a[v.A_PHASE] == v.SPIN:
        stop_spinning(w, who, RETRY, now)
        yield_core(w, who, now)
    elif a[v.P_PATTERN] == v.ONCE:
        cut_row(w, who, now)
    else:
        follow(w, who, now)
        a[v.A_BEGUN] = now - a[v.A_SINCE]
        take_off(w, who)
        yield_core(w, who, now)


@kernel
def end_quantum(w: World, now: int) -> None:
    """Take cores from vCPUs whose quantum is over. One in the hypervisor goes on, and yields when it is back."""
    if w.s.control[v.READY_COUNT] == 0 or is_hopeless(w):
        return
    next_end = now + QUANTUM
    for who in range(w.s.control[v.VCPUS]):
        a = w.s.actor[who]
        if a[v.A_CORE] < 0:
            continue
        if a[v.A_CORE] + QUANTUM > now:
            next_end = min(next_end, a[v.A_CORE] + QUANTUM)
        elif a[v.A_PHASE] == v.GUEST or a[v.A_PHASE] == v.SPIN:
            interrupt(w, who, now)
    schedule(w, timer_of(w), next_end)


@kernel
def resume(w: World, who: int, now: int) -> None:
    """Let a vCPU that got a core go on with the access that it was at, or repeat the one that faulted."""
    a = w.s.actor[who]
    if a[v.A_BEGUN] >= 0:
        a[v.A_SINCE] = now - a[v.A_BEGUN]
        a[v.A_BEGUN] = -1
        a[v.A_PHASE] = v.GUEST
        plan(w, who, now)
    else:
        go_on(w, who, now)
