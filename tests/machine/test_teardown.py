"""Detached tables: visited and freed at once, or queued until every walk that may be in them has ended."""

from __future__ import annotations

import threading
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from guests import faults, running, wait_until
from machines import (
    ALL,
    SHAPES,
    assert_sound,
    block_gfn,
    fault,
    naive_audit,
    run_audit,
    small_machine,
    split_block,
    violations,
)
from processes import WORKERS, run_workers, shared_machine

from stress.arch.descriptors import POISON
from stress.arch.geometry import GIB, KIB, Geometry
from stress.bugs import ROOT_TABLE_KEPT
from stress.config import RunConfig
from stress.kernels.codes import POPULATION, RETRY, STOPPED
from stress.kernels.descriptor import next_page, table_descriptor
from stress.kernels.entries import find
from stress.kernels.grace import begin_walk, end_walk, grace_clock
from stress.kernels.pool import allocate_table, put_page
from stress.kernels.split import DONE, populate
from stress.kernels.teardown import defer, reap, unmap_table
from stress.live.hypervisor import Hypervisor, Stopped
from stress.live.planning import plan_for
from stress.shm.accounts import HEARTBEAT, INSIDE, LIFE_CYCLE, T_FREED
from stress.shm.atomics import fetch_add, load
from stress.shm.jit import entry
from stress.shm.layout import Machine, Rings
from stress.shm.mode import JIT_DISABLED
from stress.shm.syscalls import sched_yield
from stress.shm.words import DEFERRED_HEAD, DEFERRED_TAIL, FREE, POOL_HEAD, POOL_LOCK, POOL_TAIL, STOP, STOP_ABORT

DEFERRED_ROWS = Rings().deferred_rows


def detached(s: Machine, block: int, share: int) -> int:
    """Split a block, then take its table out of the tree, as a rebuild does; its page."""
    assert split_block(s, block, share) == DONE
    index, level = find(s, block_gfn(s.geo, block), s.geo.block_level)
    assert level == s.geo.block_level
    page = int(next_page(s.geo, s.tables[index]))
    s.tables[index] = 0
    put_page(s, index >> s.geo.index_bits)
    return page


def poisoned(s: Machine, page: int) -> bool:
    bits = s.geo.index_bits
    return bool((s.tables[page << bits : (page + 1) << bits] == POISON).all())


@pytest.mark.parametrize(("granule", "block_size"), SHAPES)
@pytest.mark.parametrize("share", [0, 1, ALL // 3, ALL])
def test_a_detached_tree_is_freed_down_to_its_last_table(granule: int, block_size: int, share: int) -> None:
    s = small_machine(granule, block_size)
    assert fault(s, block_gfn(s.geo, 0)) == POPULATION
    before = run_audit(s)
    page = detached(s, 1, share)
    below = Geometry(granule).tables_below(s.geo.block_level)
    assert (s.page_level != FREE).sum() == before + below
    assert unmap_table(s, page, s.geo.block_level + 1, block_gfn(s.geo, 1), 0) == below
    assert poisoned(s, page)
    assert len(assert_sound(s).tables) == before


def test_a_tree_with_holes() -> None:
    """A gigabyte of which faults have mapped a few pages: few of its tables exist."""
    s = small_machine(4 * KIB, GIB, blocks=1)
    root = allocate_table(s, 2, 0)
    index, _ = find(s, s.geo.base_gfn, 1)
    s.tables[index] = table_descriptor(s.geo, root)
    s.page_count[0] += 1
    for page in (0, 1, 77 * 512, 511 * 512 + 511):
        assert fault(s, s.geo.base_gfn + page) == POPULATION
    assert len(assert_sound(s).tables) == s.geo.root_pages + 1 + 3
    s.tables[index] = 0
    s.page_count[0] -= 1
    assert unmap_table(s, root, 2, s.geo.base_gfn, 0) == 1 + 3
    assert assert_sound(s).leaves == []


def test_a_table_with_a_reference_too_many_stays() -> None:
    """And shows as a leak: that is what ``leak on update`` leads to."""
    s = small_machine()
    page = detached(s, 0, ALL)
    s.page_count[page] += 1
    assert unmap_table(s, page, 3, s.geo.base_gfn, 0) == 0
    assert not poisoned(s, page)
    run_audit(s)
    assert violations(s) == {"table-leak": 1}


@pytest.mark.parametrize(
    "block_size", [2 << 20, pytest.param(GIB, marks=pytest.mark.skipif(JIT_DISABLED, reason="slow"))]
)
def test_the_bug_of_v6_2_keeps_the_root_of_each_tree(block_size: int) -> None:
    s = small_machine(4 * KIB, block_size, inject=ROOT_TABLE_KEPT)
    page = detached(s, 0, ALL)
    below = Geometry(4 * KIB).tables_below(s.geo.block_level)
    assert unmap_table(s, page, s.geo.block_level + 1, s.geo.base_gfn, 0) == below - 1
    assert not poisoned(s, page)
    run_audit(s)
    assert violations(s) == {"table-leak": 1}


# Deferred.


def queued(s: Machine) -> int:
    return int(s.control[DEFERRED_TAIL] - s.control[DEFERRED_HEAD])


def test_what_is_queued_is_freed_by_the_next_reap_and_charged_to_its_order() -> None:
    s = small_machine(blocks=3, orders=2)
    pages = [detached(s, block, ALL // 3) for block in range(3)]
    for block, order in ((0, 1), (1, 0), (2, 1)):
        assert defer(s, pages[block], 3, block_gfn(s.geo, block), order, 0, 0)
    assert queued(s) == 3
    assert not any(poisoned(s, page) for page in pages), "a walker may still read them"
    assert s.control[POOL_LOCK] == 0
    assert reap(s, s.geo.hypervisor) == 3
    assert queued(s) == 0
    assert all(poisoned(s, page) for page in pages)
    assert list(s.totals[:, T_FREED]) == [1, 2]
    assert s.life[LIFE_CYCLE.index("tables_deferred")] == 3
    assert_sound(s)


def test_nothing_to_reap() -> None:
    """And no grace period is waited for: a process in a section does not hold it up."""
    s = small_machine()
    begin_walk(s, 0)
    assert reap(s, s.geo.hypervisor) == 0
    assert s.life[LIFE_CYCLE.index("tables_deferred")] == 0


def test_a_full_queue_says_so_and_wraps_round() -> None:
    s = small_machine()
    s.control[DEFERRED_HEAD] = s.control[DEFERRED_TAIL] = 3 * DEFERRED_ROWS - 2
    pages = [detached(s, 0, 0), detached(s, 1, 0)]
    for page in pages:
        assert defer(s, page, 3, 0, 0, 0, 0)
    s.control[DEFERRED_TAIL] += DEFERRED_ROWS - 3
    assert defer(s, 99, 3, 0, 0, 0, 0), "the last place"
    before = s.deferred.copy()
    assert not defer(s, 100, 3, 0, 0, 0, 0)
    assert (s.deferred == before).all(), "nothing that waits is overwritten"
    assert queued(s) == DEFERRED_ROWS
    assert s.control[POOL_LOCK] == 0
    s.control[DEFERRED_TAIL] -= DEFERRED_ROWS - 2
    assert reap(s, s.geo.hypervisor) == 2
    assert naive_audit(s) == []


@pytest.mark.parametrize("aborted", [False, True])
def test_reaping_waits_for_the_walks_under_way(aborted: bool) -> None:
    s = small_machine(vcpus=2)
    reap(s, 2)  # compiled
    page = detached(s, 0, ALL)
    begin_walk(s, 1)
    assert defer(s, page, 3, s.geo.base_gfn, 0, 0, 0)
    reaped: list[int] = []
    thread = threading.Thread(target=lambda: reaped.append(int(reap(s, 2))), daemon=True)
    thread.start()
    try:
        thread.join(0.1)
        assert reaped == []
        assert not poisoned(s, page)
        if aborted:
            s.control[STOP] = STOP_ABORT  # the walker may be dead
        else:
            end_walk(s, 1)
        wait_until(lambda: reaped)
    finally:
        s.control[STOP] = STOP_ABORT
        thread.join()
    assert reaped == [0 if aborted else 1]
    assert poisoned(s, page) is not aborted, "who is in it may still look at it, and it is no violation"


def test_what_is_queued_while_reaping_waits_for_the_next() -> None:
    """Its grace period may begin only now."""
    s = small_machine(vcpus=2)
    reap(s, 2)  # compiled
    first, second = detached(s, 0, ALL), detached(s, 1, ALL)
    defer(s, first, 3, 0, 0, 0, 0)
    begin_walk(s, 1)
    reaped: list[int] = []
    thread = threading.Thread(target=lambda: reaped.append(int(reap(s, 2))), daemon=True)
    thread.start()
    try:
        thread.join(0.1)
        assert defer(s, second, 3, 0, 0, 0, 0)
        end_walk(s, 1)
        wait_until(lambda: reaped)
    finally:
        s.control[STOP] = STOP_ABORT
        thread.join()
    assert reaped == [1]
    assert (poisoned(s, first), poisoned(s, second)) == (True, False)
    assert reap(s, 2) == 1
    assert poisoned(s, second)


def test_the_hypervisor_frees_what_its_own_split_waits_for() -> None:
    """The pool is dry, but for a table that waits for a grace period: nobody else would end that."""
    s = small_machine(lockless=True)
    hypervisor = Hypervisor(s, replace(plan_for(RunConfig(vcpus=1)), geo=s.geo))
    page = detached(s, 0, ALL)
    assert populate(s, 1, block_gfn(s.geo, 1)) == DONE
    assert defer(s, page, 3, s.geo.base_gfn, 0, grace_clock(s), 0)
    taken = int(s.control[POOL_TAIL] - s.control[POOL_HEAD])
    s.control[POOL_HEAD] += taken  # as if in use elsewhere
    assert hypervisor.allocate(partial(split_block, s, 1)) == DONE
    assert queued(s) == 0
    assert violations(s) == {}


def test_a_run_that_stops_while_the_pool_is_dry() -> None:
    """The tables that others are about to free never come: a vCPU and the hypervisor that need one end all the same."""
    s = small_machine(lockless=True)
    hypervisor = Hypervisor(s, replace(plan_for(RunConfig(vcpus=1)), geo=s.geo))
    s.control[POOL_HEAD] = s.control[POOL_TAIL]
    s.tally[INSIDE] = 1
    stopped: list[Stopped] = []

    def allocate() -> None:
        try:
            hypervisor.allocate(partial(split_block, s, 1, 0))
        except Stopped as stop:
            stopped.append(stop)

    thread = threading.Thread(target=allocate)
    thread.start()
    with running(s, 1 << 40) as ended:
        wait_until(lambda: faults(s).get(RETRY, 0) > 10 and s.states[hypervisor.who, HEARTBEAT] > 3)
        s.control[STOP] = STOP_ABORT
    thread.join()
    assert (ended, len(stopped)) == ([STOPPED], 1)
    assert violations(s) == {}


# Real concurrency: several rebuilders queue, one process frees.

# Words of "stages", which nothing here uses otherwise.
READY, QUEUED, REAPED, REFUSED = ((row, 0) for row in range(4))
TURNS = 40 if JIT_DISABLED else 4000


def _queue(s: Machine, who: int, turns: int) -> None:
    """Detach tables, and queue them; or free what there is no room for."""
    for _ in range(turns):
        page = allocate_table(s, 3, who)
        while page < 0:
            sched_yield()
            page = allocate_table(s, 3, who)
        if defer(s, page, 3, 0, 0, 0, who):
            fetch_add(s.stages, QUEUED, 1)
        else:
            fetch_add(s.stages, REFUSED, 1)


def _reap_all(s: Machine, who: int, total: int) -> None:
    freed = 0
    while freed < total:
        freed += reap(s, who)
        sched_yield()
    fetch_add(s.stages, REAPED, freed)


def _take_part(s: Machine, who: int, turns: int) -> None:
    fetch_add(s.stages, READY, 1)
    while load(s.stages, READY) < WORKERS:
        sched_yield()
    if who == 0:
        _reap_them(s, who, (WORKERS - 1) * turns)
    else:
        _queue_them(s, who, turns)


_queue_them: Any = entry(_queue)
_reap_them: Any = entry(_reap_all)
take_part: Any = entry(_take_part)


def work(s: Machine, who: int) -> None:
    take_part(s, who, TURNS)


@pytest.mark.thorough
def test_no_table_is_lost_between_those_who_queue_and_the_one_who_frees() -> None:
    with shared_machine() as segment:
        s = segment.machine
        run_workers(segment, work)
        total = (WORKERS - 1) * TURNS
        assert (s.stages[QUEUED], s.stages[REAPED], s.stages[REFUSED]) == (total, total, 0)
        assert s.totals[0, T_FREED] == total > s.geo.table_pages
        assert queued(s) == 0
        assert violations(s) == {}
        assert naive_audit(s) == []
