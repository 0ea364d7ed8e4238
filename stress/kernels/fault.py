"""A vCPU's exit with a stage-2 fault: take mmu_lock, resolve it, account for it, go back to the guest."""

from __future__ import annotations

from stress.arch.geometry import LAST_LEVEL
from stress.bugs import EVENT_LOST
from stress.kernels.abort import resolve
from stress.kernels.codes import (
    ENDLESS,
    NO_SLOT,
    NOTHING,
    PERMISSION,
    POOL_EXHAUSTED,
    RETRY,
    SPLIT,
    STOPPED,
    WINDOW,
)
from stress.kernels.cost import spend
from stress.kernels.descriptor import REBUILD_MASK, is_leaf, window_of
from stress.kernels.grace import begin_walk, end_walk
from stress.kernels.inject import injected
from stress.shm.accounts import (
    C_DROPPED,
    C_FAULTS,
    C_LOCK_HOLD_NS,
    C_LOCK_WAIT_NS,
    C_LOCKS,
    C_MAPPED_BLOCKS,
    C_MAPPED_PAGES,
    C_PERMISSION,
    C_TRANSLATION,
    COSTS_CUT,
    EVENT_LOGGED,
    INSIDE,
    PHASE,
    PHASE_SLOT_BITS,
    PHASE_SLOT_MASK,
    R_CYCLE,
    R_FAULTS,
    R_NUMBER,
    R_ORDER,
    STATE,
    WHAT_SLOT_SHIFT,
    State,
)
from stress.shm.atomics import fetch_add, load, store
from stress.shm.events import log_fault
from stress.shm.histogram import bucket
from stress.shm.jit import kernel
from stress.shm.layout import Machine
from stress.shm.mmu_lock import acquire, acquire_shared, release
from stress.shm.syscalls import clock_ns, sched_yield
from stress.shm.words import BATCH_HOLD_NS, BATCH_LOCKS, BATCH_WAIT_NS

_FAULT = int(State.FAULT)
_GUEST = int(State.GUEST)


@kernel
def phase_now(s: Machine) -> int:
    """The word PHASE, with the counter slot of this very moment: inside or outside of rebuilds."""
    phase = load(s.tally, PHASE)
    if load(s.tally, INSIDE) != 0 and (phase & PHASE_SLOT_MASK) + 1 < s.counters.shape[1]:
        phase |= 1
    return phase


@kernel
def phase_of(s: Machine, descriptor: int) -> tuple[int, int]:
    """What a fault that met ``descriptor`` is charged to: (a PHASE word, the number of a rebuild or 0).

    A window fault belongs to the rebuild that broke the entry, found by its number modulo 2**24, and to that rebuild's
    cycle, even if the hypervisor has gone on since; any other fault belongs to what is going on now. Counts the window
    fault.
    """
    phase = phase_now(s)
    window = window_of(descriptor)
    if window != 0:
        row = window & (s.geo.record_rows - 1)
        number = load(s.records, (row, R_NUMBER))
        if number & REBUILD_MASK == window:
            order = s.records[row, R_ORDER]
            if fetch_add(s.records, (row, R_FAULTS), 1) == 0:
                fetch_add(s.hits, order, 1)
            return s.records[row, R_CYCLE] << PHASE_SLOT_BITS | (2 * order + 1), number
    return phase, 0


@kernel
def slot_charged(s: Machine, phase: int) -> int:
    """The counter slot of a phase. A stall whose costs were cut short belongs to no order."""
    if load(s.tally, COSTS_CUT) != 0:  # it stalled for less than on the platform
        return (s.counters.shape[1] - 1) & PHASE_SLOT_MASK
    return phase & PHASE_SLOT_MASK


@kernel
def tell(
    s: Machine,
    vcpu: int,
    kind: int,
    slot: int,
    phase: int,
    start: int,
    stall: int,
    waited: int,
    gfn: int,
    level: int,
    write: bool,
    number: int,
) -> None:
    """Count a fault of class ``kind``, and its stall; log it as an event."""
    counters = s.counters[vcpu, slot]
    counters[C_FAULTS + kind] += 1
    if slot + 1 < s.counters.shape[1]:
        s.stalls[vcpu, slot >> 1, kind, bucket(stall)] += 1
        what = kind | max(level, 0) << 4 | int(write) << 8 | slot << WHAT_SLOT_SHIFT
        if injected(s, EVENT_LOST):
            s.event_index[vcpu, EVENT_LOGGED] += 1
        elif not log_fault(s, vcpu, start, gfn, stall, waited, number, what, phase >> PHASE_SLOT_BITS):
            counters[C_DROPPED] += 1


@kernel
def handle(s: Machine, vcpu: int, gfn: int, write: bool, descriptor: int, level: int) -> int:
    """Exit with a validated fault, resolve it, account for it; a class, or what else ``codes`` has.

    ``descriptor`` and ``level`` are what the vCPU's walk met (0 and -1 if its TLB hit without permission).
    """
    start = clock_ns()
    store(s.states, (vcpu, STATE), _FAULT)
    spend(s, vcpu, s.geo.exit_ns)
    phase, number = phase_of(s, descriptor)
    asked = clock_ns() if s.geo.exit_ns != 0 else start
    if not (acquire_shared(s, vcpu) if s.geo.shared != 0 else acquire(s, vcpu)):
        return STOPPED
    locked = clock_ns()
    if s.geo.shared != 0:
        begin_walk(s, vcpu)
    found, did, reached, rebuilt = resolve(s, gfn, write, vcpu, asked, locked)
    ended = clock_ns()
    locks, waited, held = 1, locked - asked, ended - locked
    if rebuilt != 0:
        batch = s.batches[vcpu]
        locks, waited, held = batch[BATCH_LOCKS], batch[BATCH_WAIT_NS], batch[BATCH_HOLD_NS]
    else:  # giving the lock back takes no time to speak of
        if s.geo.shared != 0:
            end_walk(s, vcpu)
        release(s, vcpu, _GUEST)
    if found == POOL_EXHAUSTED or found == NO_SLOT:
        return found
    if found == RETRY:
        sched_yield()  # whoever owns the entry may need this core
        ended = clock_ns()
    kind = WINDOW if window_of(descriptor) != 0 else PERMISSION if found == ENDLESS else found
    slot = slot_charged(s, phase)
    counters = s.counters[vcpu, slot]
    counters[C_LOCKS] += locks
    counters[C_LOCK_WAIT_NS] += waited
    counters[C_LOCK_HOLD_NS] += held
    if did != NOTHING:
        counters[C_MAPPED_BLOCKS + did] += 1
        if did == SPLIT:
            counters[C_MAPPED_PAGES] += 1
    if level < 0:
        counters[C_PERMISSION + (reached & LAST_LEVEL)] += 1
    elif is_leaf(descriptor, level):
        counters[C_PERMISSION + (level & LAST_LEVEL)] += 1
    else:
        counters[C_TRANSLATION + (level & LAST_LEVEL)] += 1
    tell(s, vcpu, kind, slot, phase, start, ended - start, waited, gfn, level, write, number)
    return found if found < 0 else kind
