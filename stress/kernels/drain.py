"""The collector's side of the rings: copy out what is complete, then give the space back."""

from __future__ import annotations

from typing import Any

from stress.shm.atomics import load, store
from stress.shm.jit import entry, kernel
from stress.shm.layout import (
    Machine,
)
from stress.shm.words import (
    CYCLE_RING,
    EVENT_HEAD,
    EVENT_RING,
    EVENT_TAIL,
    EVENT_WORDS,
    K_DONE,
    R_DONE,
    RECORD_RING,
)


@entry
def drain_events(s: Machine, vcpu: int, out: Any) -> int:
    """Move one vCPU's fault events to ``out`` (int64, (n, EVENT_WORDS)); how many, at most n."""
    head = load(s.event_index, (vcpu, EVENT_HEAD))
    tail = load(s.event_index, (vcpu, EVENT_TAIL))
    count = min(head - tail, out.shape[0])
    for i in range(count):
        for word in range(EVENT_WORDS):
            out[i, word] = s.events[vcpu, (tail + i) & (EVENT_RING - 1), word]
    store(s.event_index, (vcpu, EVENT_TAIL), tail + count)
    return count


@kernel
def copy_row(rows: Any, row: int, done: int, number: int, out: Any) -> bool:
    """Copy a row of a ring to ``out``; False unless ``done``, the word written last, is ``number`` before and after."""
    if load(rows, (row, done)) != number:
        return False
    for word in range(len(out)):
        out[word] = load(rows, (row, word))
    return load(rows, (row, done)) == number


@entry
def copy_record(s: Machine, number: int, out: Any) -> bool:
    """Copy the record of rebuild ``number`` to ``out`` (int64, (RECORD_WORDS,)); False if it is not complete."""
    return copy_row(s.records, number & (RECORD_RING - 1), R_DONE, number, out)


@entry
def copy_cycle(s: Machine, number: int, out: Any) -> bool:
    """Copy cycle ``number`` to ``out`` (int64, (CYCLE_WORDS,)); False if it is not complete, or overwritten."""
    return copy_row(s.cycles, number & (CYCLE_RING - 1), K_DONE, number, out)
