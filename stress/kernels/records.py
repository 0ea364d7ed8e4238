"""The record of a rebuild: opened by whoever rebuilds, closed by the hypervisor once its cycle is over."""

from __future__ import annotations

from stress.kernels.descriptor import REBUILD_MASK
from stress.shm.atomics import fetch_add, fetch_max, load, store
from stress.shm.jit import entry, kernel
from stress.shm.layout import Machine
from stress.shm.syscalls import clock_ns, fence
from stress.shm.words import (
    CLOSED,
    INSIDE,
    INSIDE_ENDED_NS,
    INSIDE_SINCE_NS,
    ORDER,
    R_ACCESSES,
    R_BLOCK,
    R_CLEANED,
    R_CYCLE_NS,
    R_DETACHED,
    R_DONE,
    R_FAULTS,
    R_FREED,
    R_INVALID_NS,
    R_LEFT,
    R_NUMBER,
    R_ORDER,
    R_REQUESTED_NS,
    R_VOID,
    R_WHO,
    REBUILDS,
    RECORD_RING,
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


@kernel
def open_record(s: Machine, who: int, gfn: int, requested_ns: int) -> int:
    """Begin a rebuild of the order under test: number it, start its record, count it as under way."""
    number = fetch_add(s.control, REBUILDS, 1) + 1
    while number & REBUILD_MASK == 0:  # an entry that says 0 was broken by no rebuild
        row = number & (RECORD_RING - 1)
        s.records[row, R_VOID] = 1
        fetch_add(s.control, VOIDED, 1)
        s.records[row, R_FAULTS] = 0
        store(s.records, (row, R_NUMBER), number)
        store(s.records, (row, R_LEFT), number)
        number = fetch_add(s.control, REBUILDS, 1) + 1
    row = number & (RECORD_RING - 1)
    record = s.records[row]
    store(s.records, (row, R_DONE), 0)
    fence()  # whoever still copies the row's last contents sees that first
    for word in range(R_INVALID_NS, R_FREED + 1):
        record[word] = 0
    record[R_ORDER] = load(s.control, ORDER)
    record[R_BLOCK] = gfn - s.geo.base_gfn
    record[R_FAULTS] = 0
    record[R_VOID] = 0
    record[R_WHO] = who
    record[R_DETACHED] = -1
    record[R_REQUESTED_NS] = requested_ns
    store(s.records, (row, R_NUMBER), number)
    if fetch_add(s.control, INSIDE, 1) == 0:
        # Who waited for another rebuild to give mmu_lock back begins where that ended.
        store(s.control, INSIDE_SINCE_NS, max(requested_ns, load(s.control, INSIDE_ENDED_NS)))
    return number


@kernel
def close_inside(s: Machine, order: int) -> None:
    """A rebuild is over; if it was the last under way, the time inside rebuilds ends."""
    now = clock_ns()
    since = load(s.control, INSIDE_SINCE_NS)
    fetch_max(s.control, INSIDE_ENDED_NS, now)
    if fetch_add(s.control, INSIDE, -1) == 1:
        fetch_add(s.totals, (order, T_INSIDE_NS), now - since)


@entry
def settled(s: Machine, last: int) -> int:
    """The newest number up to ``last`` so that no rebuild up to it has anything left to do."""
    for number in range(s.control[CLOSED] + 1, last + 1):
        row = number & (RECORD_RING - 1)
        held = load(s.records, (row, R_NUMBER))  # a greater one: the ring was full, its record is lost
        if held < number or (held == number and load(s.records, (row, R_LEFT)) != number):
            return number - 1
    return last


@entry
def close_cycle(s: Machine, order: int, last: int, cycle_ns: int, accesses: int, tlbis: int, allocated: int) -> int:
    """Close every open record up to ``last`` and add the cycle to the order's totals; how many rebuilds it had.

    The figures of the whole cycle go to its first rebuild.
    """
    rebuilds = 0
    for number in range(s.control[CLOSED] + 1, last + 1):
        row = number & (RECORD_RING - 1)
        record = s.records[row]
        if load(s.records, (row, R_NUMBER)) != number:
            continue  # overwritten
        if record[R_VOID] == 0:
            record[R_CYCLE_NS] = cycle_ns if rebuilds == 0 else 0
            record[R_ACCESSES] = accesses if rebuilds == 0 else 0
            rebuilds += 1
            its = record[R_ORDER]  # a vCPU may have begun it before the last cycle was over
            fetch_add(s.totals, (its, T_REBUILDS), 1)
            fetch_add(s.totals, (its, T_FREED), record[R_FREED])
        fetch_add(s.totals, (record[R_ORDER], T_CLEANED), record[R_CLEANED])  # losers of a race clean too
        store(s.records, (row, R_DONE), number)
    totals = s.totals[order]
    totals[T_CYCLE_NS] += cycle_ns
    totals[T_TLBIS] += tlbis
    totals[T_ALLOCATED] += allocated
    totals[T_CYCLES] += 1 if cycle_ns != 0 else 0
    store(s.control, CLOSED, last)
    return rebuilds
