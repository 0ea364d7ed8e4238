"""Walkers that take no lock: what they are kept from by a grace period, and what they see without one."""

from __future__ import annotations

import pytest
from machines import (
    block_gfn,
    evidence,
    fault,
    rebuild_block,
    run_audit,
    set_order,
    small_machine,
    split_block,
    violations,
)

from stress.bugs import NO_GRACE
from stress.kernels.codes import FREED_WITHOUT_GRACE, WALKED_WITHOUT_LOCK
from stress.kernels.entries import find
from stress.kernels.lockless import look_around, visit
from stress.kernels.teardown import reap
from stress.orders import BLOCK_FIRST, BLOCK_FIRST_DEFERRED, CLEAN_FIRST_UNLOCKED, Order
from stress.shm.accounts import ACTED, LOOKED_NS, PHASE, PHASE_SLOT_BITS, Kind
from stress.shm.words import WALKING


@pytest.mark.parametrize("order", [CLEAN_FIRST_UNLOCKED, BLOCK_FIRST_DEFERRED], ids=lambda order: order.name)
def test_a_table_freed_without_a_grace_period_breaks_a_rule_and_is_met(order: Order) -> None:
    s = small_machine(lockless=True, inject=NO_GRACE)
    fault(s, block_gfn(s.geo, 0))
    split_block(s, 0)
    gfn = block_gfn(s.geo, 0) + 5
    index, level = find(s, gfn, 3)
    s.procs[0, WALKING] = 1  # a walker stands in the table when the rebuild begins
    assert rebuild_block(s, 0, order.steps) == 0
    reap(s, s.geo.hypervisor)
    assert violations(s) == {"table-use-after-free": 1}, "whether anybody walks there or not"
    visit(s, 0, gfn, index, level, 0)
    assert violations(s) == {"table-use-after-free": 2}
    told = [evidence(s, Kind.TABLE_USE_AFTER_FREE, n) for n in (0, 1)]
    assert [(piece["rule"], piece["detail"]) for piece in told] == [(1, FREED_WITHOUT_GRACE), (0, WALKED_WITHOUT_LOCK)]
    assert (told[0]["gfn"], told[0]["level"]) == (block_gfn(s.geo, 0), s.geo.block_level)
    assert s.tally[ACTED] > 0


@pytest.mark.parametrize(("order", "walks"), [(CLEAN_FIRST_UNLOCKED, True), (BLOCK_FIRST, False)])
def test_it_walks_beside_orders_that_tear_down_outside_of_the_lock(order: Order, walks: bool) -> None:
    s = small_machine(lockless=True)
    fault(s, block_gfn(s.geo, 1))
    split_block(s, 1)
    set_order(s, order.steps)
    s.tally[PHASE] = 1 << PHASE_SLOT_BITS
    look_around(s, 0, block_gfn(s.geo, 0))
    assert bool(s.states[0, LOOKED_NS]) is walks
    assert s.procs[0, WALKING] == (2 if walks else 0), "the section has ended"
    run_audit(s)
    assert violations(s) == {}
