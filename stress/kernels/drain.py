"""The collector's side of the rings: copy out what is complete, then give the space back."""

from __future__ import annotations

from typing import Any

from stress.shm.atomics import load, store
from stress.shm.jit import entry
from stress.shm.layout import (
    Machine,
)
from stress.shm.words import (
    CYCLE_RING,
    CYCLE_WORDS,
    EVENT_HEAD,
    EVENT_RING,
    EVENT_TAIL,
    EVENT_WORDS,
    K_DONE,
    R_DONE,
    RECORD_RING,
    RECORD_WORDS,
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


@entry
def copy_record(s: Machine, number: int, out: Any) -> bool:
    """Copy the record of rebuild ``number`` to ``out`` (int64, (RECORD_WORDS,)); False if it is not complete."""
    row = number & (RECORD_RING - 1)
    if load(s.records, (row, R_DONE)) != number:
        return False
    for word in range(RECORD_WORDS):
        out[word] = load(s.records, (row, word))
    return load(s.records, (row, R_DONE)) == number


@entry
def copy_cycle(s: Machine, number: int, out: Any) -> bool:
    """Copy cycle ``number`` to ``out`` (int64, (CYCLE_WORDS,)); False if it is not complete, or overwritten."""
    row = number & (CYCLE_RING - 1)
    if load(s.cycles, (row, K_DONE)) != number:
        return False
    for word in range(CYCLE_WORDS):
        out[word] = load(s.cycles, (row, word))
    return load(s.cycles, (row, K_DONE)) == number
