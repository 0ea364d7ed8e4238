"""The decision table of ``user_mem_abort`` in full, on real tables, against a twin written from Linux 6.1.

A row of the table is brought about by faults and by switching dirty logging, as a guest and a VMM would, then one more
fault is resolved. Rows that no such way leads to (a block where none may be mapped, or a writable one while dirty
pages are logged) are shown to be out of reach.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import pytest
from machines import SHAPES, Leaf, naive_audit, naive_tree, run_audit, set_order, small_machine, violations
from naive_vm import Outcome, differences, vm_of

from stress.arch.geometry import GIB, KIB, LAST_LEVEL, MEMSLOT_BASE, MIB
from stress.kernels import codes
from stress.kernels.abort import resolve
from stress.kernels.dirty import set_logging
from stress.kernels.teardown import reap
from stress.orders import BLOCK_FIRST_DEFERRED, UNMAP_FIRST
from stress.shm.accounts import INSIDE
from stress.shm.layout import Machine
from stress.shm.mode import JIT_DISABLED
from stress.shm.words import HOST_MOVING, POOL_HEAD, POOL_TAIL

#: Backing -> (hugetlbfs level or None for that of the blocks, THP, whether the host has huge pages now).
BACKINGS = {
    "anonymous": (LAST_LEVEL, False, False),
    "thp": (2, True, True),
    "thp-small": (2, True, False),
    "hugetlb": (None, False, True),
    "hugetlb-1g": (1, False, True),
}
MAPPINGS = ("nothing", "table", "read-only page", "writable page", "read-only block", "writable block")
FAR_TABLE = "table elsewhere"  # for blocks with two levels of tables below: the fault's own level 3 table is missing
LOCKINGS = [pytest.param(False, id="exclusive"), pytest.param(True, id="shared")]

#: Shape -> rows that can be brought about, and that cannot, on all machines: 6 mappings (7) x logging x bounds x access
#: x backing x alignment x rebuilder.
SIZES = {
    (4 * KIB, 2 * MIB): (996, 444),
    (16 * KIB, 32 * MIB): (792, 360),
    (64 * KIB, 512 * MIB): (792, 360),
    (4 * KIB, GIB): (432, 72),
}


class Row(NamedTuple):
    """One row, on a machine with a given backing, alignment and rebuilder."""

    logging: bool
    bounds: str
    mapping: str
    write: bool
    page: int


def rows(s: Machine, mappings: tuple[str, ...]) -> Iterator[Row]:
    """All rows of a machine of three blocks in two memslots: the boundary cuts the block in the middle."""
    block = s.geo.pages // 3
    first = {"inside": 0, "cut by the end": block, "cut by the start": block + block // 2}
    offsets = (0, block // 4, block // 2 - 1, 5)
    table = product((False, True), first, mappings, (False, True))
    for number, (logging, bounds, mapping, write) in enumerate(table):
        yield Row(logging, bounds, mapping, write, first[bounds] + offsets[number % len(offsets)])


def machine(granule: int, block_size: int, backing: str, offset: int, rebuilds: bool, shared: bool) -> Machine:
    """Three blocks in two memslots, ``offset`` bytes away from where blocks are aligned."""
    level, thp, huge = BACKINGS[backing]
    settings: dict[str, Any] = {} if level is None else {"backing_level": level}  # None: as large as the blocks
    s = small_machine(
        granule,
        block_size,
        blocks=3,
        memslots=2,
        phys_offset=MEMSLOT_BASE + offset,
        backing_thp=thp,
        vcpu_rebuilds=rebuilds,
        shared=shared,
        **settings,
    )
    s.huge[:] = thp and huge
    set_order(s, (BLOCK_FIRST_DEFERRED if shared else UNMAP_FIRST).steps)
    return s


class Pristine:
    """A machine as it was at the start, to begin each row with it."""

    #: Large, and nothing that a fault depends on.
    LOGS = frozenset({"events", "records", "stalls", "evidence", "stages", "geo", "cells", "host", "copy"})

    def __init__(self, s: Machine) -> None:
        self._regions = [(getattr(s, name), getattr(s, name).copy()) for name in s._fields if name not in self.LOGS]

    def restore(self) -> None:
        for region, content in self._regions:
            np.copyto(region, content)


def fault(s: Machine, page: int, write: bool) -> tuple[int, int, int, int]:
    found = resolve(s, s.geo.base_gfn + page, int(write), 0, 0, 0)
    return found[0], found[1], found[2], found[3]


def level_of_blocks(row: Row, s: Machine, backing: str, offset: int) -> int:
    """The level at which this row's page may be mapped as a block, by arithmetic on the row alone; 3 if not at all."""
    host_level, thp, huge = BACKINGS[backing]
    for level in range(s.geo.block_level if host_level is None else host_level, LAST_LEVEL):
        size = 1 << s.geo.granule_shift + (LAST_LEVEL - level) * s.geo.index_bits
        begins = (row.page << s.geo.granule_shift) // size * size
        slots = [(0, s.geo.pages // 2), (s.geo.pages // 2, s.geo.pages)]
        inside = any(
            first << s.geo.granule_shift <= begins and begins + size <= end << s.geo.granule_shift
            for first, end in slots
        )
        if offset % size == 0 and inside and (huge or not thp):
            return level
    return LAST_LEVEL


def prepare(s: Machine, row: Row) -> Leaf | None:
    """Bring the row's mapping about; the leaf that maps its page then."""
    who = s.geo.hypervisor
    if row.mapping.endswith("block"):
        fault(s, row.page, True)
        if row.mapping == "read-only block" or row.logging:
            set_logging(s, who, 1)
    else:
        set_logging(s, who, 1)
        if row.mapping == "table":
            fault(s, row.page ^ 1, True)
        elif row.mapping == FAR_TABLE:
            fault(s, row.page ^ (1 << s.geo.index_bits), True)
        elif row.mapping != "nothing":
            fault(s, row.page, row.mapping == "writable page")
    if not row.logging:
        set_logging(s, who, 0)
    return vm_of(s).lookup(s.geo.base_gfn + row.page)


def is_as_wanted(row: Row, there: Leaf | None, block_level: int) -> bool:
    """Whether the mapping is the row's."""
    if row.mapping in ("nothing", "table", FAR_TABLE):
        return there is None
    level = block_level if row.mapping.endswith("block") else LAST_LEVEL
    if level == LAST_LEVEL and row.mapping.endswith("block"):
        return False
    return there is not None and there.level == level and there.writable == row.mapping.startswith("writable")


def every_outcome(block_levels: tuple[int, ...]) -> set[tuple[Outcome, int]]:
    """All that the table holds: what a fault did, and the level of the leaf that is there then."""
    at_any_level = {(Outcome(codes.SPURIOUS, codes.NOTHING), level) for level in (*block_levels, LAST_LEVEL)} | {
        (Outcome(codes.PERMISSION, codes.RELAXED), level) for level in (*block_levels, LAST_LEVEL)
    }
    blocks = {(Outcome(codes.POPULATION, codes.MAPPED_BLOCK), level) for level in block_levels}
    blocks |= {(Outcome(codes.REBUILT, codes.NOTHING), level) for level in block_levels}
    pages = {(Outcome(codes.POPULATION, codes.MAPPED_PAGE), 3), (Outcome(codes.PERMISSION, codes.SPLIT), 3)}
    return at_any_level | blocks | pages


@pytest.mark.thorough
@pytest.mark.parametrize("shared", LOCKINGS)
@pytest.mark.parametrize(("granule", "block_size"), SHAPES)
def test_every_row_comes_out_as_user_mem_abort_has_it(granule: int, block_size: int, shared: bool) -> None:
    big = block_size == GIB
    backings = ["hugetlb-1g"] if big else list(BACKINGS)[: 5 if granule == 4 * KIB else 4]
    offsets = (0, granule, 2 * MIB) if big else (0, granule)
    reached: Counter[bool] = Counter()
    outcomes: Counter[tuple[Outcome, int]] = Counter()
    for backing, offset, rebuilds in product(backings, offsets, (False, True)):
        s = machine(granule, block_size, backing, offset, rebuilds, shared)
        pristine = Pristine(s)
        for number, row in enumerate(rows(s, (*MAPPINGS, FAR_TABLE) if big else MAPPINGS)):
            pristine.restore()
            where = f"{backing}, offset {offset}, vCPUs rebuild: {rebuilds}, {row}"
            block_level = level_of_blocks(row, s, backing, offset)
            possible = not row.mapping.endswith("block") or (
                block_level < LAST_LEVEL and not (row.mapping == "writable block" and row.logging)
            )
            assert is_as_wanted(row, prepare(s, row), block_level) == possible, where
            reached[possible] += 1
            if not possible:
                continue
            vm = vm_of(s)
            gfn = s.geo.base_gfn + row.page
            expected = vm.user_mem_abort(gfn, row.write)
            kind, did, _, rebuild = fault(s, row.page, row.write)
            assert Outcome(kind, did) == expected, where
            assert (rebuild != 0) == (kind == codes.REBUILT), where
            reap(s, s.geo.hypervisor)
            assert differences(s, vm) == [], where
            if number % 16 == 0 or not JIT_DISABLED:  # entry by entry
                run_audit(s)
            if number % 16 == 0 or not big:  # page by page
                assert naive_audit(s) == [], where
            assert violations(s) == {}, where
            leaf = vm.lookup(gfn)
            assert leaf is not None
            assert leaf.writable or not row.write, where
            outcomes[expected, leaf.level] += 1
    assert set(outcomes) == every_outcome((1, 2) if big else (2,))
    assert (reached[True], reached[False]) == SIZES[granule, block_size]


@pytest.mark.parametrize("write", [False, True])
def test_outside_every_memslot_a_fault_goes_to_the_vmm(write: bool) -> None:
    s = machine(4 * KIB, 2 * MIB, "hugetlb", 0, True, False)
    vm = vm_of(s)
    for page in (-1, s.geo.pages):
        assert vm.user_mem_abort(s.geo.base_gfn + page, write) == (codes.NO_SLOT, codes.NOTHING)
        assert fault(s, page, write) == (codes.NO_SLOT, codes.NOTHING, 0, 0)
    assert differences(s, vm) == []


@pytest.mark.parametrize("mapping", MAPPINGS)
def test_while_its_frame_moves_a_fault_is_tried_again(mapping: str) -> None:
    s = machine(4 * KIB, 2 * MIB, "thp", 0, True, False)
    prepare(s, Row(False, "inside", mapping, True, 7))
    s.host[7] = HOST_MOVING
    vm = vm_of(s)
    assert vm.user_mem_abort(s.geo.base_gfn + 7, True) == (codes.RETRY, codes.NOTHING)
    assert fault(s, 7, True) == (codes.RETRY, codes.NOTHING, 0, 0)
    assert differences(s, vm) == []


def test_who_needs_a_table_that_is_about_to_be_freed_goes_back_to_the_guest() -> None:
    """A rebuilder that gave mmu_lock back and has not torn down yet: no leak, and no reason to end a run."""
    s = machine(4 * KIB, 2 * MIB, "hugetlb", 0, False, False)
    fault(s, 0, True)
    set_logging(s, s.geo.hypervisor, 1)
    kept = int(s.control[POOL_HEAD])
    s.control[POOL_HEAD] = s.control[POOL_TAIL]
    s.tally[INSIDE] = 1
    assert fault(s, 5, True)[:2] == (codes.RETRY, codes.NOTHING)
    s.control[POOL_HEAD], s.tally[INSIDE] = kept, 0  # it has
    assert fault(s, 5, True)[:2] == (codes.PERMISSION, codes.SPLIT)
    assert (violations(s), naive_audit(s)) == ({}, [])


@pytest.mark.parametrize("free", [0, 1])
def test_a_pool_that_runs_dry_is_told_and_leaves_the_counts_right(free: int) -> None:
    s = machine(4 * KIB, 2 * MIB, "hugetlb", 0, False, False)
    fault(s, 0, True)
    set_logging(s, s.geo.hypervisor, 1)
    kept = int(s.control[POOL_HEAD])
    s.control[POOL_HEAD] = s.control[POOL_TAIL] - free  # so many are left
    assert fault(s, 5, True)[:2] == ((codes.PERMISSION, codes.SPLIT) if free else (codes.POOL_EXHAUSTED, codes.NOTHING))
    assert len(naive_tree(s).leaves) == 1
    if not free:  # the block is still there, and serves whoever reads
        assert naive_tree(s).leaves[0].level == 2
        s.control[POOL_HEAD] = kept
        assert naive_audit(s) == []
