"""Fault events: one single-producer, single-consumer ring per vCPU. A full ring drops the event and counts it."""

from __future__ import annotations

from stress.shm.accounts import (
    E_CYCLE,
    E_GFN,
    E_LOCK_WAIT_NS,
    E_NUMBER,
    E_STALL_NS,
    E_TIME_NS,
    E_WHAT,
    EVENT_DROPPED,
    EVENT_HEAD,
    EVENT_LOGGED,
    EVENT_TAIL,
)
from stress.shm.atomics import load, store
from stress.shm.jit import kernel
from stress.shm.layout import (
    Machine,
)


@kernel
def log_fault(
    s: Machine,
    vcpu: int,
    time_ns: int,
    gfn: int,
    stall_ns: int,
    lock_wait_ns: int,
    number: int,
    what: int,
    cycle: int,
) -> bool:
    """Append one fault event, ``what`` being the word E_WHAT; False if dropped."""
    index = s.event_index[vcpu]
    index[EVENT_LOGGED] += 1
    head = index[EVENT_HEAD]
    if head - load(s.event_index, (vcpu, EVENT_TAIL)) >= s.geo.event_rows:
        index[EVENT_DROPPED] += 1
        return False
    row = s.events[vcpu, head & (s.geo.event_rows - 1)]
    row[E_TIME_NS] = time_ns
    row[E_GFN] = gfn
    row[E_STALL_NS] = stall_ns
    row[E_LOCK_WAIT_NS] = lock_wait_ns
    row[E_NUMBER] = number
    row[E_WHAT] = what
    row[E_CYCLE] = cycle
    store(s.event_index, (vcpu, EVENT_HEAD), head + 1)
    return True
