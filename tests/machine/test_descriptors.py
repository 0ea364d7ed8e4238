"""Descriptors: the field table covers the word, known words come out bit for bit, compiled code agrees with it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from machines import SHAPES, decode_leaf, shift_at, small_machine, table_page

from stress.arch.descriptors import (
    AF,
    CLOCK,
    KIND,
    KIND_BROKEN_LEAF,
    KIND_BROKEN_TABLE,
    KIND_LOCKED,
    MEMATTR,
    NT,
    POISON,
    REBUILD,
    S2AP,
    S2AP_R,
    S2AP_W,
    SH,
    TYPE,
    Field,
    block_fields,
    broken,
    leaf_attributes,
    output_address,
    page_fields,
    table_fields,
)
from stress.arch.geometry import BLOCK_SIZES, GIB, KIB, MIB
from stress.kernels import descriptor
from stress.shm.layout import Geo
from stress.shm.words import MEMORY_PA, TABLES_PA

GRANULES = sorted(BLOCK_SIZES)
LAYOUTS = [
    *(pytest.param(page_fields(g.bit_length() - 1), id=f"page-{g // KIB}K") for g in GRANULES),
    *(pytest.param(table_fields(g.bit_length() - 1), id=f"table-{g // KIB}K") for g in GRANULES),
    *(
        pytest.param(block_fields(size.bit_length() - 1), id=f"block-{size // MIB}M-{g // KIB}K")
        for g in GRANULES
        for size in BLOCK_SIZES[g].values()
    ),
]
WORDS = st.integers(0, (1 << 63) - 1)


@pytest.mark.parametrize("fields", LAYOUTS)
def test_fields_are_disjoint_and_cover_the_word(fields: dict[str, Field]) -> None:
    covered = 0
    for name, field in fields.items():
        assert field.hi >= field.lo, name
        assert covered & field.mask == 0, name
        covered |= field.mask
    assert covered == (1 << 64) - 1


def test_fields_of_our_invalid_descriptors_are_disjoint_and_leave_the_valid_bit() -> None:
    kinds = (KIND, REBUILD, CLOCK)
    assert sum(field.mask for field in kinds) == (1 << 63) - 2


@given(st.data())
def test_place_and_take(data: st.DataObject) -> None:
    lo = data.draw(st.integers(0, 63))
    field = Field(data.draw(st.integers(lo, 63)), lo)
    width = field.hi - field.lo + 1
    value = data.draw(st.integers(0, (1 << width) - 1))
    others = data.draw(st.integers(0, (1 << 64) - 1)) & ~field.mask
    assert field.take(field.place(value) | others) == value
    assert field.place(value) & ~field.mask == 0
    for misfit in (-1, 1 << width):
        with pytest.raises(ValueError, match="does not fit"):
            field.place(misfit)


# Words put together by hand from DDI 0487 D8.3. Attributes: MemAttr [5:2], S2AP [7:6] = 11, SH [9:8] = 11, AF [10].
RW_NORMAL = 0b1_11_11_1111_00
RW_FWB = 0b1_11_11_0110_00


@pytest.mark.parametrize(("fwb", "attributes"), [(False, RW_NORMAL), (True, RW_FWB)])
def test_leaf_attributes(fwb: bool, attributes: int) -> None:
    assert leaf_attributes(fwb) == attributes
    assert leaf_attributes(fwb, writable=False) == attributes & ~(1 << 7)
    word = leaf_attributes(fwb)
    assert (AF.take(word), SH.take(word), S2AP.take(word)) == (1, 0b11, 0b11)
    assert MEMATTR.take(word) == (0b0110 if fwb else 0b1111)


def geo_of(granule: int, block_size: int, fwb: bool = True) -> Geo:
    return small_machine(granule, block_size, blocks=2, fwb=fwb).geo


@pytest.mark.parametrize(
    ("granule", "block_size", "fwb", "frame", "level", "word"),
    [
        # The second gigabyte of guest memory, at PA 0x100_4000_0000, as a block.
        (4 * KIB, GIB, True, 1 << 18, 1, 0x0000_0100_4000_07D9),
        (4 * KIB, GIB, False, 1 << 18, 1, 0x0000_0100_4000_07FD),
        (4 * KIB, 2 * MIB, True, 512, 2, 0x0000_0100_0020_07D9),
        (4 * KIB, 2 * MIB, True, 3, 3, 0x0000_0100_0000_37DB),
        (4 * KIB, 2 * MIB, False, 3, 3, 0x0000_0100_0000_37FF),
        (16 * KIB, 32 * MIB, True, 2048, 2, 0x0000_0100_0200_07D9),
        (16 * KIB, 32 * MIB, True, 5, 3, 0x0000_0100_0001_47DB),
        (64 * KIB, 512 * MIB, True, 8192, 2, 0x0000_0100_2000_07D9),
        (64 * KIB, 512 * MIB, False, 1, 3, 0x0000_0100_0001_07FF),
    ],
)
def test_known_leaves(granule: int, block_size: int, fwb: bool, frame: int, level: int, word: int) -> None:
    geo = geo_of(granule, block_size, fwb)
    assert descriptor.leaf_descriptor(geo, frame, level) == word
    assert descriptor.is_leaf(word, level)
    assert not descriptor.is_table(word, level)
    assert descriptor.first_frame(geo, word, level) == frame
    assert descriptor.permissions(word) == descriptor.READ | descriptor.WRITE


@pytest.mark.parametrize(
    ("granule", "word"),
    [(4 * KIB, 0x0000_0001_0000_7003), (16 * KIB, 0x0000_0001_0001_C003), (64 * KIB, 0x0000_0001_0007_0003)],
)
def test_known_tables(granule: int, word: int) -> None:
    geo = geo_of(granule, min(BLOCK_SIZES[granule].values()))
    assert descriptor.table_descriptor(geo, 7) == word
    assert descriptor.next_page(geo, word) == 7
    for level in range(3):
        assert descriptor.is_table(word, level)
        assert not descriptor.is_leaf(word, level)
    assert descriptor.is_leaf(word, 3), "at level 3 the same type is a page"
    assert not descriptor.is_table(word, 3)


def test_reserved_types() -> None:
    for level in range(4):
        for invalid in (0b00, 0b10):
            assert not descriptor.is_leaf(invalid, level)
            assert not descriptor.is_table(invalid, level)
    assert not descriptor.is_leaf(0b01, 3), "01 is reserved at level 3"


GEOS = [pytest.param(*shape.values, id=shape.id) for shape in SHAPES]


@pytest.mark.parametrize(("granule", "block_size"), GEOS)
@given(data=st.data())
def test_compiled_readers_agree_with_the_field_table(granule: int, block_size: int, data: st.DataObject) -> None:
    geo = geo_of(granule, block_size)
    word = data.draw(WORDS)
    level = data.draw(st.integers(geo.start_level, 3))
    kind = TYPE.take(word)
    assert descriptor.is_table(word, level) == (kind == 0b11 and level < 3)
    assert descriptor.is_leaf(word, level) == (kind == (0b11 if level == 3 else 0b01))
    assert descriptor.next_page(geo, word) == table_page(geo, word)
    leaf = decode_leaf(geo, word, level, 0)
    assert descriptor.first_frame(geo, word, level) == leaf.frame
    assert descriptor.permissions(word) == leaf.readable * descriptor.READ + leaf.writable * descriptor.WRITE
    assert descriptor.make_writable(word) == word | S2AP_W
    assert descriptor.write_protected(word) == word & ~S2AP_W
    assert descriptor.with_nt(word) == word | NT.mask
    assert descriptor.has_nt(word) == (NT.take(word) == 1)
    assert descriptor.pages_at(geo, level) << geo.granule_shift == 1 << shift_at(geo, level)


@pytest.mark.parametrize(("granule", "block_size"), GEOS)
@given(data=st.data())
def test_what_is_made_can_be_read_and_has_no_sign(granule: int, block_size: int, data: st.DataObject) -> None:
    geo = geo_of(granule, block_size)
    level = data.draw(st.sampled_from([geo.block_level, 3]))
    pages = 1 << shift_at(geo, level) - geo.granule_shift
    last = ((1 << 48) - MEMORY_PA >> geo.granule_shift) // pages - 1
    frame = data.draw(st.integers(0, last)) * pages
    leaf = descriptor.leaf_descriptor(geo, frame, level)
    fields = page_fields(geo.granule_shift) if level == 3 else block_fields(shift_at(geo, level))
    for name, field in fields.items():
        if name.startswith(("res0", "ignored")):
            assert field.take(leaf) == 0, name
    assert 0 <= leaf < 1 << 63
    address = output_address(shift_at(geo, level)).take(leaf) << shift_at(geo, level)
    assert address == MEMORY_PA + (frame << geo.granule_shift)
    assert decode_leaf(geo, leaf, level, 0) == (0, level, frame, True, True)

    page = data.draw(st.integers(0, ((1 << 48) - TABLES_PA >> geo.granule_shift) - 1))
    table = descriptor.table_descriptor(geo, page)
    assert 0 <= table < 1 << 63
    assert table_page(geo, table) == page == descriptor.next_page(geo, table)


@given(
    st.integers(1, 3),
    st.sampled_from([0b01, 0b11]),
    st.integers(0, (1 << 30) - 1),
    st.integers(0, (1 << 35) - 1),
)
def test_broken_says_why(level: int, kind: int, rebuild: int, clock: int) -> None:
    word = descriptor.broken(kind, level, rebuild, clock)
    was_table = kind == 0b11 and level < 3
    assert word == broken(KIND_BROKEN_TABLE if was_table else KIND_BROKEN_LEAF, rebuild, clock)
    assert 0 < word < 1 << 63
    assert word != POISON
    assert word & 1 == 0, "invalid for the walker"
    assert KIND.take(word) == (KIND_BROKEN_TABLE if was_table else KIND_BROKEN_LEAF)
    assert REBUILD.take(word) == rebuild % (1 << 24)
    assert CLOCK.take(word) == clock
    assert descriptor.is_broken_leaf(word) == (not was_table)
    assert descriptor.is_broken(word)
    assert descriptor.window_of(word) == rebuild % (1 << 24)


def test_a_locked_entry_was_never_valid() -> None:
    """``KVM_INVALID_PTE_LOCKED`` over nothing: nothing to invalidate, and no rebuild's window."""
    word = descriptor.LOCKED
    assert KIND.take(word) == KIND_LOCKED
    assert word not in (0, POISON)
    assert word & 1 == 0
    assert not descriptor.is_broken(word)
    assert not descriptor.is_broken_leaf(word)
    assert descriptor.window_of(word) == 0
    for level in range(4):
        assert not descriptor.is_leaf(word, level)
        assert not descriptor.is_table(word, level)


@pytest.mark.parametrize("level", [1, 2])
@given(frame=st.integers(0, 1000))
def test_nt_is_not_part_of_a_blocks_address(level: int, frame: int) -> None:
    geo = geo_of(4 * KIB, GIB)
    first = frame << (3 - level) * geo.index_bits
    word = descriptor.with_nt(descriptor.leaf_descriptor(geo, first, level))
    assert descriptor.has_nt(word)
    assert descriptor.first_frame(geo, word, level) == first
    assert descriptor.is_leaf(word, level)


def test_poison_is_invalid_and_unlike_anything_else() -> None:
    assert POISON & 1 == 0
    assert 0 < POISON < 1 << 63
    assert KIND.take(POISON) not in (0, KIND_BROKEN_LEAF, KIND_BROKEN_TABLE, KIND_LOCKED)
    assert not descriptor.is_broken_leaf(POISON)
    assert not descriptor.is_broken(POISON)
    for word in (POISON, 0):
        assert descriptor.window_of(word) == 0, "belongs to no window"
        for level in range(4):
            assert not descriptor.is_leaf(word, level)
            assert not descriptor.is_table(word, level)


@given(WORDS)
def test_a_valid_word_belongs_to_no_window(word: int) -> None:
    assert descriptor.window_of(word | 1) == 0
    assert not descriptor.is_broken_leaf(word | 1)
    assert not descriptor.is_broken(word | 1)


def test_permission_bits() -> None:
    assert descriptor.permissions(S2AP_R) == descriptor.READ
    assert descriptor.permissions(S2AP_W) == descriptor.WRITE
    assert descriptor.permissions(0) == 0
    assert NT.mask == 1 << 16
