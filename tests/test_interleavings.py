"""Named orders between any two memory accesses of a vCPU: nothing is ever reported. Wrong orders: found.

The hypervisor's thread runs the real `rebuild` and stops before every step; the vCPU's runs the real loop, and at
chosen loads and stores of its own lets the hypervisor do its next step. Compiled code cannot be stopped like that,
so this is for the pure-Python twins, which share the source with it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from itertools import accumulate
from random import Random
from typing import Any

import numpy as np
import pytest
from machines import naive_tree, run_audit, small_machine, violations

from stress.kernels import fault, rebuild, split, tlb, vcpu, walk
from stress.kernels.pattern import Pattern, Workload
from stress.orders import NAMED_ORDERS, Order, parse_order
from stress.shm.atomics import JIT_DISABLED
from stress.shm.layout import Machine
from stress.shm.words import C_FAULTS, C_REDONE, C_WRITES, LOCK, NOT_AT_POC, TAG_SHIFT

pytestmark = pytest.mark.skipif(not JIT_DISABLED, reason="compiled code cannot be stopped between two accesses")

ALL = 1 << 20
PARTIAL = ALL * 15 // 16  # mapped: population faults, which end a schedule early, are few
SCHEDULES = 100


class Hypervisor:
    """A thread that runs only while it is told to, from one pause to the next."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self._go, self._paused = threading.Semaphore(0), threading.Semaphore(0)
        self._work = work
        self.done = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self._go.acquire()
        try:
            self._work()
        finally:
            self.done = True
            self._paused.release()

    def pause(self) -> None:
        """Called in the thread: give the baton back."""
        if threading.current_thread() is self._thread:
            self._paused.release()
            self._go.acquire()

    def step(self) -> None:
        """Let it run to its next pause, or to its end."""
        if not self.done:
            self._go.release()
            self._paused.acquire()


def play(monkeypatch: pytest.MonkeyPatch, s: Machine, order: Order, points: list[int], pattern: Pattern) -> None:
    """Run a vCPU; at its so-manyth accesses to shared memory (``points``) the rebuild goes one step on."""
    steps = np.array(order.codes, np.int64)
    hypervisor = Hypervisor(lambda: rebuild.rebuild(s, 1, 0, steps, 0, 1))
    accesses = 0

    def clock_ns() -> int:
        hypervisor.pause()
        return time.monotonic_ns()

    def hooked(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            nonlocal accesses
            accesses += 1
            for _ in range(points.count(accesses)):
                hypervisor.step()
            return function(*arguments)

        return call

    def acquire(machine: Machine, who: int) -> bool:
        while machine.control[LOCK] == 2:
            hypervisor.step()
        return bool(take_lock(machine, who))

    take_lock: Any = vars(fault)["acquire"]
    with monkeypatch.context() as patch:
        patch.setattr(rebuild, "clock_ns", clock_ns)
        patch.setattr(fault, "acquire", acquire)
        for module in (vcpu, walk, tlb):
            patch.setattr(module, "load", hooked(vars(module)["load"]))
        patch.setattr(vcpu, "compare_exchange", hooked(vars(vcpu)["compare_exchange"]))
        cpu = tlb.new_cpu()
        cpu.registers[vcpu.R_SEEN] = s.control[0]
        cpu.registers[vcpu.R_RANDOM] = 99
        work = Workload(int(pattern), 512, 7, 0.99, 5, 2048)
        assert vcpu.run(s, cpu, work, 0, 2) == vcpu.RAN
        while not hypervisor.done:
            hypervisor.step()
        assert vcpu.run(s, cpu, work, 0, 2) == vcpu.RAN
    assert accesses > 500


def play_many(
    monkeypatch: pytest.MonkeyPatch, order: Order, share: int, fwb: bool
) -> tuple[dict[str, int], dict[str, int]]:
    """(violations, what else happened) over many schedules."""
    random = Random(5)
    found: dict[str, int] = {}
    happened = {"window faults": 0, "redone": 0}
    for _ in range(SCHEDULES):
        s = small_machine(blocks=1, fwb=fwb, guest_caches=fwb)
        assert split.split(s, 1, 0, share) == split.DONE
        split.write_unmapped(s, 1, 0)
        # Starts early, while the TLB fills, or late; several steps at once, or accesses between them.
        gaps = (random.choice([0, 0, 0, 0, 1, 2, 4, 8, 16, 64]) for _ in range(20))
        points = list(accumulate(gaps, initial=random.randrange(600)))
        play(monkeypatch, s, order, points, random.choice([Pattern.SEQUENTIAL, Pattern.UNIFORM]))
        run_audit(s)
        for kind, count in violations(s).items():
            found[kind] = found.get(kind, 0) + count
        happened["window faults"] += int(s.counters[0, :, C_FAULTS + fault.WINDOW].sum())
        happened["redone"] += int(s.counters[0, :, C_REDONE].sum())
        assert (s.cells >> TAG_SHIFT == np.arange(512) + 1).all()
        assert [leaf.level for leaf in naive_tree(s).leaves] == [2]
    return found, happened


@pytest.mark.parametrize("fwb", [True, False])
@pytest.mark.parametrize("share", [PARTIAL, ALL])
@pytest.mark.parametrize("name", NAMED_ORDERS)
def test_a_named_order_is_never_reported(monkeypatch: pytest.MonkeyPatch, name: str, share: int, fwb: bool) -> None:
    found, happened = play_many(monkeypatch, NAMED_ORDERS[name], share, fwb)
    assert found == {}
    assert happened["window faults"] > 10, "the vCPU met the window"
    assert happened["redone"] > 10, "a TLBI overtook it"


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
    found, _ = play_many(monkeypatch, parse_order(steps), PARTIAL, fwb=False)
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
    assert split.split(s, 1, 0, ALL) == split.DONE
    cpu = tlb.new_cpu()
    cpu.registers[vcpu.R_SEEN] = s.control[0]
    work = Workload(int(Pattern.STRIDED), 128, 1, 0.99, 1, 4096)
    if warm:
        assert vcpu.run(s, cpu, work, 0, 1) == vcpu.RAN
    before = s.counters.sum(axis=(0, 1))
    calls, failed = 0, 0

    def overtaken(cells: Any, frame: int, expected: int, value: int) -> bool:
        nonlocal calls, failed
        calls += 1
        if calls % 3 == 0:
            cells[frame] = cells[frame] ^ 0x40000000  # what another vCPU has just written
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
    assert violations(s) == {}


def test_cells_really_are_dirty() -> None:
    s = small_machine(blocks=1, fwb=False, guest_caches=False)
    split.split(s, 1, 0, PARTIAL)
    split.write_unmapped(s, 1, 0)
    assert (s.cells & NOT_AT_POC != 0).sum() == 32
