"""What is written down of a rebuild: its times, its figures, its number; and how cycles close and add up."""

from __future__ import annotations

import time

import pytest
from machines import ALL, block_gfn, rebuild_block, small_machine, split_block

from stress.kernels.rebuild import DONE
from stress.kernels.records import close_cycle, close_inside, open_record, settled
from stress.kernels.teardown import reap
from stress.orders import BLOCK_FIRST, INSTALLS, NAMED_ORDERS, TEAR_DOWNS, Order, Step
from stress.shm.words import (
    AT_STEP,
    CLOSED,
    INSIDE,
    LOCK,
    ORDER,
    R_ACCESSES,
    R_BLOCK,
    R_CLEANED,
    R_CYCLE_NS,
    R_DETACHED,
    R_DONE,
    R_END_NS,
    R_ENDED,
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
    REBUILDS,
    RECORD_RING,
    STATE,
    T_ALLOCATED,
    T_CLEANED,
    T_CYCLE_NS,
    T_CYCLES,
    T_FREED,
    T_INSIDE_NS,
    T_REBUILDS,
    T_TLBIS,
    TLBI_DONE,
    State,
)

NAMED = [pytest.param(order, id=name) for name, order in NAMED_ORDERS.items()]
LAST_OF_A_ROUND = (1 << 24) - 1  # of the numbers that fit an entry


@pytest.mark.parametrize("order", NAMED)
def test_the_record(order: Order) -> None:
    s = small_machine(fwb=False, bbm_level=order.bbm_level, orders=2)
    assert split_block(s, 1, 0) == DONE
    number = RECORD_RING + 5
    s.control[REBUILDS] = number - 1
    row = s.records[number % RECORD_RING]
    row[:] = 99
    before = time.monotonic_ns()
    assert rebuild_block(s, 1, order.steps, order=1) == DONE
    after = time.monotonic_ns()
    assert s.control[REBUILDS] == number
    assert (row[R_NUMBER], row[R_ORDER], row[R_BLOCK], row[R_FAULTS]) == (number, 1, 512, 0)
    assert (row[R_WHO], row[R_VOID], row[R_ENDED], row[R_LEFT]) == (s.geo.hypervisor, 0, number, number)
    assert row[R_DONE] == 0, "the cycle is not complete yet"
    breaks, unlocked = Step.INVALIDATE in order.steps, Step.UNMAP_UNLOCKED in order.steps
    clock = [R_REQUESTED_NS, R_LOCKED_NS, R_START_NS, R_INVALID_NS, R_VALID_NS, R_END_NS, R_UNLOCKED_NS]
    if not breaks:
        clock.remove(R_INVALID_NS)
        assert row[R_INVALID_NS] == 0
    if unlocked:
        clock[-2:] = [R_UNLOCKED_NS, R_END_NS]  # the tear-down comes after mmu_lock
    times = [int(row[at]) for at in clock]
    assert times == sorted(times)
    assert before <= times[0] < times[-1] <= after
    steps = row[R_STEPS : R_STEPS + len(order.steps)]
    assert (steps > 0).all()
    lasted = row[R_END_NS] - row[R_START_NS]
    assert steps.sum() <= lasted if unlocked else steps.sum() == lasted
    end = next(i for i, step in enumerate(order.steps) if step in INSTALLS) + 1
    assert row[R_VALID_NS] - row[R_START_NS] == steps[:end].sum()
    if breaks:
        begin = order.steps.index(Step.INVALIDATE)
        assert row[R_INVALID_NS] - row[R_START_NS] == steps[:begin].sum()
        assert row[R_VALID_NS] - row[R_INVALID_NS] == steps[begin:end].sum(), "the window is its steps"
    assert s.control[LOCK] == 0
    assert s.procs[1, STATE] == State.DWELL
    assert s.procs[1, AT_STEP] == -1
    assert s.control[TLBI_DONE] > 0
    assert row[R_CLEANED] == 2 << 20


@pytest.mark.parametrize("step", TEAR_DOWNS)
def test_the_tear_downs_time_is_its_steps(step: Step) -> None:
    """Whenever it happens: at once, or after mmu_lock; a deferred one only costs its queueing."""
    s = small_machine()
    times = []
    for _ in range(9):
        assert split_block(s, 0, ALL) == DONE
        assert rebuild_block(s, 0, (Step.INVALIDATE, Step.TLBI, Step.INSTALL, step)) == DONE
        row = s.records[int(s.control[REBUILDS])]
        times.append(int(row[R_STEPS + 3]))
        if step is Step.UNMAP_UNLOCKED:
            assert row[R_END_NS] - row[R_UNLOCKED_NS] == row[R_STEPS + 3]
        reap(s, s.geo.hypervisor)
    assert all(times)
    assert row[R_FREED] == (0 if step is Step.UNMAP_DEFERRED else 1)


def test_numbers_that_would_read_as_none_are_left_out() -> None:
    """An entry that carries rebuild number 0 was broken by no rebuild: a multiple of 2**24 is a void record."""
    s = small_machine()
    s.control[REBUILDS] = s.control[CLOSED] = LAST_OF_A_ROUND - 1
    numbers = [int(open_record(s, 0, s.geo.base_gfn, 1)) for _ in range(3)]
    assert numbers == [LAST_OF_A_ROUND, LAST_OF_A_ROUND + 2, LAST_OF_A_ROUND + 3]
    assert s.control[INSIDE] == 3
    skipped = LAST_OF_A_ROUND + 1
    row = s.records[skipped % RECORD_RING]
    assert (row[R_NUMBER], row[R_VOID], row[R_LEFT]) == (skipped, 1, skipped)
    for number in numbers:
        assert settled(s, LAST_OF_A_ROUND + 3) < number
        s.records[number % RECORD_RING, R_LEFT] = number
    assert settled(s, LAST_OF_A_ROUND + 3) == LAST_OF_A_ROUND + 3
    assert close_cycle(s, 0, LAST_OF_A_ROUND + 3, 10, 0, 0, 0) == 3
    assert s.totals[0, T_REBUILDS] == 3
    assert row[R_DONE] == skipped, "the collector finds every number"


def test_a_row_is_not_complete_while_it_is_used_again() -> None:
    s = small_machine()
    row = s.records[3]
    row[:] = 3
    s.control[REBUILDS] = 2 + RECORD_RING
    number = int(open_record(s, 0, block_gfn(s.geo, 1), 77))
    assert number == 3 + RECORD_RING
    assert (row[R_DONE], row[R_NUMBER], row[R_LEFT], row[R_ENDED]) == (0, number, 3, 3)
    assert (row[R_BLOCK], row[R_REQUESTED_NS], row[R_FAULTS], row[R_DETACHED]) == (512, 77, 0, -1)
    assert not row[R_INVALID_NS : R_FREED + 1].any()


def test_the_time_inside_rebuilds_is_counted_once() -> None:
    """Two that overlap: from the first's request to the second's end."""
    s = small_machine(orders=2)
    s.control[ORDER] = 1
    start = time.monotonic_ns()
    open_record(s, 0, s.geo.base_gfn, start)
    open_record(s, 1, s.geo.base_gfn, start + 1)
    assert s.control[INSIDE] == 2
    close_inside(s, 1)
    assert s.control[INSIDE] == 1
    assert not s.totals[:, T_INSIDE_NS].any(), "one is still under way"
    before = time.monotonic_ns()
    close_inside(s, 1)
    assert s.control[INSIDE] == 0
    assert before - start <= s.totals[1, T_INSIDE_NS] <= time.monotonic_ns() - start
    assert s.totals[0, T_INSIDE_NS] == 0


def test_who_waited_for_another_rebuild_is_inside_from_its_end_on() -> None:
    s = small_machine()
    start = time.monotonic_ns()
    open_record(s, 0, s.geo.base_gfn, start)
    time.sleep(0.02)
    close_inside(s, 0)
    first = int(s.totals[0, T_INSIDE_NS])
    assert first >= 20_000_000
    open_record(s, 1, s.geo.base_gfn, start)  # asked for mmu_lock when the other one held it
    close_inside(s, 0)
    assert s.totals[0, T_INSIDE_NS] <= time.monotonic_ns() - start


def test_records_that_a_full_ring_lost_hold_nothing_up() -> None:
    s = small_machine()
    number = int(open_record(s, 0, s.geo.base_gfn, 1))
    assert settled(s, number) == number - 1
    s.control[REBUILDS] = number + RECORD_RING - 1
    later = int(open_record(s, 0, s.geo.base_gfn, 1))
    assert later % RECORD_RING == number % RECORD_RING
    for row in range(number + 1, later):
        s.records[row % RECORD_RING, R_NUMBER] = s.records[row % RECORD_RING, R_LEFT] = row
    assert settled(s, later) == later - 1
    s.records[later % RECORD_RING, R_LEFT] = later
    assert settled(s, later) == later
    assert close_cycle(s, 0, later, 10, 0, 0, 0) == RECORD_RING - 1 + 1
    assert s.control[CLOSED] == later


def test_completed_cycles_add_up() -> None:
    s = small_machine(orders=2, fwb=False)
    inside = 0
    for number, order in ((1, 0), (2, 1), (3, 1)):
        assert split_block(s, 0, ALL) == DONE
        assert rebuild_block(s, 0, BLOCK_FIRST.steps, order) == DONE
        assert close_cycle(s, order, number, 1000 * number, 10 * number, number, 2) == 1
        row = s.records[number]
        assert (row[R_DONE], row[R_CYCLE_NS], row[R_ACCESSES]) == (number, 1000 * number, 10 * number)
        assert s.control[CLOSED] == number
        inside = int(row[R_UNLOCKED_NS] - row[R_REQUESTED_NS])
    totals = s.totals
    assert list(totals[:, T_REBUILDS]) == [1, 2]
    assert list(totals[:, T_CYCLES]) == [1, 2]
    assert list(totals[:, T_CYCLE_NS]) == [1000, 5000]
    assert list(totals[:, T_TLBIS]) == [1, 5]
    assert list(totals[:, T_ALLOCATED]) == [2, 4]
    assert list(totals[:, T_FREED]) == [1, 2]
    assert list(totals[:, T_CLEANED]) == [2 << 20, 4 << 20]
    assert totals[1, T_INSIDE_NS] > inside > 0


def test_a_cycle_of_several_rebuilds() -> None:
    """Its figures go to the first that was not void; each rebuild to the order under which it began."""
    s = small_machine(orders=2, fwb=False, blocks=3)
    void = int(open_record(s, 0, s.geo.base_gfn, 1))
    s.records[void, R_VOID] = 1
    s.records[void, R_LEFT] = void
    for block, order in ((0, 0), (1, 1), (2, 1)):
        assert split_block(s, block, ALL) == DONE
        assert rebuild_block(s, block, BLOCK_FIRST.steps, order) == DONE
    last = int(s.control[REBUILDS])
    assert last == 4
    assert close_cycle(s, 1, last, 1000, 50, 7, 3) == 3
    assert list(s.records[1:5, R_DONE]) == [1, 2, 3, 4]
    assert list(s.records[2:5, R_CYCLE_NS]) == [1000, 0, 0]
    assert list(s.records[2:5, R_ACCESSES]) == [50, 0, 0]
    assert list(s.totals[:, T_REBUILDS]) == [1, 2]
    assert list(s.totals[:, T_CLEANED]) == [2 << 20, 4 << 20]
    assert list(s.totals[:, T_CYCLE_NS]) == [0, 1000]
    assert list(s.totals[:, T_CYCLES]) == [0, 1]
    assert close_cycle(s, 1, last, 0, 0, 0, 0) == 0, "closed once"
    assert list(s.totals[:, T_REBUILDS]) == [1, 2]
    assert s.totals[1, T_CYCLES] == 1, "records closed between two cycles are none"
