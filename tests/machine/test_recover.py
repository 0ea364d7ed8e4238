"""Recovery in place: who stops dirty logging makes blocks of tables, and keeps mmu_lock over a chunk of them."""

from __future__ import annotations

from typing import Any

import pytest
from machines import ALL, assert_sound, block_gfn, block_leaf, set_order, small_machine, split_block

from stress.bugs import BUGS
from stress.kernels import holding
from stress.kernels.dirty import set_logging
from stress.kernels.recover import recover
from stress.kernels.split import is_split, populate, split_eagerly
from stress.kernels.teardown import reap
from stress.orders import BLOCK_FIRST, NAMED_ORDERS, Order
from stress.shm import mmu_lock
from stress.shm.accounts import R_LOCKED_NS, R_NUMBER, R_UNLOCKED_NS, STATE, State
from stress.shm.layout import Machine
from stress.shm.mode import JIT_DISABLED
from stress.shm.words import BATCH_KEPT_NS, LOCK, REBUILDS, SEQUENCE, SLOT_LOGGING, STOP, WALKING

BLOCKS = 4
HELD = [order for order in NAMED_ORDERS.values() if order.holds_throughout]


def logged(order: Order = BLOCK_FIRST, split: tuple[int, ...] = (0, 1, 3), **more: Any) -> Machine:
    """Dirty logging has ended, and left some blocks as tables; one was never mapped."""
    s = small_machine(blocks=BLOCKS, bbm_level=order.bbm_level, **more)
    for block in split:
        split_block(s, block, ALL // 2)
    set_order(s, order.steps)
    return s


def range_of(s: Machine, first: int, end: int) -> tuple[int, int, int]:
    """Arguments: the hypervisor, and the guest frames of some blocks."""
    return s.geo.hypervisor, block_gfn(s.geo, first), block_gfn(s.geo, end)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("order", HELD, ids=lambda order: order.name)
def test_tables_become_blocks_by_the_order_under_test(order: Order, shared: bool) -> None:
    s = logged(order, shared=shared)
    assert recover(s, *range_of(s, 0, BLOCKS)) == 0
    reap(s, s.geo.hypervisor)
    assert assert_sound(s).leaves == [block_leaf(s.geo, block) for block in (0, 1, 3)]
    assert s.control[REBUILDS] == 3
    assert (s.control[LOCK], s.batches[s.geo.hypervisor, BATCH_KEPT_NS]) == (0, 0)
    assert s.procs[s.geo.hypervisor, WALKING] % 2 == 0
    assert s.states[s.geo.hypervisor, STATE] == State.DWELL


@pytest.mark.parametrize("shared", [False, True])
def test_mmu_lock_is_kept_over_a_chunk_and_given_back_behind_it(shared: bool) -> None:
    """A record says since when it was held: the last one of a chunk how long."""
    s = logged(split=(0, 1, 2, 3), shared=shared)
    recover(s, *range_of(s, 0, 2))
    recover(s, *range_of(s, 2, 4))
    rows = s.records[1:5]
    assert rows[:, R_NUMBER].tolist() == [1, 2, 3, 4]
    locked, unlocked = rows[:, R_LOCKED_NS].tolist(), rows[:, R_UNLOCKED_NS].tolist()
    assert locked[0] == locked[1] < unlocked[0] < unlocked[1] < locked[2] == locked[3]


@pytest.mark.skipif(not JIT_DISABLED, reason="compiled code cannot be counted")
@pytest.mark.parametrize(("first", "end", "times"), [(0, 1, 1), (0, 2, 1), (0, BLOCKS, 1), (2, 3, 1)])
def test_a_chunk_takes_mmu_lock_once(monkeypatch: pytest.MonkeyPatch, first: int, end: int, times: int) -> None:
    taken = []

    def acquire(s: Machine, who: int) -> bool:
        taken.append(who)
        return bool(mmu_lock.acquire(s, who))

    monkeypatch.setattr(holding, "acquire", acquire)
    s = logged()
    recover(s, *range_of(s, first, end))
    assert len(taken) == times


@pytest.mark.parametrize("yield_every", [0, 100])
def test_what_may_not_be_a_block_stays_a_table(yield_every: int) -> None:
    s = logged(yield_every=yield_every)
    s.memslots[0, SLOT_LOGGING] = 1
    recover(s, *range_of(s, 0, BLOCKS))
    assert [is_split(s, block_gfn(s.geo, block)) for block in range(BLOCKS)] == [True, True, False, True]
    assert (s.control[REBUILDS], s.control[LOCK]) == (0, 0)


@pytest.mark.parametrize("shared", [False, True])
def test_a_chunk_is_recovered_batch_by_batch(shared: bool) -> None:
    s = logged(split=(0, 1, 2, 3), shared=shared, batch=2)
    published = int(s.control[SEQUENCE])
    recover(s, *range_of(s, 0, BLOCKS))
    assert assert_sound(s).leaves == [block_leaf(s.geo, block) for block in range(BLOCKS)]
    assert s.control[SEQUENCE] - published == 2, "a TLBI per batch"
    rows = s.records[1:5]
    assert len(set(rows[:, R_LOCKED_NS])) == 1
    unlocked = rows[:, R_UNLOCKED_NS].tolist()
    assert unlocked[0] == unlocked[1] < unlocked[2] == unlocked[3]
    assert s.control[LOCK] == 0


def test_a_run_that_stops_leaves_the_rest() -> None:
    s = logged()
    s.control[LOCK], s.control[STOP] = 7, 1
    assert recover(s, *range_of(s, 0, BLOCKS)) != 0
    assert (s.control[LOCK], s.batches[s.geo.hypervisor, BATCH_KEPT_NS]) == (7, 0)


@pytest.mark.parametrize("name", ["tlbi-one-ipa", "no-break", "free-before-tlbi"])
def test_a_wrong_order_is_caught_here_too(name: str) -> None:
    bug = BUGS[name]
    s = logged(bug.rewrite(BLOCK_FIRST))
    recover(s, *range_of(s, 0, BLOCKS))
    with pytest.raises(AssertionError):
        assert_sound(s)


def test_eager_splitting_leaves_pages_as_protected_as_the_block() -> None:
    s = small_machine(blocks=BLOCKS)
    for block in (0, 2):
        populate(s, s.geo.hypervisor, block_gfn(s.geo, block))
    set_logging(s, s.geo.hypervisor, 1)
    assert split_eagerly(s, *range_of(s, 0, BLOCKS)) == 0
    leaves = assert_sound(s).leaves
    assert len(leaves) == 2 * 512
    assert not any(leaf.writable for leaf in leaves)
    assert s.control[LOCK] == 0


# Every schedule of the toy machine, whose vCPU's first write splits the block.

if JIT_DISABLED:
    from stress.orders import parse_order
    from stress.verify.hooks import Hooks
    from stress.verify.scene import Bounds
    from stress.verify.verification import Judgement, verify

    TOY = Bounds(scenario="migration", vcpus=1, accesses=1, recovers=True, speculating=0)


@pytest.mark.thorough
@pytest.mark.skipif(not JIT_DISABLED, reason="compiled code cannot be stopped between two accesses")
def test_recovery_under_a_guest_that_goes_on_is_proved() -> None:
    with Hooks() as hooks:
        result = verify(hooks, parse_order("block-first"), TOY, None)
    assert (result.judgement, result.why, dict(result.kinds)) == (Judgement.PROVED, "", {})
    assert result.seen["window faults"] > 0


@pytest.mark.skipif(not JIT_DISABLED, reason="compiled code cannot be stopped between two accesses")
def test_a_bug_in_a_recovery_is_found() -> None:
    bug = BUGS["free-before-tlbi"]
    with Hooks() as hooks:
        result = verify(hooks, bug.rewrite(BLOCK_FIRST), TOY, None)
    assert result.judgement is Judgement.VIOLATION
    assert set(result.kinds) & set(bug.kinds)
