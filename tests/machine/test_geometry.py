"""Levels, roots, sizes and table counts, against values worked out by hand from KVM's formulas."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stress.arch.geometry import BLOCK_SIZES, GIB, KIB, MEMSLOT_BASE, MIB, Geometry
from stress.shm.layout import Machine, geo_for, shapes, table_pages_needed
from stress.shm.words import MEMORY_PA, TABLES_PA

ENTRIES = {4 * KIB: 512, 16 * KIB: 2048, 64 * KIB: 8192}


@pytest.mark.parametrize(
    ("granule", "ipa_bits", "start_level", "root_pages"),
    [
        # kvm_get_vtcr: levels = max(2, (ipa - 4 - 4) / (granule_shift - 3)), start = 4 - levels;
        # stage2_pgd_size: the root has as many pages as the bits above the start level's table need.
        (4 * KIB, 32, 2, 4),
        (4 * KIB, 34, 2, 16),
        (4 * KIB, 35, 1, 1),
        (4 * KIB, 36, 1, 1),
        (4 * KIB, 39, 1, 1),
        (4 * KIB, 40, 1, 2),
        (4 * KIB, 42, 1, 8),
        (4 * KIB, 43, 1, 16),
        (4 * KIB, 44, 0, 1),
        (4 * KIB, 48, 0, 1),
        (16 * KIB, 32, 2, 1),
        (16 * KIB, 36, 2, 1),
        (16 * KIB, 37, 2, 2),
        (16 * KIB, 40, 2, 16),
        (16 * KIB, 41, 1, 1),
        (16 * KIB, 47, 1, 1),
        (16 * KIB, 48, 1, 2),
        (64 * KIB, 32, 2, 1),  # one level would do, KVM takes two
        (64 * KIB, 33, 2, 1),
        (64 * KIB, 34, 2, 1),
        (64 * KIB, 40, 2, 1),
        (64 * KIB, 42, 2, 1),
        (64 * KIB, 43, 2, 2),
        (64 * KIB, 46, 2, 16),
        (64 * KIB, 47, 1, 1),
        (64 * KIB, 48, 1, 1),
    ],
)
def test_start_level_and_concatenated_roots(granule: int, ipa_bits: int, start_level: int, root_pages: int) -> None:
    geometry = Geometry(granule, ipa_bits)
    assert (geometry.start_level, geometry.root_pages) == (start_level, root_pages)


@given(st.sampled_from(sorted(BLOCK_SIZES)), st.integers(32, 48))
def test_the_root_covers_the_ipa_space_with_the_fewest_levels(granule: int, ipa_bits: int) -> None:
    geometry = Geometry(granule, ipa_bits)
    covered = geometry.root_pages * geometry.entries * geometry.level_size(geometry.start_level)
    assert covered >= 1 << ipa_bits
    assert 1 <= geometry.root_pages <= 16
    if geometry.root_pages > 1:
        assert covered == 1 << ipa_bits, "no page of the root is there for nothing"
    if geometry.start_level < 2:
        one_less = 16 * geometry.entries * geometry.level_size(geometry.start_level + 1)
        assert one_less < 1 << ipa_bits, "one level less would do with 16 concatenated tables"


@pytest.mark.parametrize(
    ("granule", "sizes"),
    [
        (4 * KIB, [512 * GIB, GIB, 2 * MIB, 4 * KIB]),
        (16 * KIB, [64 * GIB, 32 * MIB, 16 * KIB]),
        (64 * KIB, [4096 * GIB, 512 * MIB, 64 * KIB]),
    ],
)
def test_level_sizes(granule: int, sizes: list[int]) -> None:
    geometry = Geometry(granule)
    assert geometry.entries == ENTRIES[granule]
    levels = range(4 - len(sizes), 4)
    assert [geometry.level_size(level) for level in levels] == sizes
    assert [geometry.pages_per(level) for level in levels] == [size // granule for size in sizes]


@pytest.mark.parametrize(
    ("granule", "block_size", "level", "tables"),
    [
        (4 * KIB, GIB, 1, 513),
        (4 * KIB, 2 * MIB, 2, 1),
        (16 * KIB, 32 * MIB, 2, 1),
        (64 * KIB, 512 * MIB, 2, 1),
    ],
)
def test_blocks_and_the_tables_below_them(granule: int, block_size: int, level: int, tables: int) -> None:
    geometry = Geometry(granule)
    assert geometry.block_level(block_size) == level
    assert geometry.level_size(level) == block_size
    assert geometry.tables_below(level) == tables
    assert geometry.tables_below(3) == 0


@pytest.mark.parametrize(
    ("granule", "ipa_bits", "block_size"),
    [
        (4 * KIB, 40, 32 * MIB),
        (4 * KIB, 40, 4 * KIB),
        (16 * KIB, 40, 64 * GIB),
        (64 * KIB, 40, 2 * MIB),
        (4 * KIB, 34, GIB),  # the start level is 2
    ],
)
def test_no_such_block(granule: int, ipa_bits: int, block_size: int) -> None:
    with pytest.raises(ValueError, match="block"):
        Geometry(granule, ipa_bits).block_level(block_size)


@pytest.mark.parametrize(
    ("granule", "ipa_bits"), [(8 * KIB, 40), (4095, 40), (0, 40), (4 * KIB, 49), (4 * KIB, 21), (64 * KIB, 29)]
)
def test_no_such_geometry(granule: int, ipa_bits: int) -> None:
    with pytest.raises(ValueError, match="no such"):
        Geometry(granule, ipa_bits)


def test_twenty_gigabyte_blocks() -> None:
    geometry = Geometry(4 * KIB)
    level = geometry.block_level(GIB)
    assert geometry.pages_per(level) == 262_144
    pages = table_pages_needed(geometry, MEMSLOT_BASE, 20 * GIB)
    assert pages == 2 + 20 * 513  # the two root pages are at the blocks' level
    assert pages * geometry.granule < 42.1e6, "about 42 MB of tables"


def touched_tables(geometry: Geometry, first: int, size: int) -> set[tuple[int, int]]:
    """(level, number) of every table on the way to a page of guest memory, last table by last table."""
    reach = geometry.granule * geometry.entries
    tables = set()
    for ipa in (first, *range(first // reach * reach + reach, first + size, reach)):
        for level in range(geometry.start_level + 1, 4):
            tables.add((level, ipa // geometry.level_size(level - 1)))
    return tables


@pytest.mark.parametrize(
    ("granule", "ipa_bits", "first", "size"),
    [
        (4 * KIB, 40, MEMSLOT_BASE, 2 * MIB),
        (4 * KIB, 40, MEMSLOT_BASE, GIB),
        (4 * KIB, 40, MEMSLOT_BASE, GIB + 2 * MIB),  # the next gigabyte begins: one more table at level 2
        (4 * KIB, 48, MEMSLOT_BASE, GIB + 2 * MIB),
        (4 * KIB, 34, MEMSLOT_BASE, 2 * GIB + 2 * MIB),
        (4 * KIB, 48, MEMSLOT_BASE, 3 * GIB),
        (16 * KIB, 40, MEMSLOT_BASE, 70 * 32 * MIB),
        (16 * KIB, 48, MEMSLOT_BASE, 70 * 32 * MIB),
        (64 * KIB, 32, MEMSLOT_BASE, 6 * 512 * MIB),
        (64 * KIB, 48, MEMSLOT_BASE, 5 * 512 * MIB),
        # Not aligned: an end that reaches one page into another table's range costs that table.
        (4 * KIB, 40, MEMSLOT_BASE + 4 * KIB, 2 * MIB),
        (4 * KIB, 40, MEMSLOT_BASE - 4 * KIB, 8 * KIB),
        (4 * KIB, 40, MEMSLOT_BASE - 4 * KIB, 4 * KIB),
        (4 * KIB, 40, 0, 4 * KIB),
        (4 * KIB, 48, (1 << 39) - 2 * MIB, 4 * MIB),
        (64 * KIB, 40, MEMSLOT_BASE + 192 * KIB, 512 * MIB + 64 * KIB),
    ],
)
def test_table_pages_needed_against_a_walk_over_all_pages(granule: int, ipa_bits: int, first: int, size: int) -> None:
    geometry = Geometry(granule, ipa_bits)
    expected = geometry.root_pages + len(touched_tables(geometry, first, size))
    assert table_pages_needed(geometry, first, size) == expected


@pytest.mark.parametrize(
    ("pages", "spare", "frames"), [(None, 0, 3 * 512), (3 * 512, 0, 3 * 512), (1025, 0, 3 * 512), (512, 2, 3 * 512)]
)
def test_frames_are_whole_blocks_and_the_spare_ones(pages: int | None, spare: int, frames: int) -> None:
    """Guest memory need not be whole blocks; the host backs it, and what moves, with whole ones."""
    geo = geo_for(
        Geometry(4 * KIB),
        block_size=2 * MIB,
        blocks=3,
        vcpus=1,
        fwb=True,
        guest_caches=True,
        pages=pages,
        spare_blocks=spare,
        phys_offset=MEMSLOT_BASE + 12 * KIB,
    )
    assert geo.pages == (pages or 3 * 512)
    assert geo.frames == frames
    assert geo.base_gfn == (MEMSLOT_BASE >> 12) + 3
    assert geo.copies == 1


def test_the_pool_has_room_for_more_than_all_pages_mapped() -> None:
    """For the tables of a block that wait for a grace period, and one per level of each vCPU that loses a race."""
    geometry, vcpus = Geometry(4 * KIB), 5
    geo = geo_for(geometry, block_size=GIB, blocks=2, vcpus=vcpus, fwb=True, guest_caches=True, copies=True)
    mapped = geometry.root_pages + len(touched_tables(geometry, MEMSLOT_BASE, 2 * GIB))
    assert geo.table_pages >= mapped + geometry.tables_below(geo.block_level) + 2 * vcpus
    assert geo.copies == geo.pages, "a migration keeps a copy of every page"


@pytest.mark.parametrize("granule", sorted(BLOCK_SIZES))
def test_physical_memory_is_aligned_and_disjoint(granule: int) -> None:
    geometry = Geometry(granule)
    for size in BLOCK_SIZES[granule].values():
        assert MEMSLOT_BASE % size == 0
        assert MEMORY_PA % size == 0
    block_size = max(BLOCK_SIZES[granule].values())
    geo = geo_for(
        geometry,
        block_size=block_size,
        blocks=100,
        vcpus=3,
        fwb=False,
        guest_caches=False,
    )
    assert TABLES_PA % granule == 0
    assert geo.base_gfn * granule == MEMSLOT_BASE
    assert geo.frames * granule == 100 * block_size
    assert (geo.tables_pfn + geo.table_pages) * granule <= MEMORY_PA, "no table passes for guest memory"
    assert geo.hypervisor == 3
    assert (geo.fwb, geo.poc_checked) == (0, 1)


@pytest.mark.parametrize(
    ("fwb", "guest_caches", "checked"),
    [(True, True, 0), (True, False, 0), (False, True, 0), (False, False, 1)],
)
def test_the_poc_matters_without_fwb_to_a_guest_without_caches(fwb: bool, guest_caches: bool, checked: int) -> None:
    geo = geo_for(
        Geometry(4 * KIB),
        block_size=2 * MIB,
        blocks=1,
        vcpus=1,
        fwb=fwb,
        guest_caches=guest_caches,
    )
    assert geo.poc_checked == checked


def test_regions_are_named_as_the_machine_is() -> None:
    geo = geo_for(
        Geometry(4 * KIB),
        block_size=2 * MIB,
        blocks=1,
        vcpus=1,
        fwb=True,
        guest_caches=True,
    )
    assert (*(name for name, _ in shapes(geo, 1)), "geo") == Machine._fields
