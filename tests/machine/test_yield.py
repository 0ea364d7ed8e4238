"""A tear-down that gives mmu_lock up: the table is its own and the broken entry, too, but the world may have moved."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from guests import wait_until
from machines import ALL, assert_sound, block_gfn, block_leaf, fault, set_order, small_machine, split_block

from stress.bugs import BUGS
from stress.kernels.codes import POPULATION, RETRY
from stress.kernels.dirty import set_logging
from stress.kernels.entries import find
from stress.kernels.rebuild import DONE, VOID, rebuild
from stress.kernels.split import populate
from stress.orders import BLOCK_FIRST, UNMAP_FIRST, Order, parse_order
from stress.shm import mmu_lock
from stress.shm.accounts import R_FREED, R_LOCKED_NS, R_UNLOCKED_NS, R_VOID, R_YIELDED_NS, T_RESTARTS, T_YIELDS
from stress.shm.atomics import store
from stress.shm.layout import Machine
from stress.shm.mode import JIT_DISABLED
from stress.shm.words import LOCK, LOCK_WRITERS

if not JIT_DISABLED:
    pytest.skip("compiled code cannot be stopped in a tear-down", allow_module_level=True)

from stress.kernels import holding
from stress.verify.hooks import Hooks
from stress.verify.scene import Bounds
from stress.verify.verification import Judgement, Scheduler, verify

ENTRIES = 512


def meanwhile(monkeypatch: pytest.MonkeyPatch, s: Machine, *others: Any) -> list[Any]:
    """Whoever waits gets mmu_lock at each yield, and does one of these; what they returned."""
    found: list[Any] = []
    left = list(others)

    def let_pass(machine: Machine, who: int) -> None:
        mmu_lock.release(machine, who, 0)
        found.append(left.pop(0)())
        machine.control[LOCK_WRITERS] = int(bool(left))

    monkeypatch.setattr(holding, "let_pass", let_pass)
    s.control[LOCK_WRITERS] = int(bool(left))
    return found


def torn(order: Order, **more: Any) -> Machine:
    """Block 0 is a table that maps all of its pages, to be rebuilt by an order that yields."""
    s = small_machine(yield_every=100, **more)
    assert split_block(s, 0, ALL) == DONE
    set_order(s, order.steps)
    return s


def its_rebuild(s: Machine) -> int:
    return int(rebuild(s, s.geo.hypervisor, s.geo.base_gfn))


def test_who_waits_gets_the_lock_between_two_chunks() -> None:
    """With a thread that really waits for it."""
    s = torn(BLOCK_FIRST)
    s.control[LOCK] = 7  # somebody else has it
    waiters = [
        threading.Thread(target=populate, args=(s, 0, block_gfn(s.geo, 1)), daemon=True),
        threading.Thread(target=its_rebuild, args=(s,), daemon=True),
    ]
    for thread in waiters:
        thread.start()
    wait_until(lambda: s.control[LOCK_WRITERS] == 2)
    s.control[LOCK] = 0
    for thread in waiters:
        thread.join()
    assert assert_sound(s).leaves == [block_leaf(s.geo, 0), block_leaf(s.geo, 1)]
    assert s.totals[0, T_YIELDS] <= 1


@pytest.mark.parametrize("order", [UNMAP_FIRST, BLOCK_FIRST])
def test_the_time_without_the_lock_is_not_held(monkeypatch: pytest.MonkeyPatch, order: Order) -> None:
    s = torn(order)
    found = meanwhile(monkeypatch, s, *[lambda: int(s.control[LOCK])] * 5)
    assert its_rebuild(s) == DONE
    assert found == [0] * 5, "it was free each time; the last chunk has 12 entries"
    assert s.totals[0, T_YIELDS] == ENTRIES // 100
    row = s.records[1]
    assert row[R_FREED] == 1
    assert 0 < row[R_YIELDED_NS] < row[R_UNLOCKED_NS] - row[R_LOCKED_NS]
    assert assert_sound(s).leaves[0] == block_leaf(s.geo, 0)


def test_nobody_waits_nobody_yields() -> None:
    s = torn(UNMAP_FIRST)
    assert its_rebuild(s) == DONE
    assert s.totals[0, T_YIELDS] == 0


def test_a_fault_on_the_broken_entry_tries_again(monkeypatch: pytest.MonkeyPatch) -> None:
    s = torn(UNMAP_FIRST)

    def its_fault() -> int:
        s.control[LOCK] = 1
        status = fault(s, s.geo.base_gfn + 3)
        s.control[LOCK] = 0
        return int(status)

    found = meanwhile(monkeypatch, s, its_fault, its_fault)
    assert its_rebuild(s) == DONE
    assert found == [RETRY, RETRY]
    assert assert_sound(s).leaves == [block_leaf(s.geo, 0)]


def test_logging_that_begins_meanwhile_is_not_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The block is not made; the next write maps a page where the rebuild left nothing."""
    s = torn(UNMAP_FIRST)
    meanwhile(monkeypatch, s, lambda: set_logging(s, 0, 1))
    its_rebuild(s)
    assert (s.totals[0, T_RESTARTS], s.records[1, R_VOID], s.control[LOCK]) == (1, 1, 0)
    assert assert_sound(s).leaves == []
    s.control[LOCK] = 1
    assert fault(s, s.geo.base_gfn + 3, 1) == POPULATION
    s.control[LOCK] = 0
    assert len(assert_sound(s).leaves) == 1


def test_logging_that_begins_after_the_block_stands_takes_its_write_permission(monkeypatch: pytest.MonkeyPatch) -> None:
    s = torn(BLOCK_FIRST)
    meanwhile(monkeypatch, s, lambda: set_logging(s, 0, 1))
    assert its_rebuild(s) == DONE
    assert s.totals[0, T_RESTARTS] == 0
    [leaf] = assert_sound(s).leaves
    assert not leaf.writable


def tables(order: Order, **more: Any) -> Machine:
    """A batch of three tables that map all of their pages, to be rebuilt by an order that yields."""
    s = torn(order, blocks=3, batch=3, **more)
    assert split_block(s, 1, ALL) == split_block(s, 2, ALL) == DONE
    set_order(s, order.steps)
    return s


@pytest.mark.parametrize("block", range(3))
def test_all_broken_entries_of_a_batch_are_its_own(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    """Whichever table is torn down meanwhile; the time without mmu_lock is that of all rebuilds."""
    s = tables(UNMAP_FIRST)

    def its_fault() -> int:
        s.control[LOCK] = 1
        status = fault(s, block_gfn(s.geo, block) + 3)
        s.control[LOCK] = 0
        return int(status)

    found = meanwhile(monkeypatch, s, *[its_fault] * 15)
    assert its_rebuild(s) == DONE
    assert found == [RETRY] * 15
    assert s.totals[0, T_YIELDS] == 3 * ENTRIES // 100
    assert len(set(s.records[1:4, R_YIELDED_NS])) == 1
    assert assert_sound(s).leaves == [block_leaf(s.geo, each) for each in range(3)]


@pytest.mark.parametrize("yields", [0, 14])
def test_a_batch_looks_at_all_entries_again(monkeypatch: pytest.MonkeyPatch, yields: int) -> None:
    """While the first or the last table is torn down: none of the blocks is made, all tables are freed."""
    s = tables(UNMAP_FIRST)
    meanwhile(monkeypatch, s, *[lambda: None] * yields, lambda: set_logging(s, 0, 1))
    its_rebuild(s)
    assert (s.totals[0, T_RESTARTS], s.control[LOCK]) == (3, 0)
    assert s.records[1:4, R_VOID].tolist() == s.records[1:4, R_FREED].tolist() == [1, 1, 1]
    assert assert_sound(s).leaves == []


def test_of_a_batch_only_what_moved_is_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another empties the entry of the last table before that is torn down."""
    s = tables(UNMAP_FIRST)

    index = int(find(s, block_gfn(s.geo, 2), 2)[0])
    meanwhile(monkeypatch, s, lambda: store(s.tables, index, 0))
    its_rebuild(s)
    assert s.totals[0, T_RESTARTS] == 1
    assert s.records[1:4, R_VOID].tolist() == [0, 0, 1]
    assert s.records[1:4, R_FREED].tolist() == [1, 1, 1]
    assert assert_sound(s).leaves == [block_leaf(s.geo, each) for each in range(2)]


def test_a_run_that_stops_meanwhile_ends_the_rebuild(monkeypatch: pytest.MonkeyPatch) -> None:
    s = torn(UNMAP_FIRST)

    def stop() -> None:
        s.control[LOCK] = 7
        s.control[1] = 1

    meanwhile(monkeypatch, s, stop)
    assert its_rebuild(s) not in (DONE, VOID)
    assert s.control[LOCK] == 7, "it never got it back"


# Every schedule of the toy machine.

TWO_ENTRIES = Bounds(vcpus=1, accesses=2, yield_every=1)


@pytest.fixture
def hooks() -> Iterator[Hooks]:
    with Hooks() as hooks:
        yield hooks


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("order", "more"),
    [
        ("unmap-first", {"yield_every": 2}),
        ("unmap-first", {"yield_every": 4, "batch": 2, "accesses": 1}),
        ("block-first", {}),
        ("block-first", {"shared": True, "accesses": 1, "speculating": 0}),
    ],
)
def test_an_order_that_yields_is_proved(hooks: Hooks, order: str, more: dict[str, Any]) -> None:
    result = verify(hooks, parse_order(order), replace(TWO_ENTRIES, **more), None)
    assert (result.judgement, result.why, dict(result.kinds)) == (Judgement.PROVED, "", {})
    assert result.seen["yields"] > 0


@pytest.mark.thorough
def test_frames_that_move_while_it_yields_are_not_mapped(hooks: Hooks) -> None:
    bounds = replace(TWO_ENTRIES, scenario="thp", vcpu_rebuilds=True, speculating=0)
    result = verify(hooks, UNMAP_FIRST, bounds, None)
    assert (result.judgement, dict(result.kinds)) == (Judgement.PROVED, {})
    assert result.seen["restarts"] > 0


def test_without_the_second_look_they_are(hooks: Hooks) -> None:
    bug = BUGS["no-recheck"]
    bounds = replace(TWO_ENTRIES, scenario="thp", vcpu_rebuilds=True, speculating=0, inject=bug.flag)
    result = verify(hooks, UNMAP_FIRST, bounds, 280 * 10**9, Scheduler.PCT)
    assert result.judgement is Judgement.VIOLATION
    assert set(result.kinds) & set(bug.kinds)
