"""The rebuild: named orders leave a block and a sound pool, whoever rebuilds and however mmu_lock is held.

What each order of steps leads to: test_order_outcomes. What is written down of a rebuild: test_records.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from machines import (
    ALL,
    SHAPES,
    SMALL,
    assert_sound,
    block_gfn,
    block_leaf,
    block_pages,
    fault,
    naive_audit,
    naive_tree,
    page_leaves,
    rebuild_block,
    run_audit,
    set_order,
    small_machine,
    split_block,
    violations,
)

from stress.arch.descriptors import POISON, REBUILD
from stress.arch.geometry import Geometry
from stress.bugs import NO_CMO
from stress.kernels.batch import begin, gather
from stress.kernels.codes import POPULATION, REBUILT, RETRY, STOPPED
from stress.kernels.descriptor import broken
from stress.kernels.entries import find
from stress.kernels.fault import handle
from stress.kernels.holding import own_lock
from stress.kernels.rebuild import DONE, NOT_A_TABLE, VOID, carry_out
from stress.kernels.records import settled
from stress.kernels.split import write_unmapped
from stress.kernels.teardown import reap
from stress.orders import BLOCK_FIRST, NAMED_ORDERS, Order, Step
from stress.shm.accounts import (
    ACTED,
    AT_STEP,
    INSIDE,
    PHASE,
    PHASE_SLOT_BITS,
    R_CLEANED,
    R_DONE,
    R_FREED,
    R_LEFT,
    R_MAPPED,
    R_VOID,
    R_WHO,
    STATE,
    T_FREED,
    T_LOST,
    T_RESTARTS,
    State,
)
from stress.shm.layout import Machine
from stress.shm.words import B_INDEX, B_OLD, LOCK, NOT_AT_POC, REBUILDS, STOP, WALKING

INVALIDATE, TLBI, CLEAN, INSTALL, UNMAP = Step.INVALIDATE, Step.TLBI, Step.CLEAN, Step.INSTALL, Step.UNMAP
thorough = pytest.mark.thorough
NAMED = [pytest.param(order, id=name) for name, order in NAMED_ORDERS.items()]
BREAKING = [pytest.param(order, id=name) for name, order in NAMED_ORDERS.items() if order.bbm_level == 0]


def split_machine(granule: int = 4096, block_size: int = 2 << 20, share: int = ALL, **options: Any) -> Machine:
    """Block 0 split, block 1 mapped as a block."""
    s = small_machine(granule, block_size, **options)
    assert fault(s, block_gfn(s.geo, 1)) == POPULATION
    assert split_block(s, 0, share) == DONE
    assert violations(s) == {}
    return s


@pytest.mark.parametrize("order", NAMED)
@pytest.mark.parametrize("share", [pytest.param(0, marks=thorough), ALL // 3, pytest.param(ALL, marks=thorough)])
@pytest.mark.parametrize("fwb", [True, False])
@pytest.mark.parametrize(("granule", "block_size"), SHAPES)
def test_a_named_order_leaves_the_block_and_frees_the_tables(
    granule: int, block_size: int, fwb: bool, share: int, order: Order
) -> None:
    s = split_machine(granule, block_size, share, fwb=fwb, bbm_level=order.bbm_level)
    pages = block_pages(s.geo)
    mapped = pages * share // ALL
    if not fwb:
        write_unmapped(s, s.geo.hypervisor, s.geo.base_gfn)
        assert (s.cells & NOT_AT_POC).any() == (share < ALL)
    tables = run_audit(s)
    assert rebuild_block(s, 0, order.steps) == DONE
    below = Geometry(granule).tables_below(s.geo.block_level)
    deferred = Step.UNMAP_DEFERRED in order.steps
    assert s.records[1, R_FREED] == (0 if deferred else below)
    assert reap(s, s.geo.hypervisor) == deferred, "one table waits, with those below it"
    assert s.totals[0, T_FREED] == (below if deferred else 0)
    assert naive_tree(s).leaves == [block_leaf(s.geo, 0), block_leaf(s.geo, 1)]
    assert naive_audit(s) == []
    assert run_audit(s) == tables - below
    assert violations(s) == {}
    assert not (s.cells & NOT_AT_POC).any()
    unmapped_only = Step.CLEAN_UNMAPPED in order.steps
    assert s.records[1, R_CLEANED] == (0 if fwb else (pages - mapped * unmapped_only) * granule)
    assert s.records[1, R_MAPPED] == mapped
    assert s.control[LOCK] == 0
    assert s.tally[INSIDE] == 0


@pytest.mark.parametrize("order", NAMED)
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("rebuilder", ["hypervisor", "vcpu"])
def test_whoever_rebuilds_however_the_lock_is_held(rebuilder: str, shared: bool, order: Order) -> None:
    """A vCPU that wants a block and meets a table does what the hypervisor does, in its fault handler."""
    s = split_machine(share=ALL // 2, shared=shared, vcpu_rebuilds=True, vcpus=2, bbm_level=order.bbm_level, fwb=False)
    write_unmapped(s, s.geo.hypervisor, s.geo.base_gfn)
    who = 1 if rebuilder == "vcpu" else s.geo.hypervisor
    if rebuilder == "vcpu":
        set_order(s, order.steps)
        s.tally[PHASE] = 1 << PHASE_SLOT_BITS
        assert handle(s, who, s.geo.base_gfn + 40, 0, 0, 3) == REBUILT
    else:
        assert rebuild_block(s, 0, order.steps) == DONE
    record = s.records[1]
    assert (s.ended[1], record[R_LEFT], record[R_VOID], record[R_WHO]) == (1, 1, 0, who)
    reap(s, s.geo.hypervisor)
    assert assert_sound(s).leaves == [block_leaf(s.geo, 0), block_leaf(s.geo, 1)]
    assert not (s.cells & NOT_AT_POC).any()
    assert s.states[who, STATE] == (State.GUEST if rebuilder == "vcpu" else State.DWELL)
    assert (s.states[:, AT_STEP] == -1).all()
    assert not (s.procs[:, WALKING] & 1).any()
    assert s.control[LOCK] == 0
    assert s.tally[INSIDE] == 0


@pytest.mark.parametrize("share", [0, ALL // 3])
def test_without_clean_a_partial_table_leaves_stale_memory(share: int) -> None:
    s = split_machine(share=share, fwb=False)
    write_unmapped(s, 1, s.geo.base_gfn)
    stale = s.cells & NOT_AT_POC != 0
    assert stale.sum() == 512 - 512 * share // ALL
    assert rebuild_block(s, 0, (step for step in BLOCK_FIRST.steps if step != CLEAN)) == DONE
    assert ((s.cells & NOT_AT_POC != 0) == stale).all(), "mapped now, and not at the PoC: for a vCPU to find"
    assert violations(s) == {}


@pytest.mark.parametrize("share", [0, ALL // 3, ALL])
def test_the_bug_that_leaves_the_clean_out_acts_only_where_something_is_to_be_cleaned(share: int) -> None:
    s = split_machine(share=share, fwb=False, guest_caches=False, inject=NO_CMO)
    write_unmapped(s, 1, s.geo.base_gfn)
    assert rebuild_block(s, 0, BLOCK_FIRST.steps) == DONE
    assert s.tally[ACTED] == (share < ALL)
    assert violations(s) == ({"not-at-poc": 1} if share < ALL else {})


@pytest.mark.parametrize("order", NAMED)
def test_before_v5_14_who_faults_has_cleaned_already(order: Order) -> None:
    """With --cmo per-fault the steps clean nothing more; the whole block is clean and counted once."""
    s = split_machine(share=ALL // 2, fwb=False, cmo_per_fault=True, bbm_level=order.bbm_level)
    s.cells[:512] |= NOT_AT_POC
    assert rebuild_block(s, 0, order.steps) == DONE
    assert not (s.cells[:512] & NOT_AT_POC).any()
    assert s.records[1, R_CLEANED] == 2 << 20


def test_freed_tables_are_poisoned_and_entries_kept_until_then() -> None:
    s = split_machine()
    index, _ = find(s, s.geo.base_gfn, 3)
    first = index & ~511
    assert rebuild_block(s, 0, (INVALIDATE, TLBI, INSTALL)) == DONE
    assert (s.tables[first : first + 512] & 1).all(), "a walker may still read them"
    s = split_machine()
    assert rebuild_block(s, 0, (INVALIDATE, TLBI, INSTALL, Step.UNMAP_DEFERRED)) == DONE
    assert (s.tables[first : first + 512] & 1).all(), "until the grace period is over"
    assert reap(s, s.geo.hypervisor) == 1
    assert (s.tables[first : first + 512] == POISON).all()
    for steps in ((UNMAP,), (Step.UNLOCK, UNMAP)):
        s = split_machine()
        assert rebuild_block(s, 0, (INVALIDATE, TLBI, INSTALL, *steps)) == DONE
        assert (s.tables[first : first + 512] == POISON).all()


def test_the_invalid_entry_carries_the_rebuilds_number() -> None:
    s = split_machine()
    s.control[REBUILDS] = (1 << 24) + 76
    assert rebuild_block(s, 0, (INSTALL, INVALIDATE)) == DONE
    index, _ = find(s, s.geo.base_gfn, 3)
    assert REBUILD.take(int(s.tables[index])) == 77


def test_a_block_whose_frames_have_moved_is_mapped_where_they_are() -> None:
    s = small_machine(spare_blocks=1)
    s.host[:512] = np.arange(1024, 1536)
    assert split_block(s, 0, ALL // 2) == DONE
    assert rebuild_block(s, 0, BLOCK_FIRST.steps) == DONE
    [leaf] = assert_sound(s).leaves
    assert (leaf.gfn, leaf.level, leaf.frame) == (s.geo.base_gfn, 2, 1024)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("mapped", [False, True])
def test_nothing_to_rebuild(mapped: bool, shared: bool) -> None:
    s = small_machine(shared=shared)
    if mapped:
        assert fault(s, s.geo.base_gfn) == POPULATION
    tree = naive_tree(s)
    phase = s.tally[PHASE]
    s.control[REBUILDS] = 2
    assert rebuild_block(s, 0, BLOCK_FIRST.steps) == NOT_A_TABLE
    assert naive_tree(s) == tree
    assert violations(s) == {}
    assert s.control[LOCK] == 0
    assert s.tally[PHASE] == phase
    assert s.control[REBUILDS] == 2, "no number is spent on it"
    assert s.records[3, R_DONE] == 0
    assert not (s.procs[:, WALKING] & 1).any()


@pytest.mark.parametrize("shared", [False, True])
def test_a_stopping_run(shared: bool) -> None:
    s = split_machine(shared=shared)
    tree = naive_tree(s)
    s.control[LOCK], s.control[STOP] = 1, 1
    assert rebuild_block(s, 0, BLOCK_FIRST.steps) == STOPPED
    assert naive_tree(s) == tree
    assert s.control[REBUILDS] == 0
    assert s.tally[INSIDE] == 0


@pytest.mark.parametrize(("granule", "block_size"), SMALL)
def test_again_and_again(granule: int, block_size: int) -> None:
    """The pool has little more than the worst case needs: a leak of one page would soon empty it."""
    s = small_machine(granule, block_size)
    orders = [order for order in NAMED_ORDERS.values() if order.bbm_level == 0]
    for number in range(3 * s.geo.table_pages):
        block = number % 2
        assert split_block(s, block, ALL // 5) == DONE
        assert rebuild_block(s, block, orders[number % len(orders)].steps) == DONE
        reap(s, s.geo.hypervisor)
    assert naive_tree(s).leaves == [block_leaf(s.geo, 0), block_leaf(s.geo, 1)]
    assert naive_audit(s) == []
    run_audit(s)
    assert violations(s) == {}


@pytest.mark.parametrize("order", BREAKING)
def test_the_other_blocks_are_not_touched(order: Order) -> None:
    s = small_machine(blocks=3)
    for block in range(3):
        assert split_block(s, block, ALL // 2) == DONE
    assert rebuild_block(s, 1, order.steps) == DONE
    halves = [page for page in range(1536) if (page + 1) // 2 > page // 2]
    outer = page_leaves(s.geo, (page for page in halves if not 512 <= page < 1024))
    assert naive_tree(s).leaves == sorted([*outer, block_leaf(s.geo, 1)])


# Under a shared mmu_lock the first step that changes the entry decides who rebuilds.


def read_entry(s: Machine, order: Order) -> tuple[int, int]:
    """A vCPU's rebuild of block 0 up to where it has read the entry; its index and value."""
    set_order(s, order.steps)
    s.control[LOCK] = -1
    begin(s, 0, int(State.GUEST))
    assert gather(s, 0, s.geo.base_gfn, 2) == 1
    own_lock(s, 0, 1, 2)
    return int(s.building[0, 0, B_INDEX]), int(s.building[0, 0, B_OLD])


def finish(s: Machine) -> tuple[int, int]:
    """Go on with the rebuild that ``read_entry`` began; (result, its number)."""
    done = int(carry_out(s, 0, 1))
    number = int(s.control[REBUILDS])
    assert settled(s, number) == number
    return done, number


LATE = [pytest.param(order, "block", id=f"{name}-block") for name, order in NAMED_ORDERS.items()]
LATE += [
    pytest.param(order, "window", id=f"{name}-window") for name, order in NAMED_ORDERS.items() if order.bbm_level == 0
]


@pytest.mark.parametrize(("order", "found"), LATE)
def test_who_comes_too_late_changes_nothing(order: Order, found: str) -> None:
    """The other's block is there already, or its window is open."""
    s = split_machine(shared=True, bbm_level=order.bbm_level, share=ALL // 2)
    index, old = read_entry(s, order)
    if found == "block":
        s.control[LOCK] = 0
        assert rebuild_block(s, 0, order.steps) == DONE
        s.control[LOCK] = -1
    else:
        s.tables[index] = broken(old, 2, 99, 0)
    before, allocated = int(s.tables[index]), (s.page_level >= 0).sum()
    counts = s.page_count.copy()
    done, number = finish(s)
    assert done == VOID
    assert s.tables[index] == before
    assert (s.page_level >= 0).sum() == allocated
    assert (s.page_count == counts).all()
    record = s.records[number]
    assert (record[R_VOID], s.ended[number], record[R_FREED]) == (1, number, 0)
    assert (s.totals[0, T_LOST], s.totals[0, T_RESTARTS]) == (not order.looks_again, order.looks_again)
    assert s.control[LOCK] == 0
    assert s.tally[INSIDE] == 0
    assert s.states[0, AT_STEP] == -1
    assert violations(s) == {}


def test_a_vcpu_that_comes_too_late_tries_again() -> None:
    s = split_machine(shared=True, vcpu_rebuilds=True)
    s.tally[PHASE] = 1 << PHASE_SLOT_BITS
    index, old = read_entry(s, BLOCK_FIRST)
    s.control[LOCK] = 0
    s.tables[index] = broken(old, 2, 0, 0)  # a break that belongs to no rebuild: a handler's
    assert handle(s, 0, s.geo.base_gfn, 0, 0, 3) == RETRY
    assert s.control[REBUILDS] == 0
    s.tables[index] = old
    assert handle(s, 0, s.geo.base_gfn, 0, 0, 3) == REBUILT
    assert assert_sound(s).leaves == [block_leaf(s.geo, 0), block_leaf(s.geo, 1)]
