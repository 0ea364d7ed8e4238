"""FEAT_BBM as the vCPU's TLB has it: what level 1 may not keep, and what level 2 copes with (DDI 0487 D8.14.2)."""

from __future__ import annotations

import pytest
from guests import RW, caught_up, counters, cpu_before, faults, mapped, workload
from machines import ALL, assert_sound, block_leaf, evidence, rebuild_block, violations

from stress.kernels.descriptor import with_nt
from stress.kernels.entries import find
from stress.kernels.rebuild import DONE
from stress.kernels.tlb import CHUNK, MISS, Cpu, fill, lookup_level
from stress.kernels.vcpu import RAN, run
from stress.orders import BBML2, NT, Order, Step
from stress.shm.accounts import Kind
from stress.shm.layout import Machine


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


@pytest.mark.parametrize("bbm_level", [1, 2])
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


def test_at_level_2_what_overlaps_is_gone_and_nothing_else() -> None:
    s = mapped(bbm_level=2)
    cpu = with_pages_held(s, 7, 511, 600)
    assert run(s, cpu, workload(s), 0, 1) == RAN
    assert violations(s) == {}
    bits, base = s.geo.index_bits, s.geo.base_gfn
    assert list(cpu.live) == [0, 0, 1, 1]
    assert [lookup_level(cpu, 3, bits, base + page) for page in (7, 511, 600)] == [MISS, MISS, 600 << 2 | RW]
    assert lookup_level(cpu, 2, bits, base + 7) == 7 << 2 | RW


BETWEEN = [
    pytest.param(order, level, n, id=f"{order.name}-{level}-{n}")
    for order, level in ((NT, 1), (NT, 2), (BBML2, 2))
    for n in range(2, len(order.steps) + 1)
]


@pytest.mark.parametrize(("order", "bbm_level", "steps"), BETWEEN)
def test_a_guest_between_the_steps_of_an_order_without_a_break(order: Order, bbm_level: int, steps: int) -> None:
    """It runs on pages, then on what the order has made so far: no fault, and nothing to report."""
    s = mapped(ALL, bbm_level=bbm_level)
    cpu = caught_up(s, cpu_before(s, 0))
    lap(s, cpu)
    assert rebuild_block(s, 0, order.steps[:steps]) == DONE
    lap(s, cpu)
    lap(s, cpu)
    assert faults(s) == {}
    cut = Step.CLEAR_NT not in order.steps[:steps] and order is NT
    assert violations(s) == ({"not-installed": 1} if cut else {}), "an order that ends here leaves nT set"
    if steps == len(order.steps):
        assert assert_sound(s).leaves[0] == block_leaf(s.geo, 0)
