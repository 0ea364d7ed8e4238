"""The audit finds each planted corruption, under the right name and no other."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from machines import SHAPES, assert_sound, evidence, naive_audit, run_audit, small_machine, violations

from stress.kernels.audit import LINKED_WHEN_FREE, audit
from stress.kernels.descriptor import next_page, table_descriptor
from stress.kernels.entries import find
from stress.kernels.pool import allocate_table, free_table
from stress.kernels.split import split
from stress.shm.layout import (
    Machine,
)
from stress.shm.words import (
    FREE,
    POOL_HEAD,
    POOL_TAIL,
    Kind,
)

ALL = 1 << 20


def split_machine() -> Machine:
    """Block 0 split and half populated, block 1 split and empty, the others not mapped."""
    s = small_machine(blocks=5)
    assert split(s, 1, 1, 0) == 0
    assert split(s, 1, 0, ALL // 2) == 0
    assert_sound(s)
    return s


def leaf_table(s: Machine, block: int = 0) -> int:
    """The level 3 table of a split block."""
    index, level = find(s, s.geo.base_gfn + block * 512, 2)
    assert level == 2
    return int(next_page(s.geo, s.tables[index]))


def count_too_high(s: Machine) -> dict[str, int]:
    s.page_count[leaf_table(s)] += 1
    return {"refcount": 1}


def count_too_low(s: Machine) -> dict[str, int]:
    s.page_count[leaf_table(s)] -= 1
    return {"refcount": 1}


def root_count_wrong(s: Machine) -> dict[str, int]:
    s.page_count[0] += 1
    return {"refcount": 1}


def entry_not_counted(s: Machine) -> dict[str, int]:
    index, _ = find(s, s.geo.base_gfn + 512, 3)
    s.tables[index] = 0x7DB
    return {"refcount": 1}


def unlinked(s: Machine) -> dict[str, int]:
    index, _ = find(s, s.geo.base_gfn, 2)
    s.tables[index] = 0
    s.page_count[index >> s.geo.index_bits] -= 1
    return {"table-leak": 1}


def allocated_and_forgotten(s: Machine) -> dict[str, int]:
    allocate_table(s, 3)
    return {"table-leak": 1}


def linked_twice(s: Machine) -> dict[str, int]:
    first, _ = find(s, s.geo.base_gfn, 2)
    second, _ = find(s, s.geo.base_gfn + 512, 2)
    s.tables[second] = s.tables[first]
    return {"refcount": 1, "table-leak": 1}  # and the second block's own table is lost


def wild_pointer(s: Machine) -> dict[str, int]:
    index, _ = find(s, s.geo.base_gfn, 2)
    s.tables[index] = table_descriptor(s.geo, s.geo.table_pages)
    return {"refcount": 1, "table-leak": 1}


def freed_but_linked(s: Machine) -> dict[str, int]:
    page = leaf_table(s)
    s.page_count[page] = 1
    free_table(s, page, 0, 0)
    return {"table-use-after-free": 1}


def twice_in_the_ring(s: Machine) -> dict[str, int]:
    """In place of another free page, which nobody finds any more."""
    head = int(s.control[POOL_HEAD])
    assert s.control[POOL_TAIL] - head >= 2
    s.free_ring[(head + 1) % s.geo.table_pages] = s.free_ring[head % s.geo.table_pages]
    return {"double-free": 1}


def one_more_in_the_ring(s: Machine) -> dict[str, int]:
    tail = int(s.control[POOL_TAIL])
    s.free_ring[tail % s.geo.table_pages] = s.free_ring[(tail - 1) % s.geo.table_pages]
    s.control[POOL_TAIL] = tail + 1
    return {"double-free": 2}  # the page twice, and the sum is wrong


def in_use_and_in_the_ring(s: Machine) -> dict[str, int]:
    s.free_ring[int(s.control[POOL_HEAD]) % s.geo.table_pages] = leaf_table(s)
    return {"double-free": 1}


def lost_from_the_ring(s: Machine) -> dict[str, int]:
    s.control[POOL_HEAD] += 1
    return {"double-free": 1}


CORRUPTIONS = [
    count_too_high,
    count_too_low,
    root_count_wrong,
    entry_not_counted,
    unlinked,
    allocated_and_forgotten,
    linked_twice,
    wild_pointer,
    freed_but_linked,
    twice_in_the_ring,
    one_more_in_the_ring,
    in_use_and_in_the_ring,
    lost_from_the_ring,
]


@pytest.mark.parametrize("corrupt", CORRUPTIONS, ids=lambda corrupt: corrupt.__name__)
def test_each_corruption_is_found(corrupt: Callable[[Machine], dict[str, int]]) -> None:
    s = split_machine()
    expected = corrupt(s)
    assert violations(s) == {}
    run_audit(s)
    assert violations(s) == expected
    run_audit(s)
    assert violations(s) == {kind: 2 * count for kind, count in expected.items()}, "it stays wrong"


def test_evidence_names_the_page() -> None:
    s = split_machine()
    page = leaf_table(s)
    s.page_count[page] = 99
    run_audit(s)
    piece = evidence(s, Kind.REFCOUNT)
    assert (piece["found"], piece["expected"], piece["detail"], piece["level"]) == (99, 1 + 256, page, 3)
    assert piece["who"] == s.geo.hypervisor

    s = split_machine()
    page = leaf_table(s)
    s.page_count[page] = 1
    free_table(s, page, 0, 0)
    run_audit(s)
    piece = evidence(s, Kind.TABLE_USE_AFTER_FREE)
    assert (piece["found"], piece["detail"]) == (page, LINKED_WHEN_FREE)

    s = split_machine()
    page = allocate_table(s, 3)
    run_audit(s)
    assert evidence(s, Kind.TABLE_LEAK)["found"] == page


@pytest.mark.parametrize(("granule", "block_size"), SHAPES)
def test_a_sound_machine_passes_and_its_tables_are_counted(granule: int, block_size: int) -> None:
    s = small_machine(granule, block_size)
    assert run_audit(s) == s.geo.root_pages
    assert split(s, 1, 0, ALL // 3) == 0
    used = run_audit(s)
    assert used == (s.page_level != FREE).sum() > s.geo.root_pages
    assert violations(s) == {}
    assert naive_audit(s) == []


def test_scratch_needs_no_preparation() -> None:
    s = split_machine()
    seen = np.arange(s.geo.table_pages)
    audit(s, 1, seen)
    audit(s, 1, seen)
    assert violations(s) == {}
