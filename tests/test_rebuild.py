"""The rebuild: named orders leave a block and a sound pool; each wrong order is caught, and called what it is.

What an order of steps leads to without any vCPU is worked out below by an oracle of its own, and tried for every
order that can be written.
"""

from __future__ import annotations

import itertools
from random import Random

import numpy as np
import pytest
from machines import (
    SHAPES,
    SMALL,
    block_leaf,
    block_pages,
    evidence,
    naive_audit,
    naive_tree,
    page_leaves,
    run_audit,
    small_machine,
    violations,
)

from stress.arch import bbm
from stress.arch.descriptors import KIND, KIND_BROKEN_LEAF, POISON, REBUILD
from stress.arch.geometry import Geometry
from stress.kernels.entries import find
from stress.kernels.fault import STOPPED, resolve
from stress.kernels.rebuild import DONE, NOT_A_TABLE, complete, rebuild
from stress.kernels.split import split, write_unmapped
from stress.kernels.vcpu import FREED_TOO_EARLY
from stress.orders import BLOCK_FIRST, NAMED_ORDERS, STEPS, UNMAP_FIRST, Order, Step, parse_order
from stress.shm.layout import Machine
from stress.shm.words import (
    AT_STEP,
    LOCK,
    NOT_AT_POC,
    PHASE,
    R_ACCESSES,
    R_BLOCK,
    R_CLEANED,
    R_CYCLE_NS,
    R_DONE,
    R_END_NS,
    R_FAULTS,
    R_FREED,
    R_INVALID_NS,
    R_LOCKED_NS,
    R_NUMBER,
    R_ORDER,
    R_REQUESTED_NS,
    R_START_NS,
    R_STEPS,
    R_UNLOCKED_NS,
    R_VALID_NS,
    RECORD_RING,
    STATE,
    STOP,
    T_ALLOCATED,
    T_CLEANED,
    T_CYCLE_NS,
    T_FREED,
    T_INSIDE_NS,
    T_REBUILDS,
    T_TLBIS,
    TLBI_DONE,
    Kind,
    State,
)

ALL = 1 << 20
INVALIDATE, TLBI, CLEAN, INSTALL, UNMAP = Step.INVALIDATE, Step.TLBI, Step.CLEAN, Step.INSTALL, Step.UNMAP
EVERY_ORDER = [steps for length in range(1, 6) for steps in itertools.permutations(STEPS, length) if INSTALL in steps]
NAMED = [pytest.param(order, id=name) for name, order in NAMED_ORDERS.items()]


def codes(steps: tuple[Step, ...]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array([step.code for step in steps], np.int64)


def run(s: Machine, steps: tuple[Step, ...], block: int = 0, number: int = 1, order: int = 0) -> int:
    return int(rebuild(s, s.geo.hypervisor, order, codes(steps), block, number))


def split_machine(granule: int, block_size: int, share: int, fwb: bool = True, bbm_level: int = 0) -> Machine:
    """Block 0 split, block 1 mapped as a block."""
    s = small_machine(granule, block_size, fwb=fwb, bbm_level=bbm_level)
    resolve(s, s.geo.base_gfn + block_pages(s.geo), 0, 0)
    assert split(s, s.geo.hypervisor, 0, share) == DONE
    assert violations(s) == {}
    return s


@pytest.mark.parametrize("order", NAMED)
@pytest.mark.parametrize("share", [0, ALL // 3, ALL])
@pytest.mark.parametrize("fwb", [True, False])
@pytest.mark.parametrize(("granule", "block_size"), SHAPES)
def test_a_named_order_leaves_the_block_and_frees_the_tables(
    granule: int, block_size: int, fwb: bool, share: int, order: Order
) -> None:
    s = split_machine(granule, block_size, share, fwb)
    if not fwb:
        write_unmapped(s, s.geo.hypervisor, 0)
        assert (s.cells & NOT_AT_POC).any() == (share < ALL)
    tables = run_audit(s)
    assert run(s, order.steps) == DONE
    assert naive_tree(s).leaves == [block_leaf(s.geo, 0), block_leaf(s.geo, 1)]
    assert naive_audit(s) == []
    below = Geometry(granule).tables_below(s.geo.block_level)
    assert s.records[1, R_FREED] == below
    assert run_audit(s) == tables - below
    assert violations(s) == {}
    assert not (s.cells & NOT_AT_POC).any()
    assert s.records[1, R_CLEANED] == (0 if fwb else block_size)


def outcome(steps: tuple[Step, ...], bbm_level: int, below: int) -> tuple[dict[str, int], bool]:
    """Violations that an order leads to by itself, and whether a block is mapped at its end."""
    at = {step: steps.index(step) for step in steps}
    found: dict[str, int] = {}
    broken = INVALIDATE in at and at[INVALIDATE] < at[INSTALL]
    if broken and not (TLBI in at and at[INVALIDATE] < at[TLBI] < at[INSTALL]):
        found["bbm"] = 1  # no TLBI completes between the break and the make
    if not broken and bbm_level < 2:
        found["bbm"] = 1  # no break
    if UNMAP in at:
        unlinked = min(at[step] for step in (INVALIDATE, INSTALL) if step in at)
        if not (TLBI in at and unlinked < at[TLBI] < at[UNMAP]):
            found["table-use-after-free"] = 1
    else:
        found["table-leak"] = below
    return found, INVALIDATE not in at or at[INVALIDATE] < at[INSTALL]


def check_order(s: Machine, steps: tuple[Step, ...], bbm_level: int) -> dict[str, int]:
    """Run an order on a machine made by `split_machine` and compare with the oracle; its violations."""
    below = Geometry(1 << s.geo.granule_shift).tables_below(s.geo.block_level)
    expected, mapped = outcome(steps, bbm_level, below)
    assert run(s, steps) == DONE
    run_audit(s)
    assert violations(s) == expected, steps
    leaves = naive_tree(s).leaves
    assert leaves == [block_leaf(s.geo, 0)] * mapped + [block_leaf(s.geo, 1)]
    assert s.records[1, R_FREED] == (below if UNMAP in steps else 0)
    index, level = find(s, s.geo.base_gfn, 3)
    assert level == s.geo.block_level
    if not mapped:
        word = int(s.tables[index])
        assert (KIND.take(word), REBUILD.take(word)) == (KIND_BROKEN_LEAF, 1)
    if UNMAP in steps:
        assert naive_audit(s) == [], "counts and pool are right whatever else is wrong"
    return expected


@pytest.mark.parametrize("bbm_level", [0, 1, 2])
def test_every_order_there_is(bbm_level: int) -> None:
    assert len(EVERY_ORDER) == 261
    correct = []
    for steps in EVERY_ORDER:
        s = split_machine(4096, 2 << 20, ALL // 2, bbm_level=bbm_level)
        if not check_order(s, steps, bbm_level):
            correct.append(steps)
    for order in NAMED_ORDERS.values():
        assert order.steps in correct
    good: set[tuple[Step, ...]] = {(INVALIDATE, TLBI, INSTALL, UNMAP), (INVALIDATE, TLBI, UNMAP, INSTALL)}
    if bbm_level == 2:
        good |= {
            (INSTALL, TLBI, UNMAP),
            (INSTALL, TLBI, UNMAP, INVALIDATE),
            (INSTALL, TLBI, INVALIDATE, UNMAP),
            (INSTALL, INVALIDATE, TLBI, UNMAP),
        }
    # Nothing depends on when, or whether, a full table is cleaned.
    assert correct == [steps for steps in EVERY_ORDER if tuple(step for step in steps if step != CLEAN) in good]


@pytest.mark.parametrize(("granule", "block_size"), SHAPES)
def test_random_orders_on_every_geometry(granule: int, block_size: int) -> None:
    random = Random(granule + block_size)
    seen: set[str] = set()
    for _ in range(12):
        s = split_machine(granule, block_size, random.choice([0, ALL // 7, ALL // 2]))
        seen |= check_order(s, random.choice(EVERY_ORDER), 0).keys()
    assert seen == {"bbm", "table-use-after-free", "table-leak"}


@pytest.mark.parametrize(
    ("steps", "kinds", "detail"),
    [
        ("invalidate,install", {"bbm", "table-leak"}, bbm.NO_TLBI),
        ("tlbi,install,unmap", {"bbm", "table-use-after-free"}, bbm.NO_BREAK_SIZE),
        ("clean,install", {"bbm", "table-leak"}, bbm.NO_BREAK_SIZE),
        ("invalidate,unmap,tlbi,install", {"table-use-after-free"}, None),
        ("unmap,invalidate,tlbi,install", {"table-use-after-free"}, None),
        ("invalidate,tlbi,install", {"table-leak"}, None),
        ("install,tlbi,unmap", {"bbm"}, bbm.NO_BREAK_SIZE),
        ("invalidate,install,tlbi,unmap", {"bbm"}, bbm.NO_TLBI),
    ],
)
def test_what_a_wrong_order_is_called(steps: str, kinds: set[str], detail: int | None) -> None:
    s = split_machine(4096, 2 << 20, ALL)
    order = parse_order(steps)
    assert run(s, order.steps) == DONE
    run_audit(s)
    assert set(violations(s)) == kinds
    if detail is not None:
        piece = evidence(s, Kind.BBM)
        assert (piece["detail"], piece["step"], piece["level"]) == (detail, INSTALL.code, 2)
        assert (piece["gfn"], piece["who"]) == (s.geo.base_gfn, s.geo.hypervisor)
    if "table-use-after-free" in kinds:
        piece = evidence(s, Kind.TABLE_USE_AFTER_FREE)
        assert (piece["detail"], piece["step"]) == (FREED_TOO_EARLY, UNMAP.code)


@pytest.mark.parametrize("share", [0, ALL // 3])
def test_without_clean_a_partial_table_leaves_stale_memory(share: int) -> None:
    s = split_machine(4096, 2 << 20, share, fwb=False)
    write_unmapped(s, 1, 0)
    stale = s.cells & NOT_AT_POC != 0
    assert stale.sum() == 512 - 512 * share // ALL
    assert run(s, tuple(step for step in BLOCK_FIRST.steps if step != CLEAN)) == DONE
    assert ((s.cells & NOT_AT_POC != 0) == stale).all(), "mapped now, and not at the PoC: for a vCPU to find"
    assert violations(s) == {}


def test_freed_tables_are_poisoned_and_entries_kept_until_then() -> None:
    s = split_machine(4096, 2 << 20, ALL)
    index, _ = find(s, s.geo.base_gfn, 3)
    first = index & ~511
    assert run(s, (INVALIDATE, TLBI, INSTALL)) == DONE
    assert (s.tables[first : first + 512] & 1).all(), "a walker may still read them"
    s = split_machine(4096, 2 << 20, ALL)
    assert run(s, (INVALIDATE, TLBI, INSTALL, UNMAP)) == DONE
    assert (s.tables[first : first + 512] == POISON).all()


def test_the_invalid_entry_carries_the_rebuilds_number() -> None:
    s = split_machine(4096, 2 << 20, ALL)
    number = (1 << 24) + 77
    assert run(s, (INSTALL, INVALIDATE), number=number) == DONE
    index, _ = find(s, s.geo.base_gfn, 3)
    assert REBUILD.take(int(s.tables[index])) == 77


@pytest.mark.parametrize("order", NAMED)
def test_the_record(order: Order) -> None:
    s = split_machine(4096, 2 << 20, ALL, fwb=False)
    assert split(s, 1, 1, ALL) == DONE
    number = RECORD_RING + 5
    row = s.records[number % RECORD_RING]
    row[:] = 99
    assert run(s, order.steps, block=1, number=number) == DONE
    assert (row[R_NUMBER], row[R_ORDER], row[R_BLOCK], row[R_FAULTS]) == (number, 0, 1, 0)
    assert row[R_DONE] == 0, "the cycle is not complete yet"
    clock = [R_REQUESTED_NS, R_LOCKED_NS, R_START_NS, R_INVALID_NS, R_VALID_NS, R_END_NS, R_UNLOCKED_NS]
    times = [int(row[at]) for at in clock]
    assert times == sorted(times)
    assert 0 < times[0] < times[-1]
    steps = row[R_STEPS : R_STEPS + 5]
    assert (steps > 0).all()
    assert steps.sum() == row[R_END_NS] - row[R_START_NS]
    begin = order.steps.index(INVALIDATE)
    assert row[R_INVALID_NS] - row[R_START_NS] == steps[:begin].sum()
    end = order.steps.index(INSTALL) + 1
    assert row[R_VALID_NS] - row[R_INVALID_NS] == steps[begin:end].sum(), "the window is its steps"
    assert s.control[LOCK] == 0
    assert s.procs[1, STATE] == State.DWELL
    assert s.procs[1, AT_STEP] == -1
    assert s.control[TLBI_DONE] > 0
    assert row[R_CLEANED] == 2 << 20


def test_the_phase_says_whether_a_rebuild_is_on() -> None:
    s = small_machine(orders=3)
    assert split(s, 1, 0, ALL) == DONE
    assert run(s, UNMAP_FIRST.steps, number=6, order=2) == DONE
    assert s.control[PHASE] == 6 << 8 | 4
    assert split(s, 1, 0, ALL) == DONE
    s.control[LOCK], s.control[STOP] = 1, 1
    assert run(s, UNMAP_FIRST.steps, number=7, order=2) == STOPPED
    assert s.control[PHASE] == 7 << 8 | 5, "inside, as it was left"


@pytest.mark.parametrize("mapped", [False, True])
def test_nothing_to_rebuild(mapped: bool) -> None:
    s = small_machine()
    if mapped:
        resolve(s, s.geo.base_gfn, 0, 0)
    tree = naive_tree(s)
    phase = s.control[PHASE]
    assert run(s, BLOCK_FIRST.steps, number=3) == NOT_A_TABLE
    assert naive_tree(s) == tree
    assert violations(s) == {}
    assert s.control[LOCK] == 0
    assert s.control[PHASE] == phase
    assert s.records[3, R_DONE] == 0


def test_a_stopping_run() -> None:
    s = split_machine(4096, 2 << 20, ALL)
    tree = naive_tree(s)
    s.control[LOCK], s.control[STOP] = 1, 1
    assert run(s, BLOCK_FIRST.steps) == STOPPED
    assert naive_tree(s) == tree


@pytest.mark.parametrize(("granule", "block_size"), SMALL)
def test_again_and_again(granule: int, block_size: int) -> None:
    """The pool is as large as the worst case and no larger: a leak of one page would soon empty it."""
    s = small_machine(granule, block_size)
    cycles = 3 * s.geo.table_pages
    for number in range(1, cycles + 1):
        order = list(NAMED_ORDERS.values())[number % 3]
        assert split(s, 1, number % 2, ALL // 5) == DONE
        assert run(s, order.steps, block=number % 2, number=number) == DONE
    assert naive_tree(s).leaves == [block_leaf(s.geo, 0), block_leaf(s.geo, 1)]
    assert naive_audit(s) == []
    run_audit(s)
    assert violations(s) == {}


def test_the_other_blocks_are_not_touched() -> None:
    s = small_machine(blocks=3)
    for block in range(3):
        assert split(s, 1, block, ALL // 2) == DONE
    assert run(s, BLOCK_FIRST.steps, block=1) == DONE
    halves = [page for page in range(1536) if (page + 1) // 2 > page // 2]
    outer = page_leaves(s.geo, (page for page in halves if not 512 <= page < 1024))
    assert naive_tree(s).leaves == sorted([*outer, block_leaf(s.geo, 1)])


def test_completed_cycles_add_up() -> None:
    s = small_machine(orders=2, fwb=False)
    inside = 0
    for number, order in ((1, 0), (2, 1), (3, 1)):
        assert split(s, 1, 0, ALL) == DONE
        assert run(s, BLOCK_FIRST.steps, number=number, order=order) == DONE
        complete(s, order, number, 1000 * number, 10 * number, number, 2)
        row = s.records[number]
        assert (row[R_DONE], row[R_CYCLE_NS], row[R_ACCESSES]) == (number, 1000 * number, 10 * number)
        inside = int(row[R_UNLOCKED_NS] - row[R_REQUESTED_NS])
    totals = s.totals
    assert list(totals[:, T_REBUILDS]) == [1, 2]
    assert list(totals[:, T_CYCLE_NS]) == [1000, 5000]
    assert list(totals[:, T_TLBIS]) == [1, 5]
    assert list(totals[:, T_ALLOCATED]) == [2, 4]
    assert list(totals[:, T_FREED]) == [1, 2]
    assert list(totals[:, T_CLEANED]) == [2 << 20, 4 << 20]
    assert totals[1, T_INSIDE_NS] > inside > 0
