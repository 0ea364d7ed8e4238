"""What is written down of a rebuild: its times, its figures, its number; and how cycles close and add up."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from machines import ALL, block_gfn, choose_order, rebuild_block, set_order, small_machine, split_block

from stress.kernels import records
from stress.kernels.fault import handle
from stress.kernels.rebuild import DONE, rebuild
from stress.kernels.records import close_cycle, close_inside, close_records, open_cycle, open_records, settled
from stress.kernels.teardown import reap
from stress.live.step_times import step_times
from stress.orders import BLOCK_FIRST, INSTALLS, NAMED_ORDERS, TEAR_DOWNS, Order, Step
from stress.shm.accounts import (
    AT_STEP,
    CLOCK_MASK,
    CLOSED,
    INSIDE,
    INSIDE_MASK,
    K_ACCESSES,
    K_DONE,
    K_ORDER,
    K_TIME_NS,
    PHASE,
    PHASE_SLOT_BITS,
    R_BLOCK,
    R_CLEANED,
    R_CYCLE,
    R_DONE,
    R_END_NS,
    R_FAULTS,
    R_FREED,
    R_INVALID_NS,
    R_LEFT,
    R_LOCKED_NS,
    R_NUMBER,
    R_ORDER,
    R_REQUESTED_NS,
    R_START_NS,
    R_STEPS,
    R_UNLOCKED_NS,
    R_VALID_NS,
    R_VOID,
    R_WHO,
    STATE,
    T_ALLOCATED,
    T_CLEANED,
    T_CYCLE_NS,
    T_CYCLES,
    T_FREED,
    T_INSIDE_NS,
    T_REBUILDS,
    T_TLBIS,
    State,
)
from stress.shm.layout import Machine, Rings
from stress.shm.mode import JIT_DISABLED
from stress.shm.words import B_GFN, B_NUMBER, BATCH_SIZE, CYCLE, LOCK, REBUILDS, TLBI_DONE

CYCLE_ROWS = Rings().cycle_rows
RECORD_ROWS = Rings().record_rows

NAMED = [pytest.param(order, id=name) for name, order in NAMED_ORDERS.items()]
LAST_OF_A_ROUND = (1 << 24) - 1  # of the numbers that fit an entry


@pytest.mark.parametrize("order", NAMED)
def test_the_record(order: Order) -> None:
    s = small_machine(fwb=False, bbm_level=order.bbm_level, orders=2)
    assert split_block(s, 1, 0) == DONE
    number = RECORD_ROWS + 5
    s.control[REBUILDS] = number - 1
    row = s.records[number % RECORD_ROWS]
    row[:] = 99
    before = time.monotonic_ns()
    assert rebuild_block(s, 1, order.steps, order=1) == DONE
    after = time.monotonic_ns()
    assert s.control[REBUILDS] == number
    assert (row[R_NUMBER], row[R_ORDER], row[R_BLOCK], row[R_FAULTS]) == (number, 1, 512, 0)
    assert (row[R_WHO], row[R_VOID], s.ended[5], row[R_LEFT]) == (s.geo.hypervisor, 0, number, number)
    assert row[R_DONE] == 0, "the cycle is not complete yet"
    breaks, unlocked = Step.INVALIDATE in order.steps, Step.UNLOCK in order.steps
    clock = [R_REQUESTED_NS, R_LOCKED_NS, R_START_NS, R_INVALID_NS, R_VALID_NS, R_END_NS, R_UNLOCKED_NS]
    if order.looks_again:
        clock[:3] = [R_START_NS, R_REQUESTED_NS, R_LOCKED_NS]
    if not breaks:
        clock.remove(R_INVALID_NS)
        assert row[R_INVALID_NS] == 0
    if unlocked:
        clock[-2:] = [R_UNLOCKED_NS, R_END_NS]  # the tear-down comes after mmu_lock
    times = [int(row[at]) for at in clock]
    assert times == sorted(times)
    assert before <= times[0] < times[-1] <= after
    [steps] = step_times(row[np.newaxis], [order, order])
    steps = steps[: len(order.steps)]
    assert (steps > 0).all()
    assert steps.sum() == row[R_END_NS] - row[R_START_NS]
    end = next(i for i, step in enumerate(order.steps) if step in INSTALLS) + 1
    assert row[R_VALID_NS] - row[R_START_NS] == steps[:end].sum()
    if breaks:
        begin = order.steps.index(Step.INVALIDATE)
        assert row[R_INVALID_NS] - row[R_START_NS] == steps[:begin].sum()
        assert row[R_VALID_NS] - row[R_INVALID_NS] == steps[begin:end].sum(), "the window is its steps"
    assert s.control[LOCK] == 0
    assert s.states[1, STATE] == State.DWELL
    assert s.states[1, AT_STEP] == -1
    assert s.control[TLBI_DONE] > 0
    assert row[R_CLEANED] == 2 << 20


@pytest.mark.parametrize("tear_down", [*((step,) for step in TEAR_DOWNS), (Step.UNLOCK, Step.UNMAP)])
def test_the_tear_downs_time_is_its_steps(tear_down: tuple[Step, ...]) -> None:
    """Whenever it happens: at once, or after mmu_lock; a deferred one only costs its queueing."""
    s = small_machine()
    order = Order("", (Step.INVALIDATE, Step.TLBI, Step.INSTALL, *tear_down), "", "")
    times = []
    for _ in range(9):
        assert split_block(s, 0, ALL) == DONE
        assert rebuild_block(s, 0, order.steps) == DONE
        row = s.records[int(s.control[REBUILDS])]
        times.append(int(row[R_STEPS + order.first + len(order.steps) - 1]))
        assert bool(row[R_END_NS] > row[R_UNLOCKED_NS]) is (Step.UNLOCK in tear_down)
        if Step.UNLOCK in tear_down:
            assert 0 <= row[R_END_NS] - row[R_UNLOCKED_NS] - times[-1] < 50_000_000, "but for a clock call in between"
        reap(s, s.geo.hypervisor)
    assert all(times)
    assert row[R_FREED] == (0 if Step.UNMAP_DEFERRED in tear_down else 1)


def begun(s: Machine, who: int, gfn: int, requested_ns: int) -> int:
    """Number of a rebuild that a process begins."""
    s.batches[who, BATCH_SIZE] = 1
    s.building[who, 0, B_GFN] = gfn
    open_records(s, who, requested_ns)
    return int(s.building[who, 0, B_NUMBER])


def test_numbers_that_would_read_as_none_are_left_out() -> None:
    """An entry that carries rebuild number 0 was broken by no rebuild: a multiple of 2**24 is a void record."""
    s = small_machine()
    s.control[REBUILDS] = s.tally[CLOSED] = LAST_OF_A_ROUND - 1
    numbers = [begun(s, 0, s.geo.base_gfn, 1) for _ in range(3)]
    assert numbers == [LAST_OF_A_ROUND, LAST_OF_A_ROUND + 2, LAST_OF_A_ROUND + 3]
    assert s.tally[INSIDE] & INSIDE_MASK == 3
    skipped = LAST_OF_A_ROUND + 1
    row = s.records[skipped % RECORD_ROWS]
    assert (row[R_NUMBER], row[R_VOID], row[R_LEFT]) == (skipped, 1, skipped)
    for number in numbers:
        assert settled(s, LAST_OF_A_ROUND + 3) < number
        s.records[number % RECORD_ROWS, R_LEFT] = number
    assert settled(s, LAST_OF_A_ROUND + 3) == LAST_OF_A_ROUND + 3
    assert close_records(s, LAST_OF_A_ROUND + 3) == 3
    assert s.totals[0, T_REBUILDS] == 3
    assert row[R_DONE] == skipped, "the collector finds every number"


def test_a_row_is_not_complete_while_it_is_used_again() -> None:
    s = small_machine()
    row = s.records[3]
    row[:] = s.ended[3] = 3
    s.control[REBUILDS] = 2 + RECORD_ROWS
    number = begun(s, 0, block_gfn(s.geo, 1), 77)
    assert number == 3 + RECORD_ROWS
    assert (row[R_DONE], row[R_NUMBER], row[R_LEFT], s.ended[number % RECORD_ROWS]) == (0, number, 3, 3)
    assert (row[R_BLOCK], row[R_REQUESTED_NS], row[R_FAULTS]) == (512, 77, 0)
    assert not row[R_INVALID_NS : R_FREED + 1].any()


def test_the_time_inside_rebuilds_is_counted_once() -> None:
    """Two that overlap: from the first's beginning to the second's end."""
    s = small_machine(orders=2)
    choose_order(s, 1)
    start = time.monotonic_ns()
    begun(s, 0, s.geo.base_gfn, start)
    opened = time.monotonic_ns()
    begun(s, 1, s.geo.base_gfn, start + 1)
    assert s.tally[INSIDE] & INSIDE_MASK == 2
    close_inside(s, 1)
    assert s.tally[INSIDE] & INSIDE_MASK == 1
    assert not s.totals[:, T_INSIDE_NS].any(), "one is still under way"
    before = time.monotonic_ns()
    close_inside(s, 1)
    assert s.tally[INSIDE] == 0
    assert before - opened <= s.totals[1, T_INSIDE_NS] <= time.monotonic_ns() - start
    assert s.totals[0, T_INSIDE_NS] == 0


@pytest.mark.parametrize("vcpu_rebuilds", [False, True])
def test_the_wait_for_mmu_lock_is_not_inside(vcpu_rebuilds: bool) -> None:
    """Accesses count as inside from when the rebuilder has mmu_lock; so does time, or their rate would be too low."""
    s = small_machine(vcpus=2, vcpu_rebuilds=vcpu_rebuilds)
    assert split_block(s, 0, ALL // 2) == DONE
    set_order(s, BLOCK_FIRST.steps)
    open_cycle(s, 0)
    s.control[LOCK] = 2  # vCPU 1 holds it
    work = (lambda: handle(s, 0, s.geo.base_gfn, 0, 0, 3)) if vcpu_rebuilds else (lambda: rebuild(s, 2, s.geo.base_gfn))
    who = 0 if vcpu_rebuilds else 2
    rebuilder = threading.Thread(target=work)
    rebuilder.start()
    while s.states[who, STATE] != State.LOCK_WAIT:
        time.sleep(0.001)
    time.sleep(1.0)
    assert s.tally[INSIDE] == 0
    s.control[LOCK] = 0
    rebuilder.join()
    row = s.records[1]
    assert row[R_LOCKED_NS] - row[R_REQUESTED_NS] >= 1_000_000_000
    assert 0 < s.totals[0, T_INSIDE_NS] < time.monotonic_ns() - row[R_LOCKED_NS]


def test_the_clock_of_the_time_inside_may_turn_over(monkeypatch: pytest.MonkeyPatch) -> None:
    if not JIT_DISABLED:
        pytest.skip("compiled code has the machine's own clock")
    s = small_machine()
    now = iter([CLOCK_MASK - 4, CLOCK_MASK + 6])
    monkeypatch.setattr(records, "clock_ns", lambda: next(now))
    begun(s, 0, s.geo.base_gfn, 1)
    assert 0 < s.tally[INSIDE] < 1 << 63
    close_inside(s, 0)
    assert s.totals[0, T_INSIDE_NS] == 10


def test_records_that_a_full_ring_lost_hold_nothing_up() -> None:
    s = small_machine()
    number = begun(s, 0, s.geo.base_gfn, 1)
    assert settled(s, number) == number - 1
    s.control[REBUILDS] = number + RECORD_ROWS - 1
    later = begun(s, 0, s.geo.base_gfn, 1)
    assert later % RECORD_ROWS == number % RECORD_ROWS
    for row in range(number + 1, later):
        s.records[row % RECORD_ROWS, R_NUMBER] = s.records[row % RECORD_ROWS, R_LEFT] = row
    assert settled(s, later) == later - 1
    s.records[later % RECORD_ROWS, R_LEFT] = later
    assert settled(s, later) == later
    assert close_records(s, later) == RECORD_ROWS - 1 + 1
    assert s.tally[CLOSED] == later


def test_completed_cycles_add_up() -> None:
    s = small_machine(orders=2, fwb=False)
    inside = 0
    for number, order in ((1, 0), (2, 1), (3, 1)):
        open_cycle(s, order)
        assert (s.control[CYCLE], s.tally[PHASE]) == (number, number << PHASE_SLOT_BITS | 2 * order)
        assert split_block(s, 0, ALL) == DONE
        assert rebuild_block(s, 0, BLOCK_FIRST.steps, order) == DONE
        assert close_records(s, number) == 1
        assert s.cycles[number, K_DONE] == 0
        close_cycle(s, 1000 * number, 10 * number, number, 2)
        row = s.records[number]
        assert (row[R_DONE], row[R_CYCLE], row[R_ORDER]) == (number, number, order)
        words = [s.cycles[number, word] for word in (K_DONE, K_ORDER, K_TIME_NS, K_ACCESSES)]
        assert words == [number, order, 1000 * number, 10 * number]
        assert s.tally[CLOSED] == number
        inside = int(row[R_UNLOCKED_NS] - row[R_LOCKED_NS])
    totals = s.totals
    assert list(totals[:, T_REBUILDS]) == [1, 2]
    assert list(totals[:, T_CYCLES]) == [1, 2]
    assert list(totals[:, T_CYCLE_NS]) == [1000, 5000]
    assert list(totals[:, T_TLBIS]) == [1, 5]
    assert list(totals[:, T_ALLOCATED]) == [2, 4]
    assert list(totals[:, T_FREED]) == [1, 2]
    assert list(totals[:, T_CLEANED]) == [2 << 20, 4 << 20]
    assert totals[1, T_INSIDE_NS] > inside / 2 > 0


def test_a_cycle_of_several_rebuilds() -> None:
    """Each counts for the cycle and the order under which it began, which may be those before; time is the cycle's."""
    s = small_machine(orders=2, fwb=False, blocks=3)
    open_cycle(s, 0)
    void = begun(s, 0, s.geo.base_gfn, 1)
    s.records[void, R_VOID] = 1
    s.records[void, R_LEFT] = void
    for block, order in ((0, 0), (1, 1), (2, 1)):
        if block == 1:
            open_cycle(s, 1)
        assert split_block(s, block, ALL) == DONE
        assert rebuild_block(s, block, BLOCK_FIRST.steps, order) == DONE
    last = int(s.control[REBUILDS])
    assert last == 4
    assert close_records(s, last) == 3
    close_cycle(s, 1000, 50, 7, 3)
    assert list(s.records[1:5, R_DONE]) == [1, 2, 3, 4]
    assert list(s.records[1:5, R_CYCLE]) == [1, 1, 2, 2]
    assert list(s.totals[:, T_REBUILDS]) == [1, 2]
    assert list(s.totals[:, T_CLEANED]) == [2 << 20, 4 << 20]
    assert list(s.totals[:, T_CYCLE_NS]) == [0, 1000]
    assert list(s.totals[:, T_CYCLES]) == [0, 1]
    assert close_records(s, last) == 0, "closed once"
    assert list(s.totals[:, T_REBUILDS]) == [1, 2]


def test_a_cycles_row_is_not_complete_while_it_is_used_again() -> None:
    s = small_machine(orders=2)
    s.control[CYCLE] = 2 + CYCLE_ROWS
    s.cycles[3] = 3
    open_cycle(s, 1)
    assert (s.cycles[3, K_DONE], s.cycles[3, K_ORDER]) == (0, 1)
    number = begun(s, 0, s.geo.base_gfn, 1)
    assert (s.records[number, R_CYCLE], s.records[number, R_ORDER]) == (3 + CYCLE_ROWS, 1)
