"""The event rings: in order, wrapping round, and when one is full the event is dropped and counted."""

from __future__ import annotations

from collections import deque

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from machines import small_machine

from stress.shm.accounts import EVENT_DROPPED, EVENT_HEAD, EVENT_LOGGED, EVENT_TAIL, EVENT_WORDS
from stress.shm.drain import drain_events
from stress.shm.events import log_fault
from stress.shm.layout import Machine, Rings

EVENT_ROWS = Rings().event_rows


def log(s: Machine, vcpu: int, n: int) -> bool:
    return bool(log_fault(s, vcpu, n, n + 1, n + 2, n + 3, n + 4, n + 5, n + 6))


def drain(s: Machine, vcpu: int, at_most: int) -> list[int]:
    """First words of the events drained; the other words follow from them."""
    out = np.zeros((at_most, EVENT_WORDS), np.int64)
    rows = out[: drain_events(s, vcpu, out)]
    assert (rows[:, :7] == rows[:, :1] + np.arange(7)).all(), "an event is kept as a whole"
    return [int(row[0]) for row in rows]


def at(s: Machine, vcpu: int, head: int, waiting: int) -> None:
    """Pretend that ``head`` events were logged and all but the last ``waiting`` drained."""
    s.event_index[vcpu, EVENT_LOGGED] = s.event_index[vcpu, EVENT_HEAD] = head
    s.event_index[vcpu, EVENT_TAIL] = head - waiting


def test_logged_in_order_and_drained_once() -> None:
    s = small_machine(vcpus=2)
    for n in range(5):
        assert log(s, 1, 100 * n)
    assert drain(s, 0, 8) == []
    assert drain(s, 1, 3) == [0, 100, 200]
    assert drain(s, 1, 8) == [300, 400]
    assert drain(s, 1, 8) == []


def test_the_ring_wraps_round() -> None:
    s = small_machine()
    at(s, 0, 3 * EVENT_ROWS - 2, 0)
    for n in range(5):
        assert log(s, 0, n)
    assert s.events[0, EVENT_ROWS - 1, 0] == 1
    assert s.events[0, 0, 0] == 2
    assert drain(s, 0, 8) == [0, 1, 2, 3, 4]


def test_a_full_ring_drops_and_counts() -> None:
    s = small_machine()
    at(s, 0, EVENT_ROWS - 1, EVENT_ROWS - 1)
    assert log(s, 0, 7), "the last free row"
    oldest = s.events[0, 0].copy()
    assert not log(s, 0, 8)
    assert not log(s, 0, 9)
    assert (s.events[0, 0] == oldest).all(), "what waits is not overwritten"
    index = s.event_index[0]
    assert (index[EVENT_HEAD], index[EVENT_DROPPED], index[EVENT_LOGGED]) == (
        EVENT_ROWS,
        2,
        EVENT_ROWS + 2,
    )
    out = np.zeros((1, EVENT_WORDS), np.int64)
    assert drain_events(s, 0, out) == 1
    assert log(s, 0, 10), "a row is free again"
    assert s.events[0, 0, 0] == 10


MACHINE = small_machine()


@given(
    head=st.integers(EVENT_ROWS, 1 << 40),
    room=st.integers(0, 6),
    actions=st.lists(
        st.one_of(st.tuples(st.just("log"), st.integers(1, 5)), st.tuples(st.just("drain"), st.integers(0, 5)))
    ),
)
def test_nothing_is_lost_silently(head: int, room: int, actions: list[tuple[str, int]]) -> None:
    """Against a queue of bounded length, from any point of the ring on, nearly full."""
    s = MACHINE
    s.event_index[0] = 0
    at(s, 0, head, EVENT_ROWS - room)
    s.events[0] = np.arange(EVENT_WORDS)  # what waits already: events number 0
    queue = deque([0] * (EVENT_ROWS - room))
    dropped, logged, number = 0, head, 0
    for action, count in actions:
        if action == "log":
            for _ in range(count):
                number += 10
                logged += 1
                fits = len(queue) < EVENT_ROWS
                assert log(s, 0, number) == fits
                if fits:
                    queue.append(number)
                else:
                    dropped += 1
        else:
            expected = [queue.popleft() for _ in range(min(count, len(queue)))]
            assert drain(s, 0, count) == expected
    index = s.event_index[0]
    assert index[EVENT_DROPPED] == dropped
    assert index[EVENT_LOGGED] == logged
    assert index[EVENT_HEAD] == logged - dropped
    assert index[EVENT_HEAD] - index[EVENT_TAIL] == len(queue)
