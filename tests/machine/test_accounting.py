"""A vCPU's exit with a fault: counted once, under class, level and phase, logged, timed, charged to its rebuild."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from machines import (
    ALL,
    evidence,
    fault,
    naive_tree,
    set_order,
    small_machine,
    split_block,
    violations,
)

from stress.arch.descriptors import S2AP_W
from stress.arch.geometry import LAST_LEVEL
from stress.bugs import WRONG_FAULT_LEVEL
from stress.config import RunConfig
from stress.kernels.codes import (
    ENDLESS,
    NO_SLOT,
    PERMISSION,
    POOL_EXHAUSTED,
    POPULATION,
    REBUILT,
    RETRY,
    SPURIOUS,
    STOPPED,
    WINDOW,
)
from stress.kernels.descriptor import LOCKED, broken
from stress.kernels.dirty import set_logging
from stress.kernels.entries import find
from stress.kernels.fault import handle, phase_now
from stress.kernels.pool import allocate_table
from stress.kernels.split import DONE
from stress.live.hypervisor import Hypervisor
from stress.live.planning import plan_for
from stress.orders import BLOCK_FIRST
from stress.shm import accounts
from stress.shm.accounts import (
    C_DROPPED,
    C_FAULTS,
    C_LOCK_HOLD_NS,
    C_LOCK_WAIT_NS,
    C_LOCKS,
    C_MAPPED_BLOCKS,
    C_MAPPED_PAGES,
    C_PERMISSION,
    C_RELAXED,
    C_SPLITS,
    C_TRANSLATION,
    COUNTER_WORDS,
    E_CYCLE,
    E_GFN,
    E_LOCK_WAIT_NS,
    E_NUMBER,
    E_STALL_NS,
    E_TIME_NS,
    E_WHAT,
    EVENT_HEAD,
    FAULT_KINDS,
    INSIDE,
    PHASE,
    PHASE_SLOT_BITS,
    R_CYCLE,
    R_FAULTS,
    R_NUMBER,
    R_ORDER,
    STATE,
    WHAT_SLOT_SHIFT,
    Kind,
    State,
)
from stress.shm.histogram import bucket
from stress.shm.layout import Machine, Rings
from stress.shm.words import HOST_MOVING, LOCK, POOL_HEAD, POOL_TAIL, SLOT_LOGGING, STOP, WALKING

EVENT_ROWS = Rings().event_rows
RECORD_ROWS = Rings().record_rows


def fault_counts(s: Machine, vcpu: int, slot: int) -> dict[int, int]:
    """Faults of each class that occurred."""
    counts = s.counters[vcpu, slot, C_FAULTS : C_FAULTS + FAULT_KINDS]
    return {kind: int(count) for kind, count in enumerate(counts) if count}


#: Counters that are times, and so not known beforehand.
TIMES = {C_LOCK_WAIT_NS, C_LOCK_HOLD_NS}


def counted(s: Machine, slot: int) -> dict[int, int]:
    """All counters of vCPU 0 that are not zero, but times."""
    return {at: int(s.counters[0, slot, at]) for at in range(COUNTER_WORDS) if s.counters[0, slot, at]} | dict.fromkeys(
        TIMES, 0
    )


def expect(*at: int) -> dict[int, int]:
    """What ``counted`` says after one fault that counted in these."""
    return dict.fromkeys(at, 1) | {C_LOCKS: 1} | dict.fromkeys(TIMES, 0)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("inside", [0, 1])
@pytest.mark.parametrize("write", [0, 1])
def test_a_fault_is_counted_logged_and_timed_once(inside: int, write: int, shared: bool) -> None:
    s = small_machine(vcpus=2, orders=2, shared=shared)
    s.tally[PHASE] = 77 << PHASE_SLOT_BITS | 2 * 1
    s.tally[INSIDE] = inside
    slot = 2 * 1 + inside
    gfn = s.geo.base_gfn + 12
    assert handle(s, 1, gfn, write, 0, 2) == POPULATION
    assert fault_counts(s, 1, slot) == {POPULATION: 1}
    assert s.counters[:, :, C_FAULTS : C_FAULTS + FAULT_KINDS].sum() == 1
    counters = s.counters[1, slot]
    assert counters[C_LOCKS] == 1
    event = s.events[1, 0]
    assert s.event_index[1, EVENT_HEAD] == 1
    assert s.event_index[0, EVENT_HEAD] == 0
    assert (event[E_GFN], event[E_CYCLE], event[E_NUMBER]) == (gfn, 77, 0)
    assert event[E_WHAT] == POPULATION | 2 << 4 | write << 8 | slot << 16
    assert event[E_TIME_NS] > 0
    assert 0 <= event[E_LOCK_WAIT_NS] == counters[C_LOCK_WAIT_NS]
    assert event[E_STALL_NS] >= counters[C_LOCK_WAIT_NS] + counters[C_LOCK_HOLD_NS] > 0
    assert s.stalls.sum() == 1
    assert s.stalls[1, 1, POPULATION, bucket(event[E_STALL_NS])] == 1
    assert s.states[1, STATE] == State.GUEST
    assert s.control[LOCK] == 0
    assert s.procs[1, WALKING] == (2 if shared else 0), "a read-side section, entered and left"


def test_classes_of_faults() -> None:
    s = small_machine()
    s.tally[PHASE] = 1 << PHASE_SLOT_BITS
    gfn = s.geo.base_gfn
    assert handle(s, 0, gfn, 0, 0, 1) == POPULATION
    assert handle(s, 0, gfn, 0, 0, 1) == SPURIOUS
    index, _ = find(s, gfn, 3)
    s.tables[index] &= ~S2AP_W
    assert handle(s, 0, gfn, 1, 0, -1) == PERMISSION, "a TLB hit without permission walked nothing"
    assert s.events[0, 2, E_WHAT] >> 4 & 0xF == 0
    assert fault_counts(s, 0, 0) == {SPURIOUS: 1, POPULATION: 1, PERMISSION: 1}


# What was done to the table, and at which level the vCPU's walk met the fault.


def maps_a_block(s: Machine) -> tuple[int, dict[int, int]]:
    return handle(s, 0, s.geo.base_gfn, 0, 0, 1), expect(C_FAULTS + POPULATION, C_MAPPED_BLOCKS, C_TRANSLATION + 1)


def maps_a_page(s: Machine) -> tuple[int, dict[int, int]]:
    s.memslots[0, SLOT_LOGGING] = 1
    return handle(s, 0, s.geo.base_gfn, 1, 0, 2), expect(C_FAULTS + POPULATION, C_MAPPED_PAGES, C_TRANSLATION + 2)


def relaxes_a_page_that_was_walked_to(s: Machine) -> tuple[int, dict[int, int]]:
    assert split_block(s, 0, ALL, writable=0) == DONE
    index, level = find(s, s.geo.base_gfn, 3)
    found = handle(s, 0, s.geo.base_gfn, 1, int(s.tables[index]), level)
    return found, expect(C_FAULTS + PERMISSION, C_RELAXED, C_PERMISSION + 3)


def relaxes_a_block_that_was_in_the_tlb(s: Machine) -> tuple[int, dict[int, int]]:
    """Its level is that of the entry which the handler finds."""
    assert fault(s, s.geo.base_gfn) == POPULATION
    index, _ = find(s, s.geo.base_gfn, 3)
    s.tables[index] &= ~S2AP_W
    return handle(s, 0, s.geo.base_gfn, 1, 0, -1), expect(C_FAULTS + PERMISSION, C_RELAXED, C_PERMISSION + 2)


def splits_a_block(s: Machine) -> tuple[int, dict[int, int]]:
    """Which maps a page, too."""
    assert fault(s, s.geo.base_gfn) == POPULATION
    assert set_logging(s, s.geo.hypervisor, 1) == 1
    index, level = find(s, s.geo.base_gfn, 3)
    found = handle(s, 0, s.geo.base_gfn, 1, int(s.tables[index]), level)
    return found, expect(C_FAULTS + PERMISSION, C_SPLITS, C_MAPPED_PAGES, C_PERMISSION + 2)


def finds_it_mapped(s: Machine) -> tuple[int, dict[int, int]]:
    assert fault(s, s.geo.base_gfn) == POPULATION
    return handle(s, 0, s.geo.base_gfn, 0, 0, 2), expect(C_FAULTS + SPURIOUS, C_TRANSLATION + 2)


def finds_its_frame_moving(s: Machine) -> tuple[int, dict[int, int]]:
    s.host[3] = HOST_MOVING
    return handle(s, 0, s.geo.base_gfn + 3, 0, 0, 2), expect(C_FAULTS + RETRY, C_TRANSLATION + 2)


OUTCOMES: list[Callable[[Machine], tuple[int, dict[int, int]]]] = [
    maps_a_block,
    maps_a_page,
    relaxes_a_page_that_was_walked_to,
    relaxes_a_block_that_was_in_the_tlb,
    splits_a_block,
    finds_it_mapped,
    finds_its_frame_moving,
]


@pytest.mark.parametrize("outcome", OUTCOMES, ids=lambda outcome: outcome.__name__)
def test_each_outcome_counts_what_it_did_and_where(
    outcome: Callable[[Machine], tuple[int, dict[int, int]]],
) -> None:
    s = small_machine()
    s.tally[PHASE] = 1 << PHASE_SLOT_BITS
    found, expected = outcome(s)
    assert counted(s, 0) == expected
    assert expected[C_FAULTS + found] == 1
    assert s.counters[0, 1:].sum() == 0
    assert s.event_index[0, EVENT_HEAD] == 1
    assert s.control[LOCK] == 0
    assert violations(s) == {}


def test_the_fault_that_rebuilds_is_a_class_of_its_own() -> None:
    s = small_machine(vcpu_rebuilds=True)
    s.tally[PHASE] = 1 << PHASE_SLOT_BITS
    assert split_block(s, 0, ALL // 2) == DONE
    set_order(s, BLOCK_FIRST.steps)
    assert handle(s, 0, s.geo.base_gfn, 0, 0, 3) == REBUILT
    assert counted(s, 0) == expect(C_FAULTS + REBUILT, C_TRANSLATION + 3)
    assert [leaf.level for leaf in naive_tree(s).leaves] == [2]
    assert s.tally[INSIDE] == 0
    assert s.control[LOCK] == 0


@pytest.mark.parametrize("owner", ["a rebuild", "another handler"])
def test_who_meets_an_entry_that_another_owns_goes_back_to_the_guest(owner: str) -> None:
    """Under a shared mmu_lock; a rebuild's window is one all the same."""
    s = small_machine(shared=True)
    s.tally[PHASE] = 1 << PHASE_SLOT_BITS
    assert split_block(s, 0, ALL) == DONE
    index, _ = find(s, s.geo.base_gfn, 2)
    word = open_window(s, 5, 0) if owner == "a rebuild" else LOCKED
    s.tables[index] = word
    kind = WINDOW if owner == "a rebuild" else RETRY
    assert handle(s, 0, s.geo.base_gfn + 3, 0, word, 2) == kind
    assert s.tables[index] == word, "untouched"
    slot = 1 if owner == "a rebuild" else 0  # inside its window
    assert fault_counts(s, 0, slot) == {kind: 1}
    assert s.control[LOCK] == 0


def test_a_fault_outside_all_memslots_is_not_one_of_the_tables() -> None:
    s = small_machine()
    s.tally[PHASE] = 1 << PHASE_SLOT_BITS
    assert handle(s, 0, s.geo.base_gfn - 1, 0, 0, 2) == NO_SLOT
    assert s.counters.sum() == 0
    assert s.event_index[0, EVENT_HEAD] == 0
    assert s.control[LOCK] == 0


def test_a_fault_that_would_come_again_for_ever() -> None:
    """The bug of v5.10-rc: permission goes to the entry at the block's first address, not to the one that lacks it."""
    s = small_machine(inject=WRONG_FAULT_LEVEL)
    s.tally[PHASE] = 1 << PHASE_SLOT_BITS
    assert split_block(s, 0, ALL, writable=0) == DONE
    gfn = s.geo.base_gfn + 9
    index, level = find(s, gfn, 3)
    assert handle(s, 0, gfn, 1, int(s.tables[index]), level) == ENDLESS
    assert violations(s) == {"endless-fault": 1}
    piece = evidence(s, Kind.ENDLESS_FAULT)
    assert (piece["gfn"], piece["level"], piece["found"]) == (gfn, 3, s.tables[index])
    assert not s.tables[index] & S2AP_W
    assert s.tables[index - 9] & S2AP_W
    assert fault_counts(s, 0, 0) == {PERMISSION: 1}, "that is what it was"
    assert s.control[LOCK] == 0


# To whom a fault is charged.


def open_window(s: Machine, number: int, order: int) -> int:
    """A rebuild's record as it begins, and the word it leaves in its entry."""
    row = s.records[number % RECORD_ROWS]
    row[R_ORDER], row[R_FAULTS] = order, 0
    row[R_NUMBER] = number
    return int(broken(3, 2, number, 5))


@pytest.mark.parametrize("number", [1, 12345, RECORD_ROWS, (1 << 24) + 5])
def test_a_window_fault_is_charged_to_its_rebuild(number: int) -> None:
    """To the one whose number the entry carries, and its cycle, though the hypervisor has gone on to the next since."""
    s = small_machine(orders=2)
    assert fault(s, s.geo.base_gfn) == POPULATION
    word = open_window(s, number, 1)
    s.tally[PHASE] = 8 << PHASE_SLOT_BITS | 0
    row = s.records[number % RECORD_ROWS]
    row[R_CYCLE] = 7
    assert handle(s, 0, s.geo.base_gfn, 0, word, 2) == WINDOW
    assert row[R_FAULTS] == 1
    assert list(s.hits) == [0, 1]
    assert handle(s, 0, s.geo.base_gfn + 1, 0, word, 2) == WINDOW
    assert row[R_FAULTS] == 2
    assert list(s.hits) == [0, 1], "a rebuild is hit once"
    assert fault_counts(s, 0, 3) == {WINDOW: 2}, "inside rebuilds of order 1"
    assert list(s.events[0, :2, E_NUMBER]) == [number, number]
    assert list(s.events[0, :2, E_CYCLE]) == [7, 7]
    assert s.stalls[0, 1, WINDOW].sum() == 2


def test_a_window_fault_whose_record_is_gone_still_counts() -> None:
    s = small_machine()
    word = open_window(s, 5, 0)
    s.records[5, R_NUMBER] += RECORD_ROWS
    s.tally[PHASE] = 9 << PHASE_SLOT_BITS
    assert handle(s, 0, s.geo.base_gfn, 0, word, 2) == WINDOW
    assert list(s.hits) == [0]
    assert s.records[5, R_FAULTS] == 0
    assert fault_counts(s, 0, 0) == {WINDOW: 1}


def test_the_phase_says_whether_a_rebuild_is_under_way() -> None:
    """By anybody, and of several the last to end; there is no inside of what belongs to no order."""
    s = small_machine(orders=3)
    s.tally[PHASE] = 6 << PHASE_SLOT_BITS | 4
    assert phase_now(s) == 6 << PHASE_SLOT_BITS | 4
    s.tally[INSIDE] = 2
    assert phase_now(s) == 6 << PHASE_SLOT_BITS | 5
    s.tally[INSIDE] = 1
    assert phase_now(s) == 6 << PHASE_SLOT_BITS | 5
    s.tally[PHASE] = 6 << PHASE_SLOT_BITS | 6
    assert phase_now(s) == 6 << PHASE_SLOT_BITS | 6


def test_before_the_first_order_faults_are_counted_and_not_logged() -> None:
    s = small_machine()
    assert s.tally[PHASE] == 2
    assert handle(s, 0, s.geo.base_gfn, 0, 0, 1) == POPULATION
    assert fault_counts(s, 0, 2) == {POPULATION: 1}
    assert s.event_index[0, EVENT_HEAD] == 0
    assert s.stalls.sum() == 0


def test_an_event_that_finds_no_room_is_counted_as_dropped() -> None:
    s = small_machine()
    s.tally[PHASE] = 1 << PHASE_SLOT_BITS
    s.event_index[0, EVENT_HEAD] = EVENT_ROWS
    assert handle(s, 0, s.geo.base_gfn, 0, 0, 1) == POPULATION
    assert s.counters[0, 0, C_DROPPED] == 1
    assert fault_counts(s, 0, 0) == {POPULATION: 1}
    assert s.stalls.sum() == 1


def test_a_modelled_exit_lengthens_the_stall_and_not_the_wait_for_the_lock() -> None:
    exit_ns = 3_000_000
    s = small_machine(exit_ns=exit_ns)
    s.tally[PHASE] = 1 << PHASE_SLOT_BITS
    for _ in range(5):
        handle(s, 0, s.geo.base_gfn, 0, 0, 1)
    assert (s.events[0, :5, E_STALL_NS] >= exit_ns).all()
    assert s.events[0, :5, E_LOCK_WAIT_NS].min() < exit_ns
    assert s.counters[0, 0, C_LOCK_HOLD_NS] > 0


# The end of a run.


@pytest.mark.parametrize("shared", [False, True])
def test_a_stopping_run_ends_the_wait_for_the_lock(shared: bool) -> None:
    s = small_machine(shared=shared)
    s.control[LOCK] = s.geo.hypervisor + 1
    s.control[STOP] = 1
    assert handle(s, 0, s.geo.base_gfn, 0, 0, 1) == STOPPED
    assert naive_tree(s).leaves == []
    assert s.states[0, STATE] == State.LOCK_WAIT
    assert s.control[LOCK] == s.geo.hypervisor + 1


@pytest.mark.parametrize("shared", [False, True])
def test_an_exhausted_pool_gives_the_lock_back(shared: bool) -> None:
    s = small_machine(shared=shared)
    while s.control[POOL_TAIL] != s.control[POOL_HEAD]:
        allocate_table(s, 3, 0)
    assert handle(s, 0, s.geo.base_gfn, 0, 0, 1) == POOL_EXHAUSTED
    assert s.control[LOCK] == 0
    assert s.procs[0, WALKING] & 1 == 0


@pytest.mark.parametrize("orders", [130, 300])
def test_each_of_hundreds_of_orders_is_charged_with_its_own(orders: int) -> None:
    """A cycle's slot, a window fault and its event name the order, whatever its number."""
    s = small_machine(orders=orders)
    assert split_block(s, 0, ALL) == DONE
    for order in (0, 126, 127, 128, orders - 1):
        number, cycle = 1000 + order, 10 + order
        s.tally[PHASE] = cycle << PHASE_SLOT_BITS | 2 * order
        s.records[number, R_NUMBER], s.records[number, R_ORDER], s.records[number, R_CYCLE] = number, order, cycle
        before = int(s.event_index[0, EVENT_HEAD])
        assert handle(s, 0, s.geo.base_gfn, 0, 0, LAST_LEVEL) == SPURIOUS
        assert s.counters[0, 2 * order, C_FAULTS + SPURIOUS] == 1
        window = int(broken(3, 2, number, 0))  # a table was there
        assert handle(s, 0, s.geo.base_gfn, 0, window, 2) == WINDOW
        assert s.counters[0, 2 * order + 1, C_FAULTS + WINDOW] == 1
        events = s.events[0, before : before + 2]
        assert [int(what) >> WHAT_SLOT_SHIFT for what in events[:, E_WHAT]] == [2 * order, 2 * order + 1]
        assert list(events[:, E_NUMBER]) == [0, number]
        assert list(events[:, E_CYCLE]) == [cycle, cycle]
        assert s.hits[order] == 1
    assert s.counters[0, :, C_LOCKS].sum() == 10


def test_what_happens_between_cycles_is_charged_to_no_order() -> None:
    """Its time belongs to no order either: accesses per second would be too many on a busy machine."""
    s = small_machine(orders=2)
    plan = plan_for(RunConfig(vcpus=1, orders=("unmap-first", "block-first")))
    hypervisor = Hypervisor(s, replace(plan, geo=s.geo))
    slots = []
    for order in (0, 1):
        with hypervisor.cycle(order):
            slots.append(int(s.tally[accounts.PHASE]) & accounts.PHASE_SLOT_MASK)
        slots.append(int(s.tally[accounts.PHASE]) & accounts.PHASE_SLOT_MASK)
    assert slots == [0, 4, 2, 4]
    assert s.counters.shape[1] - 1 == 4
