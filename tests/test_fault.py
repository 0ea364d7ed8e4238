"""Stage-2 faults: what gets mapped where, of which class they are, and to whom they are charged."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from machines import (
    SHAPES,
    SMALL,
    Leaf,
    assert_sound,
    block_leaf,
    block_pages,
    naive_audit,
    naive_tree,
    page_leaves,
    small_machine,
    violations,
)

from stress.arch.descriptors import S2AP_W
from stress.arch.geometry import GIB, KIB, MIB
from stress.kernels.descriptor import broken
from stress.kernels.entries import find
from stress.kernels.fault import (
    PERMISSION,
    POOL_EXHAUSTED,
    POPULATION,
    SPURIOUS,
    STOPPED,
    WINDOW,
    handle,
    map_leaf,
    resolve,
)
from stress.kernels.pool import allocate_table
from stress.kernels.rebuild import rebuild
from stress.kernels.split import split
from stress.orders import BLOCK_FIRST, CLEAN_FIRST, UNMAP_FIRST
from stress.shm.histogram import bucket
from stress.shm.layout import Machine
from stress.shm.words import (
    C_DROPPED,
    C_FAULTS,
    C_LOCK_HOLD_NS,
    C_LOCK_WAIT_NS,
    C_LOCKS,
    E_GFN,
    E_LOCK_WAIT_NS,
    E_NUMBER,
    E_STALL_NS,
    E_TIME_NS,
    E_WHAT,
    EVENT_HEAD,
    EVENT_RING,
    FAULT_KINDS,
    LOCK,
    NOT_AT_POC,
    PHASE,
    POOL_HEAD,
    POOL_TAIL,
    R_FAULTS,
    R_NUMBER,
    R_ORDER,
    RECORD_RING,
    SEQUENCE,
    STATE,
    STOP,
    TLBI_END,
    TLBI_START,
    State,
)

ALL = 1 << 20


@pytest.mark.parametrize(("granule", "block_size"), SHAPES)
def test_a_fault_maps_a_block_where_no_table_is(granule: int, block_size: int) -> None:
    s = small_machine(granule, block_size)
    gfn = s.geo.base_gfn + block_pages(s.geo) + 5
    assert resolve(s, gfn, 0, 0) == POPULATION
    assert assert_sound(s).leaves == [block_leaf(s.geo, 1)]
    assert resolve(s, gfn, 1, 0) == SPURIOUS
    assert resolve(s, s.geo.base_gfn, 1, 0) == POPULATION
    assert assert_sound(s).leaves == [block_leaf(s.geo, 0), block_leaf(s.geo, 1)]
    assert s.control[SEQUENCE] == 0, "mapping what was not mapped needs no TLBI"


@pytest.mark.parametrize(("granule", "block_size"), SHAPES)
def test_a_fault_maps_a_page_below_a_table(granule: int, block_size: int) -> None:
    s = small_machine(granule, block_size)
    assert split(s, 1, 1, 0) == 0
    pages = block_pages(s.geo)
    first = s.geo.base_gfn + pages
    tables = len(assert_sound(s).tables)
    for page in (pages - 1, 0, 7):
        assert resolve(s, first + page, 0, 0) == POPULATION
        assert resolve(s, first + page, 1, 0) == SPURIOUS
    tree = assert_sound(s)
    assert tree.leaves == page_leaves(s.geo, [pages, pages + 7, 2 * pages - 1])
    assert len(tree.tables) == tables, "split has made the tables already"


def test_a_fault_adds_the_tables_missing_below_a_table() -> None:
    """A level 1 table with an empty entry: a page needs a level 3 table first."""
    s = small_machine(4 * KIB, GIB, blocks=1)
    index, _ = find(s, s.geo.base_gfn, 1)
    page = allocate_table(s, 2)
    s.tables[index] = ((page + s.geo.tables_pfn) << 12) | 3
    s.page_count[0] += 1
    assert assert_sound(s).leaves == []
    assert resolve(s, s.geo.base_gfn + 1000, 0, 0) == POPULATION
    tree = assert_sound(s)
    assert tree.leaves == page_leaves(s.geo, [1000])
    assert len(tree.tables) == s.geo.root_pages + 2


@pytest.mark.parametrize("ipa_bits", [34, 40, 48])
def test_the_tables_above_are_made_once(ipa_bits: int) -> None:
    s = small_machine(4 * KIB, 2 * MIB, blocks=3, ipa_bits=ipa_bits)
    for block in range(3):
        assert map_leaf(s, s.geo.base_gfn + block * 512, s.geo.block_level, 0) == POPULATION
    tree = assert_sound(s)
    assert tree.leaves == [block_leaf(s.geo, block) for block in range(3)]
    assert len(tree.tables) == s.geo.root_pages + (s.geo.block_level - s.geo.start_level)


@pytest.mark.parametrize("split_first", [False, True])
def test_write_permission_is_relaxed_in_place(split_first: bool) -> None:
    s = small_machine()
    gfn = s.geo.base_gfn + 9
    assert resolve(s, gfn, 0, 0) == POPULATION
    if split_first:
        assert split(s, 1, 0, ALL) == 0
    index, level = find(s, gfn, 3)
    writable = int(s.tables[index])
    s.tables[index] = writable & ~S2AP_W
    before = int(s.control[SEQUENCE])
    assert resolve(s, gfn, 0, 0) == SPURIOUS, "reading was allowed"
    assert s.control[SEQUENCE] == before
    assert resolve(s, gfn, 1, 0) == PERMISSION
    assert s.tables[index] == writable
    number = int(s.control[SEQUENCE])
    assert number == before + 1, "the old translation must leave the TLBs"
    row = s.tlbi[number]
    assert row[TLBI_START] <= gfn < row[TLBI_END]
    assert resolve(s, gfn, 1, 0) == SPURIOUS
    assert level == (3 if split_first else 2)
    assert_sound(s)


def test_what_is_mapped_is_clean() -> None:
    s = small_machine(fwb=False)
    assert (s.cells & NOT_AT_POC).all()
    assert resolve(s, s.geo.base_gfn + 3, 0, 0) == POPULATION
    assert not (s.cells[:512] & NOT_AT_POC).any()
    assert (s.cells[512:] & NOT_AT_POC).all()
    assert split(s, 1, 0, 0) == 0
    s.cells[:512] |= NOT_AT_POC
    assert resolve(s, s.geo.base_gfn + 3, 0, 0) == POPULATION
    assert list(np.flatnonzero(s.cells[:512] & NOT_AT_POC == 0)) == [3]


def drain_pool(s: Machine, left: int) -> None:
    """Take all table pages out of the pool but the last ``left``."""
    while s.control[POOL_TAIL] - s.control[POOL_HEAD] > left:
        allocate_table(s, 3)


def test_an_exhausted_pool() -> None:
    s = small_machine(ipa_bits=48)  # two levels of tables above the blocks
    drain_pool(s, 1)
    assert resolve(s, s.geo.base_gfn, 0, 0) == POOL_EXHAUSTED
    tree = naive_tree(s)
    assert tree.leaves == []
    assert len(tree.tables) == s.geo.root_pages + 1, "the one that was left is linked"
    for page, valid in tree.tables.items():
        assert s.page_count[page] == 1 + valid
    assert resolve(s, s.geo.base_gfn, 0, 0) == POOL_EXHAUSTED
    assert naive_tree(s) == tree
    assert violations(s) == {}


@pytest.mark.parametrize(("granule", "block_size"), SMALL)
def test_faults_splits_and_rebuilds_against_a_model(granule: int, block_size: int) -> None:
    """The model: per block nothing, the block, or the set of its pages that are mapped."""
    random = Random(3)
    s = small_machine(granule, block_size, blocks=8)
    pages = block_pages(s.geo)
    model: list[set[int] | str] = ["nothing"] * 8
    orders = [np.array(order.codes) for order in (UNMAP_FIRST, BLOCK_FIRST, CLEAN_FIRST)]
    happened = set()
    for number in range(1, 80):
        block = random.randrange(8)
        state = model[block]
        action = random.choice(["fault", "fault", "split", "rebuild"])
        if action == "fault":
            page = random.choice([0, pages - 1, random.randrange(pages)])
            gfn = s.geo.base_gfn + block * pages + page
            found = resolve(s, gfn, random.randrange(2), 0)
            if isinstance(state, set):
                assert found == (SPURIOUS if page in state else POPULATION)
                state.add(page)
            else:
                assert found == (SPURIOUS if state == "block" else POPULATION)
                model[block] = "block"
        elif action == "split":
            count = random.choice([0, 3, min(pages, 600)])
            assert split(s, 1, block, (count << 20) // pages) == 0
            if not isinstance(state, set):
                share = (count << 20) // pages
                model[block] = {p for p in range(pages) if (p + 1) * share >> 20 != p * share >> 20}
        else:
            done = rebuild(s, 1, 0, random.choice(orders), block, number)
            assert done == (0 if isinstance(state, set) else 1)
            if isinstance(state, set):
                model[block] = "block"
        happened.add((action, state if isinstance(state, str) else "pages"))
        expected: list[Leaf] = []
        for at, mapped in enumerate(model):
            if isinstance(mapped, set):
                expected += page_leaves(s.geo, [at * pages + p for p in sorted(mapped)])
            elif mapped == "block":
                expected.append(block_leaf(s.geo, at))
        assert naive_tree(s).leaves == expected
        assert naive_audit(s) == []
    assert_sound(s)
    assert len(happened) == 9, "every action met every state"


# Accounting.


def fault_counts(s: Machine, vcpu: int, slot: int) -> list[int]:
    return [int(count) for count in s.counters[vcpu, slot, C_FAULTS : C_FAULTS + FAULT_KINDS]]


def one(kind: int) -> list[int]:
    return [int(at == kind) for at in range(FAULT_KINDS)]


@pytest.mark.parametrize("inside", [0, 1])
@pytest.mark.parametrize("write", [0, 1])
def test_a_fault_is_counted_logged_and_timed_once(inside: int, write: int) -> None:
    s = small_machine(vcpus=2, orders=2)
    slot = 2 * 1 + inside
    s.control[PHASE] = 77 << 8 | slot
    gfn = s.geo.base_gfn + 12
    assert handle(s, 1, gfn, write, 0, 2) == POPULATION
    assert fault_counts(s, 1, slot) == one(POPULATION)
    assert s.counters[:, :, C_FAULTS : C_FAULTS + FAULT_KINDS].sum() == 1
    counters = s.counters[1, slot]
    assert counters[C_LOCKS] == 1
    event = s.events[1, 0]
    assert s.event_index[1, EVENT_HEAD] == 1
    assert s.event_index[0, EVENT_HEAD] == 0
    assert (event[E_GFN], event[E_NUMBER]) == (gfn, 77)
    assert event[E_WHAT] == POPULATION | 2 << 4 | write << 8 | slot << 16
    assert event[E_TIME_NS] > 0
    assert 0 <= event[E_LOCK_WAIT_NS] == counters[C_LOCK_WAIT_NS]
    assert event[E_STALL_NS] >= counters[C_LOCK_WAIT_NS] + counters[C_LOCK_HOLD_NS] > 0
    assert s.stalls.sum() == 1
    assert s.stalls[1, 1, POPULATION, bucket(event[E_STALL_NS])] == 1
    assert s.procs[1, STATE] == State.GUEST
    assert s.control[LOCK] == 0


def test_classes_of_faults() -> None:
    s = small_machine()
    s.control[PHASE] = 1 << 8
    gfn = s.geo.base_gfn
    assert handle(s, 0, gfn, 0, 0, 1) == POPULATION
    assert handle(s, 0, gfn, 0, 0, 1) == SPURIOUS
    index, _ = find(s, gfn, 3)
    s.tables[index] &= ~S2AP_W
    assert handle(s, 0, gfn, 1, 0, -1) == PERMISSION, "a TLB hit without permission walked nothing"
    assert s.events[0, 2, E_WHAT] >> 4 & 0xF == 0
    assert fault_counts(s, 0, 0) == [0, 1, 1, 1]


def open_window(s: Machine, number: int, order: int) -> int:
    """A rebuild's record as it begins, and the word it leaves in its entry."""
    row = s.records[number % RECORD_RING]
    row[R_ORDER], row[R_FAULTS] = order, 0
    row[R_NUMBER] = number
    return int(broken(3, 2, number, 5))


@pytest.mark.parametrize("number", [1, 12345, RECORD_RING, (1 << 24) + 5])
def test_a_window_fault_is_charged_to_its_rebuild(number: int) -> None:
    """To the one whose number the entry carries, though the hypervisor has gone on to another order since."""
    s = small_machine(orders=2)
    assert resolve(s, s.geo.base_gfn, 0, 0) == POPULATION
    word = open_window(s, number, 1)
    s.control[PHASE] = (number + 1) << 8 | 0
    row = s.records[number % RECORD_RING]
    assert handle(s, 0, s.geo.base_gfn, 0, word, 2) == WINDOW
    assert row[R_FAULTS] == 1
    assert list(s.hits) == [0, 1]
    assert handle(s, 0, s.geo.base_gfn + 1, 0, word, 2) == WINDOW
    assert row[R_FAULTS] == 2
    assert list(s.hits) == [0, 1], "a rebuild is hit once"
    assert fault_counts(s, 0, 3) == [2, 0, 0, 0], "inside rebuilds of order 1"
    assert list(s.events[0, :2, E_NUMBER]) == [number, number]
    assert s.stalls[0, 1, WINDOW].sum() == 2


def test_a_window_fault_whose_record_is_gone_still_counts() -> None:
    s = small_machine()
    word = open_window(s, 5, 0)
    s.records[5, R_NUMBER] += RECORD_RING
    s.control[PHASE] = 9 << 8
    assert handle(s, 0, s.geo.base_gfn, 0, word, 2) == WINDOW
    assert list(s.hits) == [0]
    assert s.records[5, R_FAULTS] == 0
    assert fault_counts(s, 0, 0) == one(WINDOW)


def test_before_the_first_order_faults_are_counted_and_not_logged() -> None:
    s = small_machine()
    assert s.control[PHASE] == 2
    assert handle(s, 0, s.geo.base_gfn, 0, 0, 1) == POPULATION
    assert fault_counts(s, 0, 2) == one(POPULATION)
    assert s.event_index[0, EVENT_HEAD] == 0
    assert s.stalls.sum() == 0


def test_an_event_that_finds_no_room_is_counted_as_dropped() -> None:
    s = small_machine()
    s.control[PHASE] = 1 << 8
    s.event_index[0, EVENT_HEAD] = EVENT_RING
    assert handle(s, 0, s.geo.base_gfn, 0, 0, 1) == POPULATION
    assert s.counters[0, 0, C_DROPPED] == 1
    assert fault_counts(s, 0, 0) == one(POPULATION)
    assert s.stalls.sum() == 1


def test_a_stopping_run_ends_the_wait_for_the_lock() -> None:
    s = small_machine()
    s.control[LOCK] = s.geo.hypervisor + 1
    s.control[STOP] = 1
    assert handle(s, 0, s.geo.base_gfn, 0, 0, 1) == STOPPED
    assert naive_tree(s).leaves == []
    assert s.procs[0, STATE] == State.LOCK_WAIT
    assert s.control[LOCK] == s.geo.hypervisor + 1


def test_an_exhausted_pool_gives_the_lock_back() -> None:
    s = small_machine()
    drain_pool(s, 0)
    assert handle(s, 0, s.geo.base_gfn, 0, 0, 1) == POOL_EXHAUSTED
    assert s.control[LOCK] == 0
