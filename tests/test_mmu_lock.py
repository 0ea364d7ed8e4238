"""mmu_lock: it names its owner, gives up when the run stops, and excludes real processes from each other."""

from __future__ import annotations

from typing import Any

from machines import small_machine
from processes import WORKERS, run_workers, shared_machine

from stress.shm.atomics import JIT_DISABLED, fetch_add, load
from stress.shm.jit import kernel
from stress.shm.layout import Machine
from stress.shm.mmu_lock import acquire, release
from stress.shm.syscalls import sched_yield
from stress.shm.words import CONTROL_WORDS, LOCK, STATE, STOP, STOP_ABORT, State


def test_it_names_its_owner() -> None:
    s = small_machine(vcpus=3)
    for who in range(4):
        assert acquire(s, who)
        assert s.control[LOCK] == who + 1
        assert s.procs[who, STATE] == State.LOCK_HELD
        release(s, who, int(State.DWELL))
        assert s.control[LOCK] == 0
        assert s.procs[who, STATE] == State.DWELL


def test_a_waiter_gives_up_when_the_run_stops() -> None:
    s = small_machine(vcpus=2)
    assert acquire(s, 0)
    s.control[STOP] = STOP_ABORT
    assert not acquire(s, 1)
    assert s.control[LOCK] == 1, "still held by its owner"
    assert s.procs[1, STATE] == State.LOCK_WAIT
    assert s.procs[0, STATE] == State.LOCK_HELD


READY, GUARDED, INSIDE, INTRUSIONS = (CONTROL_WORDS - 8 * n for n in range(1, 5))
TURNS = 100 if JIT_DISABLED else 50_000
GUEST = int(State.GUEST)


def _take_turns(s: Machine, who: int, turns: int) -> None:
    fetch_add(s.control, READY, 1)
    while load(s.control, READY) < WORKERS:
        sched_yield()
    for _ in range(turns):
        acquire(s, who)
        if s.control[INSIDE] != 0 or load(s.control, LOCK) != who + 1:
            s.control[INTRUSIONS] += 1
        s.control[INSIDE] = who + 1
        s.control[GUARDED] += 1  # an ordinary addition: only the lock makes it exact
        if s.control[INSIDE] != who + 1:
            s.control[INTRUSIONS] += 1
        s.control[INSIDE] = 0
        release(s, who, GUEST)


take_turns: Any = kernel(_take_turns)


def work(s: Machine, who: int) -> None:
    take_turns(s, who, TURNS)


def test_four_processes_exclude_each_other() -> None:
    with shared_machine() as segment:
        words = segment.machine.control
        run_workers(segment, work)
        assert words[READY] == WORKERS
        assert words[GUARDED] == WORKERS * TURNS
        assert words[INTRUSIONS] == 0
        assert words[LOCK] == 0
        assert (segment.machine.procs[:WORKERS, STATE] == State.GUEST).all()
