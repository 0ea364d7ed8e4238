"""The pool of table pages against a queue and a set, and its reference counts."""

from __future__ import annotations

from collections import deque
from threading import Thread
from typing import Any

import numpy as np
import pytest
from guests import wait_until
from hypothesis import given
from hypothesis import strategies as st
from machines import evidence, naive_audit, small_machine, violations
from processes import WORKERS, run_workers, shared_machine

from stress.arch.descriptors import POISON
from stress.kernels.codes import POOL_DRY, POOL_EXHAUSTED, POOL_RAN_DRY
from stress.kernels.pool import allocate_table, free_table, get_page, lock_pool, put_page, unlock_pool
from stress.shm.accounts import INSIDE, POOL_PEAK, VIOLATIONS, Kind
from stress.shm.atomics import fetch_add, load
from stress.shm.jit import entry
from stress.shm.layout import Machine
from stress.shm.mode import JIT_DISABLED
from stress.shm.syscalls import sched_yield
from stress.shm.words import DEFERRED_TAIL, FREE, POOL_LOCK, STOP, STOP_ABORT, STOP_DONE


def words(s: Machine, page: int) -> set[int]:
    """Different words of a table page."""
    entries = 1 << s.geo.index_bits
    return set(map(int, s.tables[page * entries : (page + 1) * entries]))


class NaivePool:
    """Free pages in the order in which they became free, and the ones in use."""

    def __init__(self, s: Machine) -> None:
        self.free = deque(range(s.geo.root_pages, s.geo.table_pages))
        self.used: dict[int, int] = {}  # page -> level
        self.peak = s.geo.root_pages
        self._roots = s.geo.root_pages

    def allocate(self, level: int) -> int:
        if not self.free:
            return -1
        page = self.free.popleft()
        self.used[page] = level
        self.peak = max(self.peak, self._roots + len(self.used))
        return page

    def release(self, page: int) -> None:
        del self.used[page]
        self.free.append(page)


@given(st.lists(st.one_of(st.integers(1, 3), st.just(None)), max_size=40), st.randoms(use_true_random=False))
def test_against_a_queue(actions: list[int | None], random: object) -> None:
    """An integer allocates for that level; None frees some page in use."""
    s = small_machine(blocks=6)
    twin = NaivePool(s)
    for action in actions:
        if action is not None:
            page = allocate_table(s, action, 0)
            assert page == twin.allocate(action)
            if page >= 0:
                assert words(s, page) == {0}
                assert (s.page_count[page], s.page_level[page]) == (1, action)
        elif twin.used:
            page = random.choice(sorted(twin.used))  # type: ignore[attr-defined]
            s.tables[(page << s.geo.index_bits) + 5] = 1
            assert free_table(s, page, 0, 0)
            twin.release(page)
            assert words(s, page) == {POISON}
    assert s.tally[POOL_PEAK] == twin.peak
    for page in range(s.geo.root_pages, s.geo.table_pages):
        assert s.page_level[page] == twin.used.get(page, FREE)
    assert violations(s) == {}


def test_a_pool_that_a_leak_emptied_is_a_violation_at_once() -> None:
    """There are tables for all of memory, so somebody forgot some: the run need not live to see its last audit."""
    s = small_machine()
    while s.tally[VIOLATIONS + Kind.TABLE_LEAK] == 0:
        assert allocate_table(s, 3, 0) >= 0 or violations(s) == {"table-leak": 1}
    piece = evidence(s, Kind.TABLE_LEAK)
    assert (piece["detail"], piece["found"], piece["rule"]) == (POOL_RAN_DRY, s.geo.table_pages, 0)
    assert allocate_table(s, 3, 0) < 0
    assert violations(s) == {"table-leak": 1}, "said once"


@pytest.mark.parametrize(("region", "waiting"), [("tally", INSIDE), ("control", DEFERRED_TAIL)])
def test_a_dry_pool_is_no_leak_while_tables_wait_to_be_freed(region: str, waiting: int) -> None:
    s = small_machine()
    getattr(s, region)[waiting] = 1
    while (page := allocate_table(s, 3, 0)) >= 0:
        pass
    assert page == POOL_DRY, "who needs one tries again"
    assert violations(s) == {}
    getattr(s, region)[waiting] = 0
    assert allocate_table(s, 3, 0) == POOL_EXHAUSTED
    assert violations(s) == {"table-leak": 1}, "nothing came back"


def test_exhausted_then_one_comes_back() -> None:
    s = small_machine(blocks=1)
    pages = [allocate_table(s, 3, 0) for _ in range(s.geo.table_pages - s.geo.root_pages)]
    assert pages == list(range(s.geo.root_pages, s.geo.table_pages))
    assert len(pages) >= 2
    assert allocate_table(s, 3, 0) == POOL_EXHAUSTED
    assert s.tally[POOL_PEAK] == s.geo.table_pages
    assert free_table(s, pages[1], 0, 0)
    assert allocate_table(s, 2, 0) == pages[1]
    assert allocate_table(s, 2, 0) == POOL_EXHAUSTED
    assert s.control[POOL_LOCK] == 0


def test_the_ring_wraps_round_and_stays_whole() -> None:
    s = small_machine(blocks=2)
    for _ in range(3 * s.geo.table_pages):
        assert free_table(s, allocate_table(s, 3, 0), 0, 0)
    assert naive_audit(s) == []


def test_a_referenced_page_is_not_freed() -> None:
    s = small_machine()
    page = allocate_table(s, 3, 0)
    get_page(s, page)
    assert s.page_count[page] == 2
    assert not free_table(s, page, 0, 0)
    assert s.page_level[page] == 3
    assert words(s, page) == {0}
    assert s.page_count[page] == 1, "its own reference is gone"
    assert put_page(s, page) == 0


def test_counts_go_up_and_down() -> None:
    s = small_machine()
    page = allocate_table(s, 3, 0)
    get_page(s, page)
    get_page(s, page)
    assert [put_page(s, page) for _ in range(3)] == [2, 1, 0]


@pytest.mark.parametrize("times", [1, 2])
def test_freed_twice(times: int) -> None:
    s = small_machine()
    page = allocate_table(s, 3, 0)
    assert free_table(s, page, 77, 1)
    for _ in range(times):
        assert not free_table(s, page, 77, 1)
    assert violations(s) == {"double-free": times}
    piece = evidence(s, Kind.DOUBLE_FREE)
    assert (piece["who"], piece["gfn"], piece["found"]) == (1, 77, page)
    assert naive_audit(s) == [], "and it went into the ring once"


# The pool's own lock: under a shared mmu_lock, and after it, pages come and go in several processes at once.


@pytest.mark.parametrize("who", [0, 3])
def test_the_lock_names_its_owner(who: int) -> None:
    s = small_machine(vcpus=3)
    lock_pool(s, who)
    assert s.control[POOL_LOCK] == who + 1
    unlock_pool(s)
    assert s.control[POOL_LOCK] == 0


def test_who_needs_a_page_waits_for_the_lock() -> None:
    s = small_machine(vcpus=2)
    allocate_table(s, 3, 0)  # compiled
    lock_pool(s, 0)
    pages: list[int] = []
    thread = Thread(target=lambda: pages.append(int(allocate_table(s, 3, 1))), daemon=True)
    thread.start()
    s.control[STOP] = STOP_DONE  # an orderly end is no reason to leave an account half made
    thread.join(0.2)
    assert pages == []
    unlock_pool(s)
    wait_until(lambda: pages)
    assert pages[0] > 0
    assert s.control[POOL_LOCK] == 0


def test_nobody_waits_for_a_dead_owner_once_the_run_is_cut_short() -> None:
    s = small_machine(vcpus=2)
    lock_pool(s, 0)
    s.control[STOP] = STOP_ABORT
    assert allocate_table(s, 3, 1) > 0


# Words of "stages", which nothing here uses otherwise.
READY, OWNED_TWICE, DRY = ((row, 0) for row in range(3))
ROUNDS, MOST_ROUNDS = (20, 600) if JIT_DISABLED else (500, 200_000)
AT_ONCE = 12


def _take_and_give(s: Machine, who: int, rounds: int, most: int, pages: Any) -> None:
    """Take as many pages as fit ``pages``, mark each as ours, see whether all still are, give them back.

    So many rounds, or more until the pool has run dry: then the processes have met.
    """
    fetch_add(s.stages, READY, 1)
    while load(s.stages, READY) < WORKERS:
        sched_yield()
    for n in range(most):
        if n >= rounds and load(s.stages, DRY) > 0:
            break
        for i in range(len(pages)):
            pages[i] = allocate_table(s, 3, who)
            if pages[i] >= 0:
                s.tables[(pages[i] << s.geo.index_bits) + 7] = who + 1
            else:
                fetch_add(s.stages, DRY, 1)
        for i in range(len(pages)):
            if pages[i] >= 0:
                if s.tables[(pages[i] << s.geo.index_bits) + 7] != who + 1 or s.page_count[pages[i]] != 1:
                    fetch_add(s.stages, OWNED_TWICE, 1)
                free_table(s, pages[i], 0, who)


take_and_give: Any = entry(_take_and_give)


def work(s: Machine, who: int) -> None:
    take_and_give(s, who, ROUNDS, MOST_ROUNDS, np.zeros(AT_ONCE, np.int64))


@pytest.mark.thorough
def test_four_processes_share_the_pool() -> None:
    """More pages are wanted than there are: each has one owner, and none is lost."""
    with shared_machine() as segment:
        s = segment.machine
        s.tally[INSIDE] = 1  # else a pool that is drained on purpose is a leak
        assert AT_ONCE < s.geo.table_pages - s.geo.root_pages < 2 * AT_ONCE
        run_workers(segment, work)
        assert s.stages[READY] == WORKERS
        assert s.stages[OWNED_TWICE] == 0
        assert s.stages[DRY] > 0, "the pool ran dry: they met"
        assert violations(s) == {}
        assert naive_audit(s) == []
        assert s.control[POOL_LOCK] == 0
        assert s.tally[POOL_PEAK] == s.geo.table_pages
