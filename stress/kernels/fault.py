"""Stage-2 faults: exit, take mmu_lock, walk again, map what is missing (KVM's ``user_mem_abort``), go back."""

from __future__ import annotations

from stress.arch.geometry import LAST_LEVEL
from stress.kernels.clean import clean_frames
from stress.kernels.descriptor import (
    WRITE,
    is_leaf,
    leaf_descriptor,
    make_writable,
    pages_at,
    permissions,
    table_descriptor,
    window_of,
)
from stress.kernels.entries import find, page_of, set_entry
from stress.kernels.pool import allocate_table, get_page
from stress.kernels.tlbi import tlbi_range
from stress.shm.atomics import fetch_add, load, store
from stress.shm.events import log_fault
from stress.shm.histogram import bucket
from stress.shm.jit import kernel
from stress.shm.layout import (
    C_DROPPED,
    C_FAULTS,
    C_LOCK_HOLD_NS,
    C_LOCK_WAIT_NS,
    C_LOCKS,
    PHASE,
    R_FAULTS,
    R_NUMBER,
    R_ORDER,
    RECORD_RING,
    STATE,
    Machine,
    State,
)
from stress.shm.mmu_lock import acquire, release
from stress.shm.syscalls import clock_ns

# Fault classes; indices into stress.results.data.FAULT_CLASSES.
WINDOW, SPURIOUS, POPULATION, PERMISSION = range(4)
# What else a handler can say.
STOPPED = -1
POOL_EXHAUSTED = -2

_FAULT = int(State.FAULT)
_GUEST = int(State.GUEST)


@kernel
def map_leaf(s: Machine, gfn: int, target: int, who: int) -> int:
    """Map ``gfn`` at ``target`` level, adding tables on the way; POPULATION or POOL_EXHAUSTED.

    An existing table decides: below it only pages are mapped. The caller holds mmu_lock.
    """
    index, level = find(s, gfn, LAST_LEVEL)
    if level > target:
        target = LAST_LEVEL
    while level < target:
        page = allocate_table(s, level + 1)
        if page < 0:
            return POOL_EXHAUSTED
        set_entry(s, index, table_descriptor(s.geo, page), level, gfn, who)
        get_page(s, page_of(s, index))
        index, level = find(s, gfn, level + 1)
    pages = pages_at(s.geo, level)
    frame = (gfn - s.geo.base_gfn) & ~(pages - 1)
    clean_frames(s, frame, pages)
    set_entry(s, index, leaf_descriptor(s.geo, frame, level), level, gfn, who)
    get_page(s, page_of(s, index))
    return POPULATION


@kernel
def resolve(s: Machine, gfn: int, write: bool, who: int) -> int:
    """Handle the fault under mmu_lock; the class of what was found, or POOL_EXHAUSTED."""
    index, level = find(s, gfn, LAST_LEVEL)
    descriptor = load(s.tables, index)
    if not is_leaf(descriptor, level):
        return map_leaf(s, gfn, s.geo.block_level, who)
    if write and permissions(descriptor) & WRITE == 0:
        # Relaxing permissions needs no break, but the old translation must leave the TLBs (stage2_attr_walker).
        set_entry(s, index, make_writable(descriptor), level, gfn, who)
        tlbi_range(s, gfn, gfn + 1)
        return PERMISSION
    return SPURIOUS


@kernel
def phase_of(s: Machine, descriptor: int) -> int:
    """What a fault that met ``descriptor`` is charged to, as a PHASE word; counts it if it fell into a window.

    A window fault belongs to the rebuild that broke the entry, found by its number modulo 2**24, even if the
    hypervisor has gone on since; any other fault to what the hypervisor does now.
    """
    phase = load(s.control, PHASE)
    window = window_of(descriptor)
    if window != 0:
        row = window & (RECORD_RING - 1)
        number = load(s.records, (row, R_NUMBER))
        if number & 0xFFFFFF == window:
            order = s.records[row, R_ORDER]
            if fetch_add(s.records, (row, R_FAULTS), 1) == 0:
                fetch_add(s.hits, order, 1)
            phase = number << 8 | (2 * order + 1)
    return phase


@kernel
def handle(s: Machine, vcpu: int, gfn: int, write: bool, descriptor: int, level: int) -> int:
    """Exit with a validated fault, resolve it, account for it; a class, STOPPED or POOL_EXHAUSTED.

    ``descriptor`` and ``level`` are what the vCPU's walk met (0 and -1 if its TLB hit without permission).
    """
    start = clock_ns()
    store(s.procs, (vcpu, STATE), _FAULT)
    phase = phase_of(s, descriptor)
    if not acquire(s, vcpu):
        return STOPPED
    locked = clock_ns()
    found = resolve(s, gfn, write, vcpu)
    done = clock_ns()
    release(s, vcpu, _GUEST)
    if found == POOL_EXHAUSTED:
        return found
    kind = WINDOW if window_of(descriptor) != 0 else found
    slot = phase & 0xFF
    counters = s.counters[vcpu, slot]
    counters[C_FAULTS + kind] += 1
    counters[C_LOCKS] += 1
    counters[C_LOCK_WAIT_NS] += locked - start
    counters[C_LOCK_HOLD_NS] += done - locked
    if slot + 1 < s.counters.shape[1]:
        stall = clock_ns() - start
        s.stalls[vcpu, slot >> 1, kind, bucket(stall)] += 1
        what = kind | max(level, 0) << 4 | int(write) << 8 | slot << 16
        if not log_fault(s, vcpu, start, gfn, stall, locked - start, phase >> 8, what):
            counters[C_DROPPED] += 1
    return kind
