"""The records of rebuilds and of cycles: a rebuild's is opened by whoever rebuilds and closed by the hypervisor."""

from __future__ import annotations

from stress.kernels.descriptor import REBUILD_MASK
from stress.shm.accounts import (
    CLOCK_MASK,
    CLOSED,
    INSIDE,
    INSIDE_MASK,
    INSIDE_SHIFT,
    K_ACCESSES,
    K_DONE,
    K_ORDER,
    K_TIME_NS,
    PHASE,
    PHASE_SLOT_BITS,
    R_BLOCK,
    R_CLEANED,
    R_CYCLE,
    R_DONE,
    R_FAULTS,
    R_FREED,
    R_INVALID_NS,
    R_LEFT,
    R_LOCKED_NS,
    R_NUMBER,
    R_ORDER,
    R_REQUESTED_NS,
    R_VOID,
    R_WHO,
    T_ALLOCATED,
    T_CLEANED,
    T_CYCLE_NS,
    T_CYCLES,
    T_FREED,
    T_INSIDE_NS,
    T_REBUILDS,
    T_TLBIS,
    VOIDED,
)
from stress.shm.atomics import compare_exchange, fetch_add, get, load, store
from stress.shm.jit import entry, kernel
from stress.shm.layout import Machine
from stress.shm.placement import out_of_line
from stress.shm.syscalls import clock_ns, fence
from stress.shm.words import B_CLEANED, B_GFN, B_NUMBER, B_ORDER, BATCH_LOCKED_NS, BATCH_SIZE, CYCLE, REBUILDS


@kernel
def next_number(s: Machine) -> int:
    """A number for a rebuild. A number that an entry cannot hold is skipped, and its record is void."""
    number = fetch_add(s.control, REBUILDS, 1) + 1
    while number & REBUILD_MASK == 0:  # in an entry, 0 says that no rebuild broke it
        row = number & (s.geo.record_rows - 1)
        s.records[row, R_VOID] = 1
        fetch_add(s.tally, VOIDED, 1)
        s.records[row, R_FAULTS] = 0
        s.records[row, R_CLEANED] = 0
        store(s.records, (row, R_NUMBER), number)
        store(s.records, (row, R_LEFT), number)
        number = fetch_add(s.control, REBUILDS, 1) + 1
    return number


@kernel
def open_records(s: Machine, who: int, requested_ns: int) -> int:
    """Begin the rebuilds of a batch by the order under test: number them and start their records; returns the order.

    All of them count as under way from the same moment on.
    """
    out_of_line()
    cycle = 0
    order = 0
    for one in range(s.batches[who, BATCH_SIZE]):
        b = s.building[who, one]
        number = next_number(s)
        row = number & (s.geo.record_rows - 1)
        record = s.records[row]
        store(s.records, (row, R_DONE), 0)
        fence()  # whoever still copies the row's last contents sees that first
        for word in range(R_INVALID_NS, R_FREED + 1):
            record[word] = 0
        if one == 0:
            cycle = load(s.control, CYCLE)
            order = s.cycles[cycle & (s.geo.cycle_rows - 1), K_ORDER]  # one load decides both, for all of them
        record[R_CYCLE] = cycle
        record[R_ORDER] = b[B_ORDER] = order
        b[B_NUMBER] = number
        record[R_BLOCK] = b[B_GFN] - s.geo.base_gfn
        record[R_FAULTS] = 0
        record[R_VOID] = 0
        record[R_WHO] = who
        record[R_REQUESTED_NS] = requested_ns
        record[R_LOCKED_NS] = s.batches[who, BATCH_LOCKED_NS]
        record[R_CLEANED] = b[B_CLEANED]
        store(s.records, (row, R_NUMBER), number)
    # From here on accesses and time count as inside. The wait for mmu_lock came before.
    while True:
        inside = load(s.tally, INSIDE)
        grown = inside + 1 if inside != 0 else (clock_ns() & CLOCK_MASK) << INSIDE_SHIFT | 1
        if compare_exchange(s.tally, INSIDE, inside, grown):
            return order


@kernel
def close_inside(s: Machine, order: int) -> None:
    """End a batch; if no other is under way, the time inside rebuilds ends, and is charged to ``order``."""
    while True:
        inside = load(s.tally, INSIDE)
        last = inside & INSIDE_MASK == 1
        now = clock_ns()  # before the next rebuild can begin
        if compare_exchange(s.tally, INSIDE, inside, 0 if last else inside - 1):
            break
    if last:
        fetch_add(s.totals, (order, T_INSIDE_NS), (now - (inside >> INSIDE_SHIFT)) & CLOCK_MASK)


@entry
def settled(s: Machine, last: int) -> int:
    """The newest number up to ``last`` such that every rebuild up to it is done with its record."""
    for number in range(get(s.tally, CLOSED) + 1, last + 1):
        row = number & (s.geo.record_rows - 1)
        held = load(s.records, (row, R_NUMBER))  # if it is greater, the ring was full and this record is lost
        if held < number or (held == number and load(s.records, (row, R_LEFT)) != number):
            return number - 1
    return last


@entry
def close_records(s: Machine, last: int) -> int:
    """Close every open record up to ``last``, each under its own order; how many rebuilds they were."""
    rebuilds = 0
    for number in range(get(s.tally, CLOSED) + 1, last + 1):
        row = number & (s.geo.record_rows - 1)
        record = s.records[row]
        if load(s.records, (row, R_NUMBER)) != number:
            continue  # overwritten
        its = record[R_ORDER]
        if record[R_VOID] == 0:
            rebuilds += 1
            fetch_add(s.totals, (its, T_REBUILDS), 1)
            fetch_add(s.totals, (its, T_FREED), record[R_FREED])
        fetch_add(s.totals, (its, T_CLEANED), record[R_CLEANED])  # a rebuilder that lost a race has cleaned, too
        store(s.records, (row, R_DONE), number)
    store(s.tally, CLOSED, last)
    return rebuilds


@entry
def open_cycle(s: Machine, order: int) -> None:
    """Begin a cycle under ``order``: what begins from now on is charged to it."""
    number = get(s.control, CYCLE) + 1
    row = number & (s.geo.cycle_rows - 1)
    store(s.cycles, (row, K_DONE), 0)
    fence()  # whoever still copies the row's last contents sees that first
    s.cycles[row, K_ORDER] = order
    store(s.control, CYCLE, number)
    store(s.tally, PHASE, number << PHASE_SLOT_BITS | 2 * order)


@entry
def close_cycle(s: Machine, time_ns: int, accesses: int, tlbis: int, allocated: int) -> None:
    """End the cycle under way: write its row, and add it to its order's totals."""
    number = get(s.control, CYCLE)
    row = number & (s.geo.cycle_rows - 1)
    s.cycles[row, K_TIME_NS] = time_ns
    s.cycles[row, K_ACCESSES] = accesses
    store(s.cycles, (row, K_DONE), number)
    totals = s.totals[s.cycles[row, K_ORDER]]
    totals[T_CYCLE_NS] += time_ns
    totals[T_TLBIS] += tlbis
    totals[T_ALLOCATED] += allocated
    totals[T_CYCLES] += 1
