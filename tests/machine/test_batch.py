"""A batch: adjacent tables are rebuilt together, each step for all of them before the next, and one TLBI for all."""

from __future__ import annotations

from typing import Any

import pytest
from machines import (
    ALL,
    assert_sound,
    block_gfn,
    block_leaf,
    fault,
    look_under_lock,
    page_leaves,
    rebuild_block,
    run_audit,
    set_order,
    split_block,
    violations,
)

from stress.bugs import FIRST_OF_BATCH
from stress.kernels.codes import POPULATION, REBUILT
from stress.kernels.descriptor import broken
from stress.kernels.fault import handle
from stress.kernels.rebuild import DONE, NOT_A_TABLE, carry_out
from stress.kernels.records import settled
from stress.kernels.split import write_unmapped
from stress.kernels.teardown import reap
from stress.orders import BLOCK_FIRST, CLEAN_FIRST_UNLOCKED, CLEAN_UNLOCKED, NAMED_ORDERS, Order, Step, parse_order
from stress.shm.accounts import (
    ACTED,
    INSIDE,
    R_BLOCK,
    R_CLEANED,
    R_CYCLE,
    R_END_NS,
    R_INVALID_NS,
    R_LOCKED_NS,
    R_START_NS,
    R_STEPS,
    R_UNLOCKED_NS,
    R_VALID_NS,
    R_VOID,
    T_RESTARTS,
)
from stress.shm.layout import Machine
from stress.shm.toy import Toy, ToyGeometry, toy_geo
from stress.shm.words import B_INDEX, BATCH_LOCKS, CYCLE, GRACE_BEGUN, LOCK, REBUILDS, SEQUENCE, SLOT_LOGGING

PAGES = 8
NAMED = [pytest.param(order, id=name) for name, order in NAMED_ORDERS.items()]


def tables(*split: int, blocks: int = 3, batch: int = 3, **options: Any) -> Machine:
    """A machine whose blocks ``split`` are tables of half of their pages; the others are not mapped."""
    s = Toy(toy_geo(ToyGeometry(block_pages=PAGES, blocks=blocks), batch=batch, **options)).machine
    for block in split:
        assert split_block(s, block, ALL // 2) == DONE
        if not s.geo.fwb:
            write_unmapped(s, s.geo.hypervisor, block_gfn(s.geo, block))
    s.control[CYCLE] = 7
    return s


def looked(order: Order, **options: Any) -> Machine:
    """vCPU 0 has looked at two tables, and holds mmu_lock, alone or shared."""
    s = tables(0, 1, blocks=2, batch=2, vcpus=2, **options)
    set_order(s, order.steps)
    assert look_under_lock(s, 0) == 2
    return s


@pytest.mark.parametrize("order", NAMED)
@pytest.mark.parametrize("shared", [False, True])
def test_a_batch_is_one_rebuild_of_each_entry(order: Order, shared: bool) -> None:
    s = tables(0, 1, 2, fwb=False, guest_caches=False, bbm_level=order.bbm_level, shared=shared)
    published = int(s.control[SEQUENCE])
    assert rebuild_block(s, 1, order.steps) == DONE
    reap(s, s.geo.hypervisor)
    assert s.control[SEQUENCE] - published == 1, "one TLBI"
    assert (s.batches[s.geo.hypervisor, BATCH_LOCKS], s.control[LOCK], s.tally[INSIDE]) == (1, 0, 0)
    assert assert_sound(s).leaves == [block_leaf(s.geo, block) for block in range(3)]
    assert s.control[REBUILDS] == settled(s, 3) == 3
    rows = s.records[1:4]
    assert (rows[:, R_BLOCK] // PAGES).tolist() == [0, 1, 2]
    assert (rows[:, R_CYCLE] == 7).all()
    assert not rows[:, R_VOID].any()
    assert rows[:, R_CLEANED].all()
    for word in (R_START_NS, R_END_NS, R_LOCKED_NS, R_UNLOCKED_NS, *range(R_STEPS, R_STEPS + len(order.executed))):
        assert (rows[:, word] == rows[0, word]).all(), "steps are the batch's"
    if Step.INVALIDATE in order.steps:
        assert (rows[:, R_INVALID_NS] < rows[:, R_VALID_NS]).all(), "windows are each entry's"
        assert (rows[1:, R_INVALID_NS] > rows[:-1, R_INVALID_NS]).all()
        assert rows[-1, R_INVALID_NS] < rows[0, R_VALID_NS], "all are invalid before the first is a block"


def test_what_is_no_table_is_left_out() -> None:
    s = tables(0, 3, blocks=5, batch=4)
    assert fault(s, block_gfn(s.geo, 1)) == POPULATION
    assert split_block(s, 4, ALL // 2) == DONE
    assert rebuild_block(s, 2, BLOCK_FIRST.steps) == DONE
    halves = [page for page in range(4 * PAGES, 5 * PAGES) if (page + 1) // 2 > page // 2]
    assert assert_sound(s).leaves == [*(block_leaf(s.geo, block) for block in (0, 1, 3)), *page_leaves(s.geo, halves)]
    assert rebuild_block(s, 1, BLOCK_FIRST.steps) == NOT_A_TABLE
    assert s.control[REBUILDS] == 2


def test_a_neighbour_that_may_not_be_a_block_is_left_out() -> None:
    """Its pages are logged, in a memslot of its own, or the host has no huge page there."""
    s = tables(0, 1, 2, 3, blocks=4, batch=4, memslots=2, backing_thp=True, vcpu_rebuilds=True)
    s.memslots[1, SLOT_LOGGING] = 1
    s.huge[1] = 0
    set_order(s, BLOCK_FIRST.steps)
    assert handle(s, 0, s.geo.base_gfn, True, 0, -1) == REBUILT
    leaves = [leaf for leaf in assert_sound(s).leaves if leaf.level == s.geo.block_level]
    assert leaves == [block_leaf(s.geo, 0)]


def test_a_fault_rebuilds_the_batch_around_it_and_cleans_for_all_of_it() -> None:
    s = tables(0, 1, 2, vcpu_rebuilds=True, fwb=False, guest_caches=False, cmo_per_fault=True)
    set_order(s, BLOCK_FIRST.steps)
    assert handle(s, 0, block_gfn(s.geo, 1) + 5, True, 0, -1) == REBUILT
    assert assert_sound(s).leaves == [block_leaf(s.geo, block) for block in range(3)]
    assert (s.records[1:4, R_CLEANED] == PAGES << s.geo.granule_shift).all()


@pytest.mark.parametrize("lost", [0, 1])
def test_the_batch_goes_on_without_what_another_broke(lost: int) -> None:
    s = looked(BLOCK_FIRST, shared=True)
    index = int(s.building[0, lost, B_INDEX])
    s.tables[index] = theirs = broken(int(s.tables[index]), 2, 99, 0)
    assert carry_out(s, 0, 1) == DONE
    assert s.tables[index] == theirs
    assert s.records[1:3, R_VOID].tolist() == [int(lost == 0), int(lost == 1)]
    assert settled(s, 2) == 2
    assert violations(s) == {}


@pytest.mark.parametrize("moved", [0, 1])
def test_the_batch_goes_on_without_what_moved_before_the_lock(moved: int) -> None:
    s = looked(CLEAN_UNLOCKED)
    s.control[LOCK] = 0
    index = int(s.building[0, moved, B_INDEX])
    was = int(s.tables[index])
    s.tables[index] = 0
    s.control[LOCK] = 1
    assert carry_out(s, 0, 1) == DONE
    assert (s.tables[index], s.totals[0, T_RESTARTS]) == (0, 1)
    assert s.records[1:3, R_VOID].tolist() == [int(moved == 0), int(moved == 1)]
    s.tables[index] = was
    assert [leaf.level for leaf in assert_sound(s).leaves].count(s.geo.block_level) == 1


def test_tables_of_a_batch_wait_for_one_grace_period() -> None:
    s = tables(0, 1, 2, lockless=True)
    assert rebuild_block(s, 0, CLEAN_FIRST_UNLOCKED.steps) == DONE
    assert s.control[GRACE_BEGUN] == 1
    assert_sound(s)


WRONG = {
    "invalidate,install,tlbi,unmap": {"bbm": 3},
    "invalidate,unmap,tlbi,install": {"table-use-after-free": 3},
    "invalidate,tlbi-ipa,install,unmap": {"bbm": 3, "table-use-after-free": 3},
    "invalidate,tlbi,install,clean,unmap": {"not-at-poc": 3},
    "invalidate,tlbi,clean,install": {"table-leak": 3},
    "clean,install-nt,tlbi,unmap": {"not-installed": 6},  # by the rule, and by the audit
    "clean,install-nt,clear-nt,tlbi,unmap": {"bbm": 3},
}


@pytest.mark.parametrize("steps", WRONG)
def test_every_rule_is_asked_of_each_entry(steps: str) -> None:
    order = parse_order(steps)
    caches = Step.CLEAN not in order.steps
    s = tables(0, 1, 2, fwb=False, guest_caches=caches, bbm_level=order.bbm_level)
    assert rebuild_block(s, 0, order.steps) == DONE
    run_audit(s)
    assert violations(s) == WRONG[steps]


@pytest.mark.parametrize("order", [BLOCK_FIRST, NAMED_ORDERS["bbml2"]], ids=lambda order: order.name)
def test_a_tlbi_of_the_first_entry_does_not_cover_the_others(order: Order) -> None:
    s = tables(0, 1, 2, inject=FIRST_OF_BATCH, bbm_level=order.bbm_level)
    assert rebuild_block(s, 0, order.steps) == DONE
    found = violations(s)
    assert found["table-use-after-free"] == 2
    assert found.get("bbm", 0) == (2 if order is BLOCK_FIRST else 0)
    assert s.tally[ACTED] == 1


def test_of_one_block_the_tlbi_is_right() -> None:
    s = tables(0, batch=1, inject=FIRST_OF_BATCH)
    assert rebuild_block(s, 0, BLOCK_FIRST.steps) == DONE
    assert s.tally[ACTED] == 0
    assert_sound(s)
