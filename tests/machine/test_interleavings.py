"""Named orders between any two memory accesses of a vCPU: nothing is ever reported. Wrong orders: found.

The rebuilder's thread runs the real `rebuild`, or the real fault handler of another vCPU that rebuilds, and stops
before every step; the vCPU's runs the real loop, and at chosen loads and stores of its own lets the rebuilder do its
next step.
"""

from __future__ import annotations

import time
from collections import Counter
from itertools import accumulate
from random import Random
from typing import Any

import numpy as np
import pytest
from batons import Actor, before_each
from guests import caught_up
from machines import ALL, block_gfn, naive_tree, run_audit, set_order, small_machine, split_block, violations

from stress.kernels import abort, entries, fault, grace, mapping, rebuild, tlb, vcpu, walk
from stress.kernels.codes import REBUILT, RETRY, WINDOW
from stress.kernels.split import DONE, write_unmapped
from stress.kernels.teardown import reap
from stress.kernels.workload import Pattern, Workload
from stress.orders import NAMED_ORDERS, Order, parse_order
from stress.shm.accounts import C_FAULTS, C_REDONE, C_WRITES, R_VOID
from stress.shm.layout import Machine
from stress.shm.mode import JIT_DISABLED
from stress.shm.words import LOCK, NOT_AT_POC, REBUILDS, TAG_SHIFT, VALUE_MASK

pytestmark = [
    pytest.mark.thorough,
    pytest.mark.skipif(not JIT_DISABLED, reason="compiled code cannot be stopped between two accesses"),
]

PARTIAL = ALL * 15 // 16  # mapped: population faults, which end a schedule early, are few
SCHEDULES = 100
REBUILDER = 1  # process number: of the hypervisor, or of a second vCPU
ACCESSES = ("load", "store", "compare_exchange")


def play(monkeypatch: pytest.MonkeyPatch, s: Machine, order: Order, points: list[int], pattern: Pattern) -> None:
    """Run a vCPU; at its so-manyth accesses to shared memory (``points``) the rebuild goes one step on."""
    set_order(s, order.steps)

    def work() -> int:
        if s.geo.vcpu_rebuilds:
            return int(fault.handle(s, REBUILDER, block_gfn(s.geo, 0) + 1, 0, 0, 3))
        return int(rebuild.rebuild(s, REBUILDER, block_gfn(s.geo, 0)))

    rebuilder = Actor(work)
    accesses = 0

    def clock_ns() -> int:
        rebuilder.pause()
        return time.monotonic_ns()

    def accessed() -> None:
        nonlocal accesses
        if rebuilder.is_current:
            return
        accesses += 1
        for _ in range(points.count(accesses)):
            rebuilder.step()

    def acquire(machine: Machine, who: int) -> bool:
        while machine.control[LOCK] == REBUILDER + 1 and who != REBUILDER:
            rebuilder.step()
        return bool(take_lock(machine, who))

    def back_off(spins: int) -> int:
        rebuilder.hand_over()
        return spins + 1

    take_lock: Any = vars(fault)["acquire"]
    with monkeypatch.context() as patch:
        patch.setattr(rebuild, "clock_ns", clock_ns)
        patch.setattr(fault, "acquire", acquire)
        before_each(patch, (vcpu, walk, tlb), ACCESSES, accessed)
        if s.geo.shared:  # then the rebuild goes on under the vCPU's fault handler, too
            before_each(patch, (entries, mapping, abort), ACCESSES, accessed)
            patch.setattr(fault, "sched_yield", rebuilder.hand_over)
            patch.setattr(grace, "back_off", back_off)
        cpu = caught_up(s, tlb.new_cpu())
        cpu.registers[tlb.CPU_RANDOM] = 99
        work_of_guest = Workload(int(pattern), 512, 7, 0.99, 5, 2048)
        assert vcpu.run(s, cpu, work_of_guest, 0, 2) == vcpu.RAN
        while not rebuilder.done:
            rebuilder.step()
        assert vcpu.run(s, cpu, work_of_guest, 0, 2) == vcpu.RAN
    assert accesses > 500


def play_many(
    monkeypatch: pytest.MonkeyPatch, order: Order, share: int, fwb: bool, **options: Any
) -> tuple[Counter[str], Counter[str]]:
    """(violations, what else happened) over many schedules; without FWB the guest's caches are off."""
    random = Random(5)
    found: Counter[str] = Counter()
    happened: Counter[str] = Counter()
    for _ in range(SCHEDULES):
        s = small_machine(blocks=1, fwb=fwb, guest_caches=fwb, **options)
        assert split_block(s, 0, share) == DONE
        write_unmapped(s, s.geo.hypervisor, block_gfn(s.geo, 0))
        # Starts early, while the TLB fills, or late; several steps at once, or accesses between them: up to so many
        # that one vCPU faults and rebuilds while the other has read the entry and not broken it yet.
        gaps = (random.choice([0, 0, 0, 0, 1, 2, 4, 8, 16, 64, 256, 256]) for _ in range(20))
        points = list(accumulate(gaps, initial=random.randrange(600)))
        play(monkeypatch, s, order, points, random.choice([Pattern.SEQUENTIAL, Pattern.UNIFORM]))
        reap(s, s.geo.hypervisor)
        run_audit(s)
        found.update(violations(s))
        faults = s.counters[0, :, C_FAULTS:].sum(axis=0)
        happened["window faults"] += int(faults[WINDOW])
        happened["retries"] += int(faults[RETRY])
        happened["rebuilt by the guest's own fault"] += int(faults[REBUILT])
        happened["came too late"] += int(s.records[1 : int(s.control[REBUILDS]) + 1, R_VOID].sum())
        happened["redone"] += int(s.counters[0, :, C_REDONE].sum())
        assert (s.cells >> TAG_SHIFT == np.arange(512) + 1).all()
        assert [leaf.level for leaf in naive_tree(s).leaves] == [2]
    return found, happened


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("fwb", [True, False])
@pytest.mark.parametrize("share", [PARTIAL, ALL])
@pytest.mark.parametrize("name", NAMED_ORDERS)
def test_a_named_order_is_never_reported(
    monkeypatch: pytest.MonkeyPatch, name: str, share: int, fwb: bool, shared: bool
) -> None:
    order = NAMED_ORDERS[name]
    found, happened = play_many(monkeypatch, order, share, fwb, bbm_level=order.bbm_level, shared=shared)
    assert found == {}
    if order.bbm_level == 0:
        assert happened["window faults"] > 10, "the vCPU met the window"
    else:
        assert happened["window faults"] == 0, "there is none"
    assert happened["redone"] > 10, "a TLBI overtook it"


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("share", [PARTIAL, ALL])
@pytest.mark.parametrize("name", NAMED_ORDERS)
def test_two_vcpus_that_want_the_block(monkeypatch: pytest.MonkeyPatch, name: str, share: int, shared: bool) -> None:
    """Either may rebuild; where others are let in meanwhile, one of them may find that it came too late."""
    order = NAMED_ORDERS[name]
    found, happened = play_many(
        monkeypatch, order, share, False, bbm_level=order.bbm_level, shared=shared, vcpu_rebuilds=True, vcpus=2
    )
    assert found == {}
    assert happened["redone"] > 10
    if share == PARTIAL:
        assert happened["rebuilt by the guest's own fault"] > 5
        assert (happened["came too late"] > 0) == (shared or order.looks_again)


@pytest.mark.parametrize(
    ("steps", "kinds"),
    [
        ("invalidate,clean,install,unmap", {"bbm", "tlb-conflict", "table-use-after-free"}),
        ("tlbi,clean,install,unmap", {"bbm", "tlb-conflict", "table-use-after-free"}),
        ("invalidate,unmap,tlbi,clean,install", {"table-use-after-free"}),
        ("invalidate,tlbi,clean,install", {"table-leak"}),
        ("invalidate,tlbi,install,unmap", {"not-at-poc"}),
    ],
)
def test_a_wrong_order_is_found(monkeypatch: pytest.MonkeyPatch, steps: str, kinds: set[str]) -> None:
    found, _ = play_many(monkeypatch, parse_order(steps), PARTIAL, False)
    assert set(found) == kinds
    if "table-use-after-free" in kinds:
        assert found["table-use-after-free"] > SCHEDULES, "more than the hypervisor's own finding: walks, too"


def test_without_the_clean_nothing_else_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """With every page mapped, or with FWB, there is nothing to clean."""
    order = parse_order("invalidate,tlbi,install,unmap")
    for share, fwb in ((ALL, False), (PARTIAL, True)):
        found, _ = play_many(monkeypatch, order, share, fwb)
        assert found == {}


@pytest.mark.parametrize("warm", [False, True])
def test_a_store_that_another_vcpu_overtook_is_redone(monkeypatch: pytest.MonkeyPatch, warm: bool) -> None:
    """On the long way (a walk) and on the short one (a TLB hit): the other's value is never overwritten unseen."""
    s = small_machine(blocks=1)
    assert split_block(s, 0, ALL) == DONE
    cpu = caught_up(s, tlb.new_cpu())
    work = Workload(int(Pattern.STRIDED), 128, 1, 0.99, 1, 4096)
    if warm:
        assert vcpu.run(s, cpu, work, 0, 1) == vcpu.RAN
    before = s.counters.sum(axis=(0, 1))
    calls, failed = 0, 0

    def overtaken(cells: Any, frame: int, expected: int, value: int) -> bool:
        nonlocal calls, failed
        calls += 1
        if calls % 3 == 0:
            cells[frame] = vcpu.counted_up(int(cells[frame]))  # what another vCPU has just written
        done = take_it(cells, frame, expected, value)
        failed += not done
        return bool(done)

    take_it: Any = vars(vcpu)["compare_exchange"]
    with monkeypatch.context() as patch:
        patch.setattr(vcpu, "compare_exchange", overtaken)
        assert vcpu.run(s, cpu, work, 0, 1) == vcpu.RAN
    after = s.counters.sum(axis=(0, 1)) - before
    assert failed == calls // 3 > 40
    assert calls - failed == 128 == after[C_WRITES], "each write succeeded once"
    assert (s.cells & VALUE_MASK).sum() == calls - failed + failed + 128 * warm, "and no other's was lost"
    assert violations(s) == {}


def test_cells_really_are_dirty() -> None:
    s = small_machine(blocks=1, fwb=False, guest_caches=False)
    assert split_block(s, 0, PARTIAL) == DONE
    write_unmapped(s, 1, block_gfn(s.geo, 0))
    assert (s.cells & NOT_AT_POC != 0).sum() == 32
