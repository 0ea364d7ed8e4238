"""Grace periods: whoever frees a table waits for every walk that may still be in it, and for no other."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from guests import wait_until
from machines import rebuild_block, small_machine, split_block, violations
from processes import WORKERS, run_workers, shared_machine

from stress.arch.descriptors import POISON
from stress.kernels.codes import STOPPED
from stress.kernels.descriptor import is_table, table_descriptor
from stress.kernels.grace import begin_walk, end_walk, grace, grace_clock, judge_free, synchronize
from stress.kernels.pool import allocate_table, free_table
from stress.orders import CLEAN_FIRST_UNLOCKED
from stress.shm.atomics import fetch_add, load, store
from stress.shm.jit import entry
from stress.shm.layout import Machine
from stress.shm.mode import JIT_DISABLED
from stress.shm.syscalls import sched_yield
from stress.shm.words import FREE, GRACE_BEGUN, GRACE_DONE, STOP, STOP_ABORT, STOP_DONE, WALKING


def walking(s: Machine) -> list[bool]:
    """Whether each process is in a read-side section."""
    return [bool(count & 1) for count in s.procs[:, WALKING]]


def test_sections_are_entered_and_left() -> None:
    s = small_machine(vcpus=2)
    assert walking(s) == [False] * 3
    begin_walk(s, 1)
    assert walking(s) == [False, True, False]
    begin_walk(s, 2)
    end_walk(s, 1)
    assert walking(s) == [False, False, True]
    end_walk(s, 1)
    assert walking(s) == [False, False, True], "leaving twice changes nothing"
    end_walk(s, 2)
    assert walking(s) == [False] * 3


def test_each_section_has_its_own_count() -> None:
    """So that one which began later is not waited for."""
    s = small_machine()
    counts = set()
    for _ in range(5):
        begin_walk(s, 0)
        counts.add(int(s.procs[0, WALKING]))
        end_walk(s, 0)
    assert len(counts) == 5


@contextmanager
def synchronizing(s: Machine, who: int) -> Iterator[list[bool]]:
    """A process that waits for a grace period in a thread; the list has something in it once it is over."""
    synchronize(small_machine(), 0)  # compiled
    over: list[bool] = []

    def wait() -> None:
        synchronize(s, who)
        over.append(True)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    try:
        yield over
        wait_until(lambda: over)
    finally:
        s.control[STOP] = STOP_ABORT
        thread.join()


def is_still_waiting(over: list[bool]) -> bool:
    threading.Event().wait(0.05)
    return not over


def test_nobody_in_a_section_is_no_wait() -> None:
    s = small_machine(vcpus=3)
    with synchronizing(s, 3):
        pass


def test_every_section_that_runs_is_waited_for() -> None:
    s = small_machine(vcpus=3)
    for vcpu in (0, 1, 2):
        begin_walk(s, vcpu)
    with synchronizing(s, 3) as over:
        for vcpu in (1, 0, 2):
            assert is_still_waiting(over)
            end_walk(s, vcpu)


def test_a_section_that_began_later_is_not_waited_for() -> None:
    """Its walk began at the root when the table was gone already."""
    s = small_machine(vcpus=2)
    begin_walk(s, 0)
    with synchronizing(s, 2) as over:
        assert is_still_waiting(over)
        end_walk(s, 0)
        begin_walk(s, 0)
        wait_until(lambda: over)
        assert walking(s) == [True, False, False]


def test_two_that_wait_do_not_wait_for_each_other() -> None:
    """Two rebuilders in their fault handlers: each one's own section ends when it begins to wait."""
    s = small_machine(vcpus=2)
    begin_walk(s, 0)
    begin_walk(s, 1)
    with synchronizing(s, 0) as one:
        assert is_still_waiting(one)
        assert walking(s) == [False, True, False]
        with synchronizing(s, 1) as other:
            wait_until(lambda: one and other)
    assert walking(s) == [False] * 3


@pytest.mark.parametrize(("stop", "ends"), [(STOP_DONE, False), (STOP_ABORT, True)])
def test_who_has_died_in_a_section_is_not_waited_for_for_ever(stop: int, ends: bool) -> None:
    s = small_machine(vcpus=2)
    begin_walk(s, 0)
    with synchronizing(s, 2) as over:
        s.control[STOP] = stop
        if ends:
            wait_until(lambda: over)
        else:
            assert is_still_waiting(over)
            end_walk(s, 0)
    assert violations(s) == {}


# The rule at the free.


def judged(s: Machine, clock: int) -> dict[str, int]:
    judge_free(s, clock, 0, 2, 0)
    return violations(s)


@pytest.mark.parametrize("walkers", [{"lockless": True}, {"shared": True}])
def test_a_table_may_be_freed_once_a_grace_period_began_and_ended_since_it_was_detached(
    walkers: dict[str, bool],
) -> None:
    s = small_machine(vcpus=2, **walkers)
    assert synchronize(s, 2)
    clock = grace_clock(s)
    assert judged(s, clock - 1) == {}
    assert judged(s, clock) == {"table-use-after-free": 1}, "the last one was over by then"
    assert grace(s, 0), "whoever waited"
    assert judged(s, clock) == {"table-use-after-free": 1}
    assert judged(s, grace_clock(s)) == {"table-use-after-free": 2}


def test_a_grace_period_that_began_before_covers_nothing() -> None:
    """Of two that overlap the later one may end first; the earlier one's end is then no news."""
    s = small_machine(vcpus=2, lockless=True)
    begin_walk(s, 0)
    with synchronizing(s, 2) as over:
        wait_until(lambda: s.control[GRACE_BEGUN] == 1)
        clock = grace_clock(s)
        end_walk(s, 0)
        wait_until(lambda: over)
    assert judged(s, clock) == {"table-use-after-free": 1}


def test_a_grace_period_that_was_cut_short_covers_nothing_and_frees_nothing() -> None:
    """The walker may be dead, or still in the table: neither is the order's fault."""
    s = small_machine(vcpus=2, lockless=True)
    split_block(s, 0)
    used = (s.page_level != FREE).sum()
    s.control[STOP] = STOP_ABORT
    begin_walk(s, 1)
    assert not synchronize(s, 2)
    assert s.control[GRACE_DONE] == 0
    assert rebuild_block(s, 0, CLEAN_FIRST_UNLOCKED.steps) == STOPPED
    assert (s.page_level != FREE).sum() == used
    assert violations(s) == {}


def test_where_nobody_walks_without_excluding_others_no_grace_period_is_asked_for() -> None:
    s = small_machine(vcpus=2)
    assert judged(s, grace_clock(s)) == {}


# Against real concurrency: readers walk into a table that a writer replaces and frees, again and again.

# Words of "stages", which nothing here uses otherwise.
READY, DONE, WALKED, BURNT = ((row, 0) for row in range(4))
TURNS = 40 if JIT_DISABLED else 500
SLOT = 5  # the root's entry in question


def _replace(s: Machine, who: int, turns: int) -> None:
    """Link a fresh table, unlink it, wait, free it."""
    for _ in range(turns):
        page = allocate_table(s, 2, who)
        store(s.tables, SLOT, table_descriptor(s.geo, page))
        sched_yield()
        store(s.tables, SLOT, 0)
        synchronize(s, who)
        free_table(s, page, 0, who)
    store(s.stages, DONE, 1)


def _read(s: Machine, who: int) -> None:
    """Walk into the table, if there is one, and look at a word of it more than once."""
    bits = s.geo.index_bits
    while load(s.stages, DONE) == 0:
        begin_walk(s, who)
        descriptor = load(s.tables, SLOT)
        if is_table(descriptor, 1):
            page = (descriptor >> s.geo.granule_shift) - s.geo.tables_pfn
            for i in range(40):
                if load(s.tables, (page << bits) + i) == POISON:
                    fetch_add(s.stages, BURNT, 1)
            fetch_add(s.stages, WALKED, 1)
        end_walk(s, who)
        sched_yield()


def _take_part(s: Machine, who: int, turns: int) -> None:
    fetch_add(s.stages, READY, 1)
    while load(s.stages, READY) < WORKERS:
        sched_yield()
    if who == 0:
        _replace_it(s, who, turns)
    else:
        _read_it(s, who)


_replace_it: Any = entry(_replace)
_read_it: Any = entry(_read)
take_part: Any = entry(_take_part)


def work(s: Machine, who: int) -> None:
    take_part(s, who, TURNS)


@pytest.mark.thorough
def test_no_reader_ever_meets_a_freed_table() -> None:
    with shared_machine() as segment:
        s = segment.machine
        run_workers(segment, work)
        assert s.stages[READY] == WORKERS
        assert s.stages[WALKED] > 0, "they met"
        assert s.stages[BURNT] == 0
        assert violations(s) == {}
        assert not np.any(s.procs[:, WALKING] & 1)
