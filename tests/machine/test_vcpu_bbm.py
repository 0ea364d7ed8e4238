"""FEAT_BBM as the vCPU's TLB has it: level 1 does not keep nT, level 2 may abort, level 3 copes (DDI 0487 D8.14.2)."""

from __future__ import annotations

import pytest
from guests import RW, caught_up, counters, cpu_before, faults, mapped, workload
from machines import ALL, assert_sound, block_leaf, evidence, rebuild_block, violations

from stress.kernels.codes import CONFLICT
from stress.kernels.conflict import fill_block
from stress.kernels.descriptor import with_nt
from stress.kernels.entries import find
from stress.kernels.rebuild import DONE
from stress.kernels.tlb import CHUNK, MISS, Cpu, fill, lookup_level
from stress.kernels.vcpu import RAN, run
from stress.orders import BBML2, NT, Order, Step
from stress.shm.accounts import E_GFN, E_STALL_NS, E_WHAT, EVENT_HEAD, PHASE, PHASE_SLOT_BITS, STATE, Kind, State
from stress.shm.layout import Machine
from stress.shm.mode import JIT_DISABLED
from stress.shm.words import SEQUENCE


def set_nt(s: Machine, block: int) -> None:
    """As in the middle of the order nt."""
    index, level = find(s, s.geo.base_gfn + 512 * block, 2)
    assert level == 2
    s.tables[index] = with_nt(s.tables[index])


def lap(s: Machine, cpu: Cpu) -> dict[str, int]:
    """One access to each of the 1024 pages; what that counted."""
    before = counters(s)
    assert run(s, cpu, workload(s), 0, 1024 // CHUNK) == RAN
    return {name: count - before[name] for name, count in counters(s).items()}


@pytest.mark.parametrize("bbm_level", [1, 2, 3])
def test_a_block_with_nt_is_used_and_not_kept(bbm_level: int) -> None:
    s = mapped(bbm_level=bbm_level)
    set_nt(s, 1)
    cpu = caught_up(s, cpu_before(s, 0))
    for _ in range(2):
        assert lap(s, cpu)["walks"] >= 512, "each access to it walks"
        assert list(cpu.live) == [0, 0, 1, 0], "the other block is kept"
        assert lookup_level(cpu, 2, s.geo.index_bits, s.geo.base_gfn + 600) == MISS
    assert lap(s, cpu) == {"accesses": 1024, "writes": 0, "hits": 512, "walks": 512, "redone": 0}
    assert faults(s) == {}
    assert violations(s) == {}


def test_once_nt_is_gone_the_block_is_kept() -> None:
    s = mapped(bbm_level=1)
    index, _ = find(s, s.geo.base_gfn + 512, 2)
    good = int(s.tables[index])
    set_nt(s, 1)
    cpu = caught_up(s, cpu_before(s, 0))
    lap(s, cpu)
    s.tables[index] = good
    assert lap(s, cpu)["walks"] == 1
    assert list(cpu.live) == [0, 0, 2, 0]


def test_without_the_feature_nt_means_nothing() -> None:
    s = mapped(bbm_level=0)
    set_nt(s, 1)
    cpu = caught_up(s, cpu_before(s, 0))
    assert lap(s, cpu)["walks"] == 2
    assert list(cpu.live) == [0, 0, 2, 0]


def with_pages_held(s: Machine, *pages: int) -> Cpu:
    """A vCPU that holds pages, from before their block was there; it goes on with page 100."""
    cpu = caught_up(s, cpu_before(s, 100))
    for page in pages:
        fill(cpu, 3, s.geo.index_bits, s.geo.base_gfn + page, page << 2 | RW)
    return cpu


def test_pages_below_a_block_with_nt_are_no_conflict() -> None:
    s = mapped(bbm_level=1)
    set_nt(s, 0)
    cpu = with_pages_held(s, 7, 511)
    lap(s, cpu)
    assert violations(s) == {}
    assert cpu.live[3] == 2, "and they stay until their TLBI"


@pytest.mark.parametrize("bbm_level", [0, 1])
def test_below_level_2_pages_under_a_block_are_a_conflict(bbm_level: int) -> None:
    s = mapped(bbm_level=bbm_level)
    lap(s, with_pages_held(s, 7, 511))
    assert violations(s) == {"tlb-conflict": 1}
    piece = evidence(s, Kind.TLB_CONFLICT)
    assert (piece["gfn"], piece["level"], piece["found"]) == (s.geo.base_gfn + 100, 2, 3)


def test_nt_is_a_conflict_where_the_feature_is_missing() -> None:
    s = mapped(bbm_level=0)
    set_nt(s, 0)
    lap(s, with_pages_held(s, 7))
    assert violations(s) == {"tlb-conflict": 1}


@pytest.mark.parametrize("held", [(7,), (7, 511, 600)])
def test_at_level_2_a_tlb_that_gets_both_sizes_aborts_once_and_is_empty(held: tuple[int, ...]) -> None:
    s = mapped(bbm_level=2)
    cpu = with_pages_held(s, *held)
    assert run(s, cpu, workload(s), 0, 1) == RAN
    assert violations(s) == {}
    assert list(cpu.live) == [0, 0, 1, 0], "a TLBI of this core took the pages of other blocks, too"
    assert faults(s) == {CONFLICT: 1}
    assert counters(s)["accesses"] == CHUNK, "the access that aborted is tried again, and counts once"
    assert (s.states[0, STATE], s.control[SEQUENCE]) == (State.GUEST, 0), "nobody else's TLB"


def test_a_conflict_abort_takes_what_it_costs_and_is_told() -> None:
    s = mapped(bbm_level=2, conflict_ns=1_000_000)
    s.tally[PHASE] = 1 << PHASE_SLOT_BITS
    cpu = with_pages_held(s, 7)
    assert run(s, cpu, workload(s), 0, 1) == RAN
    [event] = s.events[0, : s.event_index[0, EVENT_HEAD]]
    assert event[E_WHAT] & 0xF == CONFLICT
    assert event[E_STALL_NS] >= 1_000_000
    assert event[E_GFN] == s.geo.base_gfn + 100
    assert s.stalls[0, 0, CONFLICT].sum() == 1


@pytest.mark.skipif(not JIT_DISABLED, reason="hardware walks by itself where kernels are stepped")
@pytest.mark.parametrize("bbm_level", [2, 3])
def test_a_walk_of_the_hardware_by_itself_aborts_nobody(bbm_level: int) -> None:
    s = mapped(bbm_level=bbm_level)
    cpu = with_pages_held(s, 7, 600)
    index, level = find(s, s.geo.base_gfn + 100, 2)
    fill_block(s, cpu, 0, level, s.geo.base_gfn + 100, 100 << 2 | RW, int(s.tables[index]), -1, True)
    assert (faults(s), list(cpu.live)) == ({}, [0, 0, 1, 1])


def test_at_level_3_what_overlaps_is_gone_and_nothing_else() -> None:
    s = mapped(bbm_level=3)
    cpu = with_pages_held(s, 7, 511, 600)
    assert run(s, cpu, workload(s), 0, 1) == RAN
    assert violations(s) == {}
    bits, base = s.geo.index_bits, s.geo.base_gfn
    assert list(cpu.live) == [0, 0, 1, 1]
    assert [lookup_level(cpu, 3, bits, base + page) for page in (7, 511, 600)] == [MISS, MISS, 600 << 2 | RW]
    assert lookup_level(cpu, 2, bits, base + 7) == 7 << 2 | RW
    assert faults(s) == {}


BETWEEN = [
    pytest.param(order, level, n, id=f"{order.name}-{level}-{n}")
    for order, level in ((NT, 1), (NT, 2), (NT, 3), (BBML2, 2), (BBML2, 3))
    for n in range(2, len(order.steps) + 1)
]


@pytest.mark.parametrize(("order", "bbm_level", "steps"), BETWEEN)
def test_a_guest_between_the_steps_of_an_order_without_a_break(order: Order, bbm_level: int, steps: int) -> None:
    """It runs on pages, then on what the order has made so far: nothing to report, and at level 2 an abort."""
    s = mapped(ALL, bbm_level=bbm_level)
    cpu = caught_up(s, cpu_before(s, 0))
    assert run(s, cpu, workload(s), 0, 2) == RAN
    assert cpu.live[3] == 2 * CHUNK
    assert rebuild_block(s, 0, order.steps[:steps]) == DONE
    lap(s, cpu)
    lap(s, cpu)
    flushed = Step.TLBI in order.steps[:steps]
    assert faults(s) == ({} if flushed or order is NT or bbm_level == 3 else {CONFLICT: 1})
    cut = Step.CLEAR_NT not in order.steps[:steps] and order is NT
    assert violations(s) == ({"not-installed": 1} if cut else {}), "an order that ends here leaves nT set"
    if steps == len(order.steps):
        assert assert_sound(s).leaves[0] == block_leaf(s.geo, 0)
