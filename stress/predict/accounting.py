"""The end of a fault in virtual time: it is counted, its vCPU goes on, and so do others that wait for the entry."""

from __future__ import annotations

from stress.predict import virtual as v
from stress.predict.agenda import give_back, schedule
from stress.predict.decorators import kernel
from stress.predict.guest_time import go_on, turns
from stress.predict.virtual import World
from stress.results.data import COUNTERS, FAULT_CLASSES
from stress.shm.histogram import bucket

C_LOCKS = COUNTERS.index("lock_acquisitions")
C_WAIT = COUNTERS.index("lock_wait_ns")
C_HOLD = COUNTERS.index("lock_hold_ns")
C_CLASS = COUNTERS.index(FAULT_CLASSES[0])
C_MAPPED_BLOCKS = COUNTERS.index("mapped_blocks")
C_MAPPED_PAGES = COUNTERS.index("mapped_pages")
C_RELAXED = COUNTERS.index("relaxed")
C_SPLITS = COUNTERS.index("splits")
C_TRANSLATION = COUNTERS.index("translation_l0")
C_PERMISSION = COUNTERS.index("permission_l0")
WINDOW, SPURIOUS, POPULATION, PERMISSION, REBUILD, RETRY, CONFLICT = range(len(FAULT_CLASSES))


@kernel
def account(w: World, who: int, kind: int, stall: int, wait: int, hold: int, locks: int, times: int) -> None:
    """Count ``times`` equal faults of an actor, each of which took mmu_lock ``locks`` times."""
    a = w.s.actor[who]
    counters = w.s.counters[who, a[v.A_INSIDE]]
    counters[C_CLASS + kind] += times
    counters[C_LOCKS] += times * locks
    counters[C_WAIT] += times * wait
    counters[C_HOLD] += times * hold
    if kind != CONFLICT:  # a conflict has no level
        counters[(C_PERMISSION if a[v.A_LEAF] != 0 else C_TRANSLATION) + a[v.A_LEVEL]] += times
    w.s.stalls[kind, bucket(stall // 1000)] += times
    if w.s.control[v.KEPT_SKIP] > 0:
        w.s.control[v.KEPT_SKIP] -= 1
        return
    if w.s.control[v.KEPT] == v.FAULTS_KEPT:  # the rows are full: every other one is dropped
        for i in range(v.FAULTS_KEPT // 2):
            for word in range(v.FAULT_WORDS):
                w.faults[i, word] = w.faults[2 * i, word]
        w.s.control[v.KEPT] = v.FAULTS_KEPT // 2
        w.s.control[v.KEPT_STRIDE] *= 2
    row = w.faults[w.s.control[v.KEPT]]
    row[v.F_CYCLE], row[v.F_CLASS], row[v.F_STALL], row[v.F_WAIT] = w.s.control[v.CYCLE], kind, stall, wait
    w.s.control[v.KEPT] += 1
    w.s.control[v.KEPT_SKIP] = w.s.control[v.KEPT_STRIDE] - 1


@kernel
def finish(w: World, who: int, kind: int, now: int) -> None:
    """The fault is handled: give mmu_lock back if it is held, and count it."""
    a = w.s.actor[who]
    if a[v.A_LOCKED] >= 0:
        give_back(w, who, now)
    account(w, who, WINDOW if a[v.A_MET] != 0 else kind, now - a[v.A_START], a[v.A_WAIT], a[v.A_HOLD], a[v.A_LOCKS], 1)


@kernel
def done(w: World, who: int, kind: int, now: int) -> None:
    """End a fault that is handled, and let its vCPU go on in the guest."""
    finish(w, who, kind, now)
    go_on(w, who, now)


@kernel
def conflict_over(w: World, who: int, now: int) -> None:
    """Let a vCPU try again whose core's TLB was emptied by a TLBI."""
    a = w.s.actor[who]
    a[v.A_MEETS] = 0
    account(w, who, CONFLICT, now - a[v.A_START], 0, 0, 0, 1)
    go_on(w, who, now)


@kernel
def wake(w: World, number: int, key: int, now: int) -> None:
    """Let the actors go on that spin for an entry: its owner is done with it, and the fault under way is their last."""
    block = w.block[number]
    if block[v.B_SPINNERS] == 0:
        return
    for who in range(w.s.control[v.VCPUS]):
        a = w.s.actor[who]
        if a[v.A_PHASE] == v.SPIN and a[v.A_KEY] == key:
            stop_spinning(w, who, SPURIOUS, now)
            schedule(w, who, max(now, a[v.A_SINCE]))


@kernel
def stop_spinning(w: World, who: int, last: int, now: int) -> None:
    """Count the faults of a spinning actor until now, the last one in class ``last``, and put it into the guest."""
    a = w.s.actor[who]
    each = w.s.cost[v.K_EXIT] + w.s.cost[v.K_FAULT]
    w.block[a[v.A_PAGE] // w.s.control[v.BLOCK_PAGES], v.B_SPINNERS] -= 1
    times = turns(w, who, now)
    if a[v.A_MET] != 0:
        w.draft[a[v.A_MET] - 1, v.R_FAULTS] += times
        account(w, who, WINDOW, each, 0, w.s.cost[v.K_FAULT], 1, times)
    elif times > 0:
        account(w, who, RETRY, each, 0, w.s.cost[v.K_FAULT], 1, times - 1)
        account(w, who, last, each, 0, w.s.cost[v.K_FAULT], 1, 1)
    a[v.A_PHASE] = v.GUEST
    a[v.A_SINCE] += times * each
    a[v.A_PLANNED] = a[v.A_COUNTED] = 0


@kernel
def clean(w: World, pages: int) -> int:
    """How long it takes, in ps, to clean a page, or a block if ``pages`` is more than one; 0 with v.FWB."""
    if w.s.control[v.FWB] != 0:
        return 0
    w.s.sums[v.S_CLEANED] += pages * w.s.control[v.GRANULE]
    return int((w.s.cost[v.K_CLEAN_PAGE] if pages == 1 else w.s.cost[v.K_CLEAN_BLOCK]) + w.s.cost[v.K_ICACHE])
