"""How a vCPU's loop ends, or waits: stages of so many accesses, frames that move, memslots that go, endless faults."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest
from guests import ALWAYS, caught_up, counters, cpu_at, cpu_before, faults, mapped, running, wait_until, workload
from machines import ALL, assert_sound, block_leaf, evidence, naive_tree, small_machine, split_block, violations

from stress.bugs import WRONG_FAULT_LEVEL
from stress.kernels import vcpu
from stress.kernels.codes import POPULATION, RETRY, STOPPED
from stress.kernels.notifier import move_memslots
from stress.kernels.split import DONE
from stress.kernels.tlb import CHUNK, CPU_LEFT, CPU_PAGE
from stress.kernels.vcpu import FINISHED, RAN, await_beginning, await_stage, run
from stress.kernels.workload import Pattern
from stress.shm.accounts import AT_GFN, C_FAULTS, HEARTBEAT, STATE, Kind, State
from stress.shm.layout import Machine
from stress.shm.mode import JIT_DISABLED
from stress.shm.words import HOST_MOVING, PARK, PARKED, SLOT_BASE, STAGE, STAGE_BEGINS_NS, STOP, VALUE_MASK

# So many accesses, and no more.


@pytest.mark.parametrize("left", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 1000])
def test_a_stage_ends_after_its_accesses(left: int) -> None:
    s = mapped()
    cpu = caught_up(s, cpu_before(s, 0))
    cpu.registers[CPU_LEFT] = left
    assert run(s, cpu, workload(s, write_below=ALWAYS), 0, 100) == FINISHED
    assert counters(s)["accesses"] == counters(s)["writes"] == left
    assert (s.cells & VALUE_MASK)[:left].all(), "the first ones, in order"
    assert not (s.cells & VALUE_MASK)[left:].any()
    assert run(s, cpu, workload(s), 0, 100) == FINISHED
    assert counters(s)["accesses"] == left, "nothing is left to do"


def test_a_stage_that_is_not_over_goes_on() -> None:
    s = mapped()
    cpu = cpu_at()
    cpu.registers[CPU_LEFT] = 5 * CHUNK
    assert run(s, cpu, workload(s), 0, 3) == RAN
    assert (cpu.registers[CPU_LEFT], counters(s)["accesses"]) == (2 * CHUNK, 3 * CHUNK)
    assert run(s, cpu, workload(s), 0, 2) == RAN, "it has not looked further"
    assert run(s, cpu, workload(s), 0, 1) == FINISHED
    assert counters(s)["accesses"] == 5 * CHUNK


def test_without_an_end_there_is_none() -> None:
    s = mapped()
    cpu = cpu_at()
    assert cpu.registers[CPU_LEFT] < 0
    assert run(s, cpu, workload(s), 0, 50) == RAN
    assert counters(s)["accesses"] == 50 * CHUNK
    assert cpu.registers[CPU_LEFT] < 0


def test_a_stage_that_is_cut_short_is_not_finished() -> None:
    s = mapped()
    cpu = cpu_at()
    cpu.registers[CPU_LEFT] = 3 * CHUNK
    s.control[STOP] = 1
    assert run(s, cpu, workload(s), 0, 50) == STOPPED
    assert (cpu.registers[CPU_LEFT], counters(s)["accesses"]) == (3 * CHUNK, 0)


@pytest.mark.parametrize("pattern", [Pattern.SEQUENTIAL, Pattern.PROGRAM])
def test_the_frame_it_works_on_is_known(pattern: Pattern) -> None:
    """To explain a death. A program's register counts accesses, not pages."""
    s = mapped()
    work = workload(s, pattern)
    cpu = cpu_before(s, 640)
    if pattern == Pattern.PROGRAM:
        work = work._replace(first=512, group=512, head=0, skip=256, run=100)
        cpu.registers[CPU_PAGE] = 0
    cpu.registers[CPU_LEFT] = 90
    assert run(s, cpu, work, 0, 1) == RAN
    last = 640 + 89 if pattern == Pattern.SEQUENTIAL else 512 + 256 + 89
    assert s.states[0, AT_GFN] == s.geo.base_gfn + last


# Waiting for a stage.


def test_a_stage_that_began_is_seen_at_once() -> None:
    s = small_machine()
    s.control[STAGE] = 7
    assert await_stage(s, 0, 6, 1) == 7
    assert s.states[0, HEARTBEAT] == 0, "no wait"


def test_who_waits_shows_that_it_lives() -> None:
    s = small_machine()
    s.control[STAGE] = 7
    assert await_stage(s, 0, 7, 25) == 7, "the same: it has not begun"
    assert s.states[0, HEARTBEAT] == 25


def test_a_stopping_run_ends_the_wait() -> None:
    s = small_machine()
    s.control[STAGE], s.control[STOP] = 8, 1
    assert await_stage(s, 0, 7, 25) == STOPPED


def test_who_waits_can_be_parked() -> None:
    """An audit between two stages: the hypervisor waits for every vCPU."""
    s = small_machine()
    await_stage(s, 0, 0, 1)  # compiled
    s.control[PARK] = 1
    result: list[int] = []
    thread = threading.Thread(target=lambda: result.append(int(await_stage(s, 0, 0, 1 << 40))), daemon=True)
    thread.start()
    try:
        wait_until(lambda: s.procs[0, PARKED])
        assert s.states[0, STATE] == State.PARKED
        s.control[PARK] = 0
        wait_until(lambda: not s.procs[0, PARKED])
        s.control[STAGE] = 3
        thread.join(30)
    finally:
        s.control[STOP] = 1
        thread.join()
    assert result == [3]


@pytest.mark.parametrize("told", [True, False], ids=["told before", "told while it waits"])
def test_a_stage_begins_at_its_moment(told: bool) -> None:
    s = small_machine()
    s.control[STAGE_BEGINS_NS] = 1
    assert await_beginning(s, 0) == RAN, "that moment has passed"
    begins = time.monotonic_ns() + 20_000_000
    s.control[STAGE_BEGINS_NS] = begins if told else 0
    result: list[int] = []
    thread = threading.Thread(
        target=lambda: result.extend((int(await_beginning(s, 0)), time.monotonic_ns())), daemon=True
    )
    thread.start()
    try:
        if not told:
            wait_until(lambda: s.states[0, HEARTBEAT] > 0)
            s.control[STAGE_BEGINS_NS] = begins
        thread.join(30)
    finally:
        s.control[STOP] = 1
        thread.join()
    status, ended = result
    assert (status, ended >= begins) == (RAN, True)


@pytest.mark.skipif(not JIT_DISABLED, reason="compiled code calls no replacement")
def test_who_was_told_the_moment_keeps_its_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would have it back a time slice later, within the stage. Who was not told must let the hypervisor have one."""
    s = small_machine()
    yields: list[int] = []

    def told() -> None:
        yields.append(time.monotonic_ns())
        s.control[STAGE_BEGINS_NS] = yields[0] + 20_000_000

    monkeypatch.setattr(vcpu, "sched_yield", told)
    begun = time.monotonic_ns()
    assert await_beginning(s, 0) == RAN
    assert len(yields) == 1
    assert yields[0] - begun >= 1_000_000, "the hypervisor is about to tell it"


def test_a_stopping_run_has_no_more_stages() -> None:
    s = small_machine()
    s.control[STOP] = 1
    assert await_beginning(s, 0) == STOPPED


# Faults that must be tried again.


def test_while_its_frame_moves_an_access_is_tried_again() -> None:
    s = small_machine()
    s.host[:512] = HOST_MOVING
    with running(s, 8) as result:
        wait_until(lambda: s.counters[0, :, C_FAULTS + RETRY].sum() > 3)
        assert counters(s)["accesses"] == 0, "it is in its first chunk"
        assert naive_tree(s).leaves == []
        s.host[:512] = np.arange(512)
    assert result == [RAN]
    assert counters(s)["accesses"] == 8 * CHUNK
    assert faults(s).keys() == {POPULATION, RETRY}
    assert violations(s) == {}
    assert_sound(s)


def test_a_hole_between_memslots_is_waited_out() -> None:
    """A real guest's access would be emulated; here it waits for its memory. It is no fault of the table."""
    s = small_machine(memslots=2)
    place = int(s.memslots[1, SLOT_BASE])
    s.memslots[1, SLOT_BASE] += 1 << 20
    with running(s, 8) as result:
        wait_until(lambda: counters(s)["accesses"] == 3 * CHUNK)
        threading.Event().wait(0.05)
        assert counters(s)["accesses"] == 3 * CHUNK, "the hole is in its fourth chunk"
        assert result == []
        s.memslots[1, SLOT_BASE] = place
    assert result == [RAN]
    assert counters(s)["accesses"] == 8 * CHUNK
    assert faults(s) == {POPULATION: 2}
    assert violations(s) == {}
    assert_sound(s)


def test_the_end_of_the_run_reaches_a_vcpu_in_a_hole() -> None:
    s = small_machine(memslots=2)
    s.memslots[1, SLOT_BASE] += 1 << 20
    with running(s, 8) as result:
        wait_until(lambda: counters(s)["accesses"] == 3 * CHUNK)
        s.control[STOP] = 1
    assert result == [STOPPED]


@pytest.mark.skipif(not JIT_DISABLED, reason="compiled code cannot be stopped between two accesses")
def test_a_memslot_that_moves_takes_the_guest_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the middle of a chunk, whose addresses are the old ones: each access is made once, here or there."""
    s = small_machine(phys_offset=4 << 30)
    new = s.geo.base_gfn + (8 << 18)
    chunks = 0

    def drawn(*arguments: Any) -> Any:
        nonlocal chunks
        chunks += 1
        if chunks == 5:
            move_memslots(s, s.geo.hypervisor, new)
        return draw(*arguments)

    draw: Any = vars(vcpu)["draw_accesses"]
    monkeypatch.setattr(vcpu, "draw_accesses", drawn)
    cpu = cpu_before(s, 0)
    assert run(s, cpu, workload(s, write_below=ALWAYS), 0, 8) == RAN
    assert (s.cells & VALUE_MASK != 0).all()
    assert counters(s)["accesses"] == 8 * CHUNK
    assert assert_sound(s).leaves == [block_leaf(s.geo, 1)._replace(gfn=new + 512)], "all it has touched since"
    assert run(s, cpu, workload(s), 0, 8) == RAN
    assert {leaf.gfn for leaf in assert_sound(s).leaves} == {new, new + 512}
    assert violations(s) == {}


def wait_for_chunks(s: Machine, result: list[int]) -> None:
    """Until the vCPU has run a whole chunk, or ended."""
    before = counters(s)["accesses"]
    wait_until(lambda: counters(s)["accesses"] > before + CHUNK or result)


def test_memslots_that_move_again_and_again() -> None:
    s = small_machine(phys_offset=4 << 30)
    home = s.geo.base_gfn
    with running(s, 1 << 40) as result:
        for n in range(1, 30):
            assert move_memslots(s, s.geo.hypervisor, home + (n % 3 << 18)) == DONE
            wait_for_chunks(s, result)
        s.control[STOP] = 1
    assert violations(s) == {}
    base = int(s.memslots[0, SLOT_BASE])
    assert base != home
    assert {leaf.gfn for leaf in assert_sound(s).leaves} <= {base, base + 512}
    assert faults(s)[POPULATION] > 29, "everything was mapped anew each time"


def test_an_endless_fault_is_reported_and_passed_over() -> None:
    """A real guest would stay there for ever; a run would say nothing but that it hangs."""
    s = small_machine(inject=WRONG_FAULT_LEVEL)
    assert split_block(s, 0, ALL, writable=0) == DONE
    assert split_block(s, 1, ALL) == DONE
    cpu = caught_up(s, cpu_before(s, 0))
    assert run(s, cpu, workload(s, write_below=ALWAYS), 0, 8) == RAN
    assert violations(s) == {"endless-fault": 511}, "the first page of the block got the permission"
    piece = evidence(s, Kind.ENDLESS_FAULT)
    assert (piece["gfn"], piece["who"], piece["level"]) == (s.geo.base_gfn + 1, 0, 3)
    assert counters(s)["accesses"] == 8 * CHUNK
    assert list(np.flatnonzero(s.cells & VALUE_MASK == 0)) == list(range(1, 512)), "what was not allowed did not happen"
    assert sum(faults(s).values()) == 512


def test_values_wrap_round_within_their_bits() -> None:
    """What a guest store counts up: neither the tag nor the mark of the cache may change."""
    s = mapped(guest_caches=True, fwb=False)
    marks = np.arange(s.geo.pages) % 3 == 0
    s.cells[:] |= VALUE_MASK | marks * (VALUE_MASK + 1)
    before = s.cells.copy()
    assert run(s, caught_up(s, cpu_before(s, 0)), workload(s, write_below=ALWAYS), 0, 8) == RAN
    assert (s.cells == before & ~VALUE_MASK).all()
    assert violations(s) == {}
