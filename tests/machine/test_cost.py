"""Modelled costs: spent, and cut short when the run stops or its time is over."""

from __future__ import annotations

import time
from typing import Any

import pytest
from machines import (
    ALL,
    assert_sound,
    block_gfn,
    block_leaf,
    fault,
    rebuild_block,
    set_order,
    small_machine,
    split_block,
    violations,
)

from stress.kernels.codes import POPULATION, RETRY
from stress.kernels.cost import spend
from stress.kernels.fault import handle
from stress.kernels.rebuild import DONE, VOID
from stress.kernels.records import close_records
from stress.kernels.split import write_unmapped
from stress.kernels.teardown import reap
from stress.orders import NAMED_ORDERS, Order, Step
from stress.shm.accounts import (
    C_FAULTS,
    COSTS_CUT,
    COSTS_END_NS,
    HEARTBEAT,
    R_LEFT,
    R_STEPS,
    R_VOID,
    T_REBUILDS,
    VOIDED,
)
from stress.shm.layout import Machine
from stress.shm.words import NOT_AT_POC, REBUILDS, STOP, STOP_ABORT

NAMED = [pytest.param(order, id=name) for name, order in NAMED_ORDERS.items()]
FOR_EVER = 1 << 60  # ns
COSTS: dict[str, Any] = {
    "clean_ps_per_page": FOR_EVER // 512,
    "icache_ns": FOR_EVER,
    "unmap_ns_per_table": FOR_EVER,
    "tlbi_ns": FOR_EVER,
    "tlbi_ipa_ns": FOR_EVER,
}


def stop(s: Machine) -> None:
    s.control[STOP] = STOP_ABORT


def run_out_of_time(s: Machine) -> None:
    s.tally[COSTS_END_NS] = time.monotonic_ns()


ENDS = [stop, run_out_of_time]


def test_a_cost_is_spent_with_signs_of_life() -> None:
    s = small_machine(vcpus=2)
    s.tally[COSTS_END_NS] = time.monotonic_ns() + FOR_EVER
    start = time.monotonic_ns()
    spend(s, 1, 3_000_000)
    assert time.monotonic_ns() - start >= 3_000_000
    assert s.states[1, HEARTBEAT] > 1  # the watchdog sees that it gets on
    assert s.states[[0, 2], HEARTBEAT].tolist() == [0, 0]
    assert s.tally[COSTS_CUT] == 0


@pytest.mark.parametrize("end", ENDS)
def test_a_cost_ends_with_the_run(end: Any) -> None:
    s = small_machine()
    end(s)
    spend(s, 0, 0)
    assert s.tally[COSTS_CUT] == 0
    spend(s, 0, FOR_EVER)
    assert s.tally[COSTS_CUT] == 1


def costly(**options: Any) -> Machine:
    """Block 0 split, block 1 mapped as a block, at no cost; from here on everything would cost years."""
    s = small_machine(block_size=2 << 20, vcpus=2, fwb=False, **COSTS, **options)
    s.tally[COSTS_END_NS] = 1
    assert fault(s, block_gfn(s.geo, 1)) == POPULATION
    assert split_block(s, 0, ALL // 2) == DONE
    write_unmapped(s, s.geo.hypervisor, s.geo.base_gfn)
    s.tally[COSTS_END_NS] = s.tally[COSTS_CUT] = 0
    return s


@pytest.mark.parametrize("order", NAMED)
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("rebuilder", ["hypervisor", "vcpu"])
@pytest.mark.parametrize("cmo_per_fault", [False, True])
def test_a_rebuild_that_is_cut_short_is_sound_and_void(
    cmo_per_fault: bool, rebuilder: str, end: Any, order: Order
) -> None:
    s = costly(vcpu_rebuilds=rebuilder == "vcpu", bbm_level=order.bbm_level, cmo_per_fault=cmo_per_fault)
    end(s)
    if rebuilder == "vcpu":
        set_order(s, order.steps)
        assert handle(s, 1, s.geo.base_gfn + 500, 0, 0, 3) == RETRY
    else:
        assert rebuild_block(s, 0, order.steps) == VOID
    assert (s.records[1, R_VOID], s.records[1, R_LEFT]) == (1, 1)
    assert (s.tally[VOIDED], s.control[REBUILDS]) == (1, 1)
    reap(s, s.geo.hypervisor)
    assert assert_sound(s).leaves == [block_leaf(s.geo, 0), block_leaf(s.geo, 1)]
    assert not (s.cells[:512] & NOT_AT_POC).any()
    assert close_records(s, 1) == 0
    assert s.totals[0, T_REBUILDS] == 0


def test_a_wrong_order_is_wrong_however_short_its_costs_are_cut() -> None:
    s = costly()
    run_out_of_time(s)
    assert rebuild_block(s, 0, (Step.CLEAN, Step.INSTALL, Step.TLBI, Step.UNMAP)) == VOID
    assert set(violations(s)) == {"bbm"}


def test_a_tear_down_costs_what_the_platform_says_for_each_table() -> None:
    cost_ns = 2_000_000
    order = NAMED_ORDERS["block-first"]
    s = small_machine(unmap_ns_per_table=cost_ns)
    assert split_block(s, 0, ALL // 2) == DONE
    assert rebuild_block(s, 0, order.steps) == DONE
    assert s.records[1, R_STEPS + order.executed.index(Step.UNMAP)] >= cost_ns
    assert assert_sound(s).leaves[0] == block_leaf(s.geo, 0)


def test_a_deferred_tear_down_costs_whoever_does_it() -> None:
    s = small_machine(unmap_ns_per_table=2_000_000)
    assert split_block(s, 0, ALL // 2) == DONE
    assert rebuild_block(s, 0, NAMED_ORDERS["block-first-deferred"].steps) == DONE
    assert s.states[s.geo.hypervisor, HEARTBEAT] == 0
    start = time.monotonic_ns()
    assert reap(s, s.geo.hypervisor) == 1
    assert time.monotonic_ns() - start >= 2_000_000
    assert s.states[s.geo.hypervisor, HEARTBEAT] > 0


@pytest.mark.parametrize("end", ENDS)
def test_a_stall_that_is_cut_short_belongs_to_no_order(end: Any) -> None:
    s = small_machine(vcpus=2, exit_ns=FOR_EVER)
    end(s)
    assert handle(s, 1, s.geo.base_gfn, 0, 0, 3) == POPULATION
    assert s.counters[1, -1, C_FAULTS + POPULATION] == 1
    assert not s.counters[1, :-1].any()
    assert not s.stalls.any()
    assert not s.event_index.any()
