"""mmu_lock: it names its owner, or counts its readers, lets writers pass, and gives up when the run stops."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from guests import wait_until
from machines import small_machine
from processes import WORKERS, run_workers, shared_machine

from stress.shm.accounts import STATE, State
from stress.shm.atomics import fetch_add, load
from stress.shm.jit import entry
from stress.shm.layout import Machine
from stress.shm.mmu_lock import acquire, acquire_shared, release
from stress.shm.mode import JIT_DISABLED
from stress.shm.syscalls import sched_yield
from stress.shm.words import LOCK, LOCK_WRITERS, STOP, STOP_ABORT

GUEST = int(State.GUEST)


def test_it_names_its_owner() -> None:
    s = small_machine(vcpus=3)
    for who in range(4):
        assert acquire(s, who)
        assert s.control[LOCK] == who + 1
        assert s.states[who, STATE] == State.LOCK_HELD
        release(s, who, int(State.DWELL))
        assert s.control[LOCK] == 0
        assert s.states[who, STATE] == State.DWELL


def test_a_waiter_gives_up_when_the_run_stops() -> None:
    s = small_machine(vcpus=2)
    assert acquire(s, 0)
    s.control[STOP] = STOP_ABORT
    assert not acquire(s, 1)
    assert s.control[LOCK] == 1, "still held by its owner"
    assert s.states[1, STATE] == State.LOCK_WAIT
    assert s.states[0, STATE] == State.LOCK_HELD
    assert not acquire_shared(s, 2)
    assert s.control[LOCK] == 1
    assert s.states[2, STATE] == State.LOCK_WAIT
    assert s.control[LOCK_WRITERS] == 0, "who gave up keeps nobody out"


# Held for reading.


def test_readers_share_it() -> None:
    s = small_machine(vcpus=3)
    for who in range(3):
        assert acquire_shared(s, who)
        assert s.control[LOCK] == -1 - who
        assert s.states[who, STATE] == State.LOCK_HELD
    for who, left in ((1, -2), (0, -1), (2, 0)):
        release(s, who, GUEST)
        assert s.control[LOCK] == left
        assert s.states[who, STATE] == State.GUEST
    assert acquire(s, 3)
    assert s.control[LOCK] == 4


@contextmanager
def waiting(s: Machine, who: int, *, shared: bool) -> Iterator[list[bool]]:
    """A process that asks for the lock in a thread; the list has its answer once there is one."""
    other = small_machine()
    assert acquire(other, 0)  # compiled
    release(other, 0, GUEST)
    assert acquire_shared(other, 0)
    answer: list[bool] = []
    take: Any = acquire_shared if shared else acquire
    thread = threading.Thread(target=lambda: answer.append(bool(take(s, who))), daemon=True)
    thread.start()
    wait_until(lambda: answer or s.states[who, STATE] == State.LOCK_WAIT)
    try:
        yield answer
    finally:
        if not answer:
            s.control[STOP] = STOP_ABORT
        thread.join()


def stays_empty(answer: list[bool]) -> bool:
    threading.Event().wait(0.05)
    return answer == []


def test_a_writer_waits_for_every_reader() -> None:
    s = small_machine(vcpus=3)
    assert acquire_shared(s, 0)
    assert acquire_shared(s, 1)
    with waiting(s, 3, shared=False) as answer:
        assert stays_empty(answer)
        release(s, 0, GUEST)
        assert stays_empty(answer)
        release(s, 1, GUEST)
        wait_until(lambda: answer)
    assert answer == [True]
    assert s.control[LOCK] == 4
    assert s.control[LOCK_WRITERS] == 0


def test_a_reader_waits_for_a_writer() -> None:
    s = small_machine(vcpus=3)
    assert acquire(s, 3)
    with waiting(s, 0, shared=True) as answer:
        assert stays_empty(answer)
        assert s.control[LOCK] == 4
        release(s, 3, GUEST)
        wait_until(lambda: answer)
    assert answer == [True]
    assert s.control[LOCK] == -1


def test_readers_let_a_waiting_writer_pass() -> None:
    """Else many vCPUs, of which always one holds it, would keep the hypervisor out for ever."""
    s = small_machine(vcpus=3)
    assert acquire_shared(s, 0)
    with waiting(s, 3, shared=False) as writer:
        assert stays_empty(writer)
        assert s.control[LOCK_WRITERS] == 1
        with waiting(s, 1, shared=True) as reader:
            assert stays_empty(reader), "it could share it, and does not"
            assert s.control[LOCK] == -1
            release(s, 0, GUEST)
            wait_until(lambda: writer)
            assert stays_empty(reader)
            assert s.control[LOCK] == 4
            release(s, 3, GUEST)
            wait_until(lambda: reader)
    assert (writer, reader) == ([True], [True])
    assert s.control[LOCK] == -1
    assert s.control[LOCK_WRITERS] == 0


@pytest.mark.parametrize("shared", [False, True])
def test_the_end_of_the_run_reaches_who_waits(shared: bool) -> None:
    s = small_machine(vcpus=3)
    assert acquire(s, 0)
    with waiting(s, 1, shared=shared) as answer:
        assert stays_empty(answer)
        s.control[STOP] = STOP_ABORT
        wait_until(lambda: answer)
    assert answer == [False]
    assert s.control[LOCK] == 1
    assert s.control[LOCK_WRITERS] == 0


# Real processes. Words of "stages", which nothing here uses otherwise.

READY, GUARDED, INSIDE, INTRUSIONS, READERS, MET, DONE = ((row, 0) for row in range(7))
TURNS = 100 if JIT_DISABLED else 50_000


def _await_all(s: Machine) -> None:
    fetch_add(s.stages, READY, 1)
    while load(s.stages, READY) < WORKERS:
        sched_yield()


_await_everybody: Any = entry(_await_all)


def _take_turns(s: Machine, who: int, turns: int) -> None:
    _await_everybody(s)
    for _ in range(turns):
        acquire(s, who)
        if s.stages[INSIDE] != 0 or load(s.control, LOCK) != who + 1:
            s.stages[INTRUSIONS] += 1
        s.stages[INSIDE] = who + 1
        s.stages[GUARDED] += 1  # an ordinary addition: only the lock makes it exact
        if s.stages[INSIDE] != who + 1:
            s.stages[INTRUSIONS] += 1
        s.stages[INSIDE] = 0
        release(s, who, GUEST)


take_turns: Any = entry(_take_turns)


def work(s: Machine, who: int) -> None:
    take_turns(s, who, TURNS)


@pytest.mark.thorough
def test_four_processes_exclude_each_other() -> None:
    with shared_machine() as segment:
        s = segment.machine
        run_workers(segment, work)
        assert s.stages[READY] == WORKERS
        assert s.stages[GUARDED] == WORKERS * TURNS
        assert s.stages[INTRUSIONS] == 0
        assert s.control[LOCK] == 0
        assert (s.states[:WORKERS, STATE] == State.GUEST).all()


def _read(s: Machine, who: int) -> None:
    """Hold it for reading nearly always, until the writer is done."""
    while load(s.stages, DONE) == 0:
        acquire_shared(s, who)
        if fetch_add(s.stages, READERS, 1) > 0:
            fetch_add(s.stages, MET, 1)
        if load(s.stages, INSIDE) != 0 or load(s.control, LOCK) >= 0:
            fetch_add(s.stages, INTRUSIONS, 1)
        sched_yield()
        if load(s.stages, INSIDE) != 0:
            fetch_add(s.stages, INTRUSIONS, 1)
        fetch_add(s.stages, READERS, -1)
        release(s, who, GUEST)


def _write(s: Machine, who: int, turns: int) -> None:
    for _ in range(turns):
        acquire(s, who)
        s.stages[INSIDE] = who + 1
        if load(s.stages, READERS) != 0 or load(s.control, LOCK) != who + 1:
            fetch_add(s.stages, INTRUSIONS, 1)
        sched_yield()
        s.stages[GUARDED] += 1
        s.stages[INSIDE] = 0
        release(s, who, GUEST)
        met = load(s.stages, MET)
        for _ in range(100):  # let the readers come together
            if load(s.stages, MET) != met:
                break
            sched_yield()
    fetch_add(s.stages, DONE, 1)


_read_on: Any = entry(_read)
_write_on: Any = entry(_write)
WRITES = 50 if JIT_DISABLED else 1000


def read_or_write(s: Machine, who: int) -> None:
    _await_everybody(s)
    if who == 0:
        _write_on(s, who, WRITES)
    else:
        _read_on(s, who)


@pytest.mark.thorough
def test_a_writer_gets_its_turns_among_readers_who_never_stop() -> None:
    with shared_machine() as segment:
        s = segment.machine
        run_workers(segment, read_or_write)
        assert s.stages[GUARDED] == WRITES
        assert s.stages[INTRUSIONS] == 0
        assert s.stages[MET] > 0, "readers were inside together"
        assert s.control[LOCK] == 0
        assert s.control[LOCK_WRITERS] == 0
