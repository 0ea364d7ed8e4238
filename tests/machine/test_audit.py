"""The audit finds each planted corruption, under the right name and no other."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from machines import (
    ALL,
    SHAPES,
    assert_sound,
    block_gfn,
    evidence,
    fault,
    naive_audit,
    run_audit,
    small_machine,
    split_block,
    violations,
)

from stress.arch.descriptors import AF, CONTIGUOUS, DBM, MEMATTR, POISON, S2AP, SH, SOFTWARE, XN, Field
from stress.arch.geometry import GIB, KIB, MIB
from stress.kernels.audit import audit
from stress.kernels.clean import write_through_cache
from stress.kernels.codes import (
    COUNT,
    LINKED_TWICE,
    LINKED_WHEN_FREE,
    MAPPED,
    NOT_POISONED,
    NOT_THE_HOSTS,
    POPULATION,
    WRONG_ATTRIBUTES,
    WRONG_LEVEL,
)
from stress.kernels.descriptor import leaf_descriptor, next_page, table_descriptor, write_protected
from stress.kernels.entries import find
from stress.kernels.pool import allocate_table, free_table
from stress.kernels.split import DONE
from stress.shm.accounts import Kind
from stress.shm.layout import Machine
from stress.shm.words import (
    FREE,
    HOST_MOVING,
    POOL_HEAD,
    POOL_TAIL,
    SLOT_BASE,
    SLOT_LOGGING,
    SLOT_PAGES,
    SLOT_PROTECTED,
)

BLOCK = 2  # the one that is mapped as a block


def split_machine() -> Machine:
    """Block 0 split and half populated, block 1 split and empty, block 2 mapped, the others not mapped."""
    s = small_machine(blocks=5)
    assert split_block(s, 1, 0) == DONE
    assert split_block(s, 0, ALL // 2) == DONE
    assert fault(s, block_gfn(s.geo, BLOCK)) == POPULATION
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
    """A good leaf, whose reference nobody took."""
    index, _ = find(s, block_gfn(s.geo, 1), 3)
    s.tables[index] = leaf_descriptor(s.geo, 512, 3)
    return {"refcount": 1}


def unlinked(s: Machine) -> dict[str, int]:
    index, _ = find(s, s.geo.base_gfn, 2)
    s.tables[index] = 0
    s.page_count[index >> s.geo.index_bits] -= 1
    return {"table-leak": 1}


def allocated_and_forgotten(s: Machine) -> dict[str, int]:
    allocate_table(s, 3, 0)
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


def wrong_level(s: Machine) -> dict[str, int]:
    s.page_level[leaf_table(s)] = 2
    return {"refcount": 1}


def page_of_another_frame(s: Machine) -> dict[str, int]:
    index, _ = find(s, s.geo.base_gfn + 1, 3)
    s.tables[index] = leaf_descriptor(s.geo, 7, 3)
    return {"stale-translation": 1}


def frame_outside_memory(s: Machine) -> dict[str, int]:
    index, _ = find(s, s.geo.base_gfn + 1, 3)
    s.tables[index] = leaf_descriptor(s.geo, s.geo.frames, 3)
    return {"stale-translation": 1}


def block_of_another_frame(s: Machine) -> dict[str, int]:
    index, _ = find(s, block_gfn(s.geo, BLOCK), 2)
    s.tables[index] = leaf_descriptor(s.geo, 0, 2)
    return {"stale-translation": 1}


def page_whose_frame_has_moved(s: Machine) -> dict[str, int]:
    """Three pages, of which two are mapped."""
    s.host[[3, 5, 6]] = [6, 3, 5]
    return {"stale-translation": 2}


def page_whose_frame_is_moving(s: Machine) -> dict[str, int]:
    s.host[3] = HOST_MOVING
    return {"stale-translation": 1}


def block_whose_first_frame_has_moved(s: Machine) -> dict[str, int]:
    s.host[512 * BLOCK] = 4 * 512
    return {"stale-translation": 1}


def block_whose_last_frame_has_moved(s: Machine) -> dict[str, int]:
    s.host[512 * BLOCK + 511] = 4 * 512
    return {"stale-translation": 1}


def block_with_one_frame_moved_in_its_middle(s: Machine) -> dict[str, int]:
    s.host[512 * BLOCK + 77] = 4 * 512
    return {"stale-translation": 1}


def mapped_outside_the_memslot(s: Machine) -> dict[str, int]:
    """The memslot has moved on by a page, and nobody has unmapped its old place."""
    s.memslots[0, SLOT_BASE] += 1
    return {"stale-translation": 256 + 1}  # every page that block 0 maps, and block 2


def block_beyond_the_memslots_end(s: Machine) -> dict[str, int]:
    s.memslots[0, SLOT_PAGES] = 512 * BLOCK + 511
    return {"stale-translation": 1}


def free_page_written_to(s: Machine) -> dict[str, int]:
    page = int(s.free_ring[int(s.control[POOL_HEAD]) % s.geo.table_pages])
    s.tables[(page << s.geo.index_bits) + 511] = 0
    return {"table-use-after-free": 1}


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
    wrong_level,
    page_of_another_frame,
    frame_outside_memory,
    block_of_another_frame,
    page_whose_frame_has_moved,
    page_whose_frame_is_moving,
    block_whose_first_frame_has_moved,
    block_whose_last_frame_has_moved,
    block_with_one_frame_moved_in_its_middle,
    mapped_outside_the_memslot,
    block_beyond_the_memslots_end,
    free_page_written_to,
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
    page = leaf_table(s, 1)
    s.page_count[page] = 99
    run_audit(s)
    piece = evidence(s, Kind.REFCOUNT)
    assert (piece["found"], piece["expected"], piece["detail"], piece["level"]) == (99, 1, COUNT, 3)
    assert (piece["who"], piece["gfn"]) == (s.geo.hypervisor, block_gfn(s.geo, 1)), "the first that the table serves"

    s = split_machine()
    wrong_level(s)
    run_audit(s)
    piece = evidence(s, Kind.REFCOUNT)
    assert (piece["found"], piece["expected"], piece["detail"], piece["level"]) == (2, 3, WRONG_LEVEL, 3)

    s = split_machine()
    linked_twice(s)
    run_audit(s)
    piece = evidence(s, Kind.REFCOUNT)
    assert (piece["found"], piece["detail"], piece["gfn"]) == (leaf_table(s), LINKED_TWICE, block_gfn(s.geo, 1))

    s = split_machine()
    page = leaf_table(s)
    s.page_count[page] = 1
    free_table(s, page, 0, 0)
    run_audit(s)
    piece = evidence(s, Kind.TABLE_USE_AFTER_FREE)
    assert (piece["found"], piece["detail"]) == (page, LINKED_WHEN_FREE)

    s = split_machine()
    page = allocate_table(s, 3, 0)
    run_audit(s)
    assert evidence(s, Kind.TABLE_LEAK)["found"] == page


def test_evidence_names_the_leaf() -> None:
    s = split_machine()
    index, _ = find(s, s.geo.base_gfn + 1, 3)
    page_of_another_frame(s)
    run_audit(s)
    piece = evidence(s, Kind.STALE_TRANSLATION)
    assert (piece["gfn"], piece["level"], piece["detail"]) == (s.geo.base_gfn + 1, 3, NOT_THE_HOSTS)
    assert piece["found"] == s.tables[index]

    s = split_machine()
    free_page_written_to(s)
    run_audit(s)
    piece = evidence(s, Kind.TABLE_USE_AFTER_FREE)
    assert (piece["found"], piece["expected"], piece["detail"]) == (0, POISON, NOT_POISONED)


@pytest.mark.parametrize(("granule", "block_size"), SHAPES)
def test_a_sound_machine_passes_and_its_tables_are_counted(granule: int, block_size: int) -> None:
    s = small_machine(granule, block_size)
    assert run_audit(s) == s.geo.root_pages
    assert split_block(s, 0, ALL // 3) == DONE
    assert fault(s, block_gfn(s.geo, 1)) == POPULATION
    used = run_audit(s)
    assert used == (s.page_level != FREE).sum() > s.geo.root_pages
    assert violations(s) == {}
    assert naive_audit(s) == []


@pytest.mark.parametrize(
    ("granule", "block_size", "ipa_bits", "offset"),
    [
        (4 * KIB, 2 * MIB, 34, 3 * GIB),  # root at level 2, 16 pages
        (4 * KIB, 2 * MIB, 48, 300 << 40 >> 2),  # root at level 0
        (4 * KIB, 2 * MIB, 40, 700 * GIB),  # in the second page of the root
        (64 * KIB, 512 * MIB, 40, 5 * 512 * MIB),
    ],
)
def test_frames_are_told_apart_wherever_the_memslot_is(
    granule: int, block_size: int, ipa_bits: int, offset: int
) -> None:
    """Of every table the audit must know the guest frame at which it begins."""
    s = small_machine(granule, block_size, ipa_bits=ipa_bits, phys_offset=offset, blocks=3)
    for block in (0, 2):
        assert fault(s, block_gfn(s.geo, block)) == POPULATION
    assert split_block(s, 1, ALL // 64) == DONE
    assert_sound(s)
    index, _ = find(s, block_gfn(s.geo, 1) + 63, 3)
    assert s.tables[index] & 1
    s.tables[index] = leaf_descriptor(s.geo, 0, 3)
    run_audit(s)
    assert violations(s) == {"stale-translation": 1}
    assert evidence(s, Kind.STALE_TRANSLATION)["gfn"] == block_gfn(s.geo, 1) + 63


def test_scratch_needs_no_preparation() -> None:
    s = split_machine()
    seen, starts = np.arange(s.geo.table_pages), np.arange(s.geo.table_pages)
    audit(s, 1, seen, starts)
    audit(s, 1, seen, starts)
    assert violations(s) == {}


# Attributes: every bit of a descriptor.


@pytest.mark.parametrize("field", [MEMATTR, SH, AF, S2AP, Field(7, 7), XN, DBM, CONTIGUOUS, SOFTWARE])
@pytest.mark.parametrize("level", [2, 3])
def test_a_leaf_with_other_attributes_than_its_mapping(level: int, field: Field) -> None:
    s = small_machine()
    assert fault(s, s.geo.base_gfn) == POPULATION
    if level == 3:
        assert split_block(s, 0) == DONE
    index, found = find(s, s.geo.base_gfn, 3)
    assert found == level
    run_audit(s)
    assert violations(s) == {}
    s.tables[index] ^= 1 << field.lo
    run_audit(s)
    assert violations(s) == {"stale-translation": 1}
    piece = evidence(s, Kind.STALE_TRANSLATION)
    assert (piece["detail"], piece["gfn"], piece["level"]) == (WRONG_ATTRIBUTES, s.geo.base_gfn, level)
    assert piece["found"] ^ piece["expected"] == 1 << field.lo


@pytest.mark.parametrize("word", [SLOT_LOGGING, SLOT_PROTECTED])
def test_only_logging_may_take_write_permission(word: int) -> None:
    s = small_machine()
    assert fault(s, s.geo.base_gfn) == POPULATION
    index, _ = find(s, s.geo.base_gfn, 3)
    s.tables[index] = int(write_protected(int(s.tables[index])))
    s.memslots[0, word] = 1
    run_audit(s)
    assert violations(s) == {}
    s.memslots[0, word] = 0
    run_audit(s)
    assert violations(s) == {"stale-translation": 1}


def test_a_table_descriptor_with_other_bits_than_its_own() -> None:
    s = small_machine()
    assert split_block(s, 0) == DONE
    index, level = find(s, s.geo.base_gfn, 2)
    s.tables[index] |= 1 << 59
    run_audit(s)
    assert (level, violations(s)) == (2, {"stale-translation": 1})


def test_mapped_memory_is_at_the_poc_where_the_guest_sees_it() -> None:
    s = small_machine(fwb=False, guest_caches=False)
    assert fault(s, s.geo.base_gfn) == POPULATION
    run_audit(s)
    assert violations(s) == {}
    write_through_cache(s, 77)
    run_audit(s)
    assert violations(s) == {"not-at-poc": 1}
    piece = evidence(s, Kind.NOT_AT_POC)
    assert (piece["detail"], piece["gfn"], piece["rule"]) == (MAPPED, s.geo.base_gfn + 77, 0)
