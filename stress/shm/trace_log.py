"""The trace of page-table changes: rows appended by everybody, in one order, until it is full or told to end.

A row's number is taken while mmu_lock is held (or, for what needs no lock, while nobody else can have the page), so the
order of the rows is one in which it all happened. No row is left out: what there is, is a prefix.
"""

from __future__ import annotations

from stress.shm.accounts import CHANGED, CHANGED_ROW, TRACE_ENDED, TRACE_NEXT
from stress.shm.atomics import fetch_add, load, store
from stress.shm.jit import inline, kernel
from stress.shm.layout import Machine
from stress.shm.placement import cold
from stress.shm.traced import W_AT, W_KIND, W_VALUE, W_WHO, Traced

_FIRST_CHANGE = int(Traced.ALLOCATE)
_LAST_CHANGE = int(Traced.BREAK)


@kernel
def append(s: Machine, kind: int, who: int, at: int, value: int) -> int:
    """Append a row, unless the trace is over; 1 + its number, or 0."""
    cold()
    row = fetch_add(s.tally, TRACE_NEXT, 1)
    if row >= s.geo.trace_rows:
        return 0
    s.trace[row, W_WHO] = who
    s.trace[row, W_AT] = at
    s.trace[row, W_VALUE] = value
    store(s.trace, (row, W_KIND), kind)
    return int(row) + 1


@inline
def trace(s: Machine, kind: int, who: int, at: int, value: int) -> None:
    """Append a row if this run is traced; traced or not, evidence will name the process's last store to the table."""
    row = append(s, kind, who, at, value) if s.geo.trace_rows != 0 else 0
    if _FIRST_CHANGE <= kind <= _LAST_CHANGE:
        s.states[who, CHANGED] = kind
        s.states[who, CHANGED_ROW] = row


@kernel
def end_trace_with(s: Machine, number: int) -> None:
    """Rebuild ``number`` is over: end the trace if it was the last one asked for."""
    if s.geo.trace_rows != 0 and number >= s.geo.trace_rebuilds and load(s.tally, TRACE_ENDED) == 0:
        # From here on every row has a number beyond the last.
        full = fetch_add(s.tally, TRACE_NEXT, s.geo.trace_rows) >= s.geo.trace_rows
        if not full:
            store(s.tally, TRACE_ENDED, 1)
