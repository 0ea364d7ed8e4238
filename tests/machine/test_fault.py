"""Stage-2 faults of a guest without dirty logging: what gets mapped where, and of which class they are."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from machines import (
    ALL,
    SHAPES,
    SMALL,
    Leaf,
    assert_sound,
    block_gfn,
    block_leaf,
    block_pages,
    fault,
    naive_audit,
    naive_tree,
    page_leaves,
    rebuild_block,
    small_machine,
    split_block,
    violations,
)

from stress.arch.descriptors import S2AP_W
from stress.arch.geometry import GIB, KIB, MIB
from stress.kernels.codes import PERMISSION, POOL_EXHAUSTED, POPULATION, SPURIOUS
from stress.kernels.entries import find
from stress.kernels.mapping import MAPPED, map_leaf
from stress.kernels.pool import allocate_table
from stress.kernels.rebuild import DONE, NOT_A_TABLE
from stress.kernels.teardown import reap
from stress.orders import NAMED_ORDERS
from stress.shm.layout import Machine
from stress.shm.words import NOT_AT_POC, POOL_HEAD, POOL_TAIL, SEQUENCE, TLBI_END, TLBI_START


@pytest.mark.parametrize(("granule", "block_size"), SHAPES)
def test_a_fault_maps_a_block_where_no_table_is(granule: int, block_size: int) -> None:
    s = small_machine(granule, block_size)
    gfn = s.geo.base_gfn + block_pages(s.geo) + 5
    assert fault(s, gfn) == POPULATION
    assert assert_sound(s).leaves == [block_leaf(s.geo, 1)]
    assert fault(s, gfn, 1) == SPURIOUS
    assert fault(s, s.geo.base_gfn, 1) == POPULATION
    assert assert_sound(s).leaves == [block_leaf(s.geo, 0), block_leaf(s.geo, 1)]
    assert s.control[SEQUENCE] == 0, "mapping what was not mapped needs no TLBI"


@pytest.mark.parametrize(("granule", "block_size"), SHAPES)
def test_a_fault_maps_a_page_below_a_table(granule: int, block_size: int) -> None:
    s = small_machine(granule, block_size)
    assert split_block(s, 1, 0) == 0
    pages = block_pages(s.geo)
    first = s.geo.base_gfn + pages
    tables = len(assert_sound(s).tables)
    for page in (pages - 1, 0, 7):
        assert fault(s, first + page) == POPULATION
        assert fault(s, first + page, 1) == SPURIOUS
    tree = assert_sound(s)
    assert tree.leaves == page_leaves(s.geo, [pages, pages + 7, 2 * pages - 1])
    assert len(tree.tables) == tables, "split has made the tables already"


def test_a_fault_adds_the_tables_missing_below_a_table() -> None:
    """A level 1 table with an empty entry: a page needs a level 3 table first."""
    s = small_machine(4 * KIB, GIB, blocks=1)
    index, _ = find(s, s.geo.base_gfn, 1)
    page = allocate_table(s, 2, 0)
    s.tables[index] = ((page + s.geo.tables_pfn) << 12) | 3
    s.page_count[0] += 1
    assert assert_sound(s).leaves == []
    assert fault(s, s.geo.base_gfn + 1000) == POPULATION
    tree = assert_sound(s)
    assert tree.leaves == page_leaves(s.geo, [1000])
    assert len(tree.tables) == s.geo.root_pages + 2


@pytest.mark.parametrize("ipa_bits", [34, 40, 48])
def test_the_tables_above_are_made_once(ipa_bits: int) -> None:
    s = small_machine(4 * KIB, 2 * MIB, blocks=3, ipa_bits=ipa_bits)
    for block in range(3):
        assert map_leaf(s, block_gfn(s.geo, block) + 7, 512 * block + 7, s.geo.block_level, 1, 0, 0) == MAPPED
    tree = assert_sound(s)
    assert tree.leaves == [block_leaf(s.geo, block) for block in range(3)]
    assert len(tree.tables) == s.geo.root_pages + (s.geo.block_level - s.geo.start_level)


@pytest.mark.parametrize("split_first", [False, True])
def test_write_permission_is_relaxed_in_place(split_first: bool) -> None:
    s = small_machine()
    gfn = s.geo.base_gfn + 9
    assert fault(s, gfn) == POPULATION
    if split_first:
        assert split_block(s, 0, ALL) == 0
    index, level = find(s, gfn, 3)
    writable = int(s.tables[index])
    s.tables[index] = writable & ~S2AP_W
    before = int(s.control[SEQUENCE])
    assert fault(s, gfn) == SPURIOUS, "reading was allowed"
    assert s.control[SEQUENCE] == before
    assert fault(s, gfn, 1) == PERMISSION
    assert s.tables[index] == writable
    number = int(s.control[SEQUENCE])
    assert number == before + 1, "the old translation must leave the TLBs"
    row = s.tlbi[number]
    assert row[TLBI_START] <= gfn < row[TLBI_END]
    assert fault(s, gfn, 1) == SPURIOUS
    assert level == (3 if split_first else 2)
    assert_sound(s)


def test_what_is_mapped_is_clean() -> None:
    s = small_machine(fwb=False)
    assert (s.cells & NOT_AT_POC).all()
    assert fault(s, s.geo.base_gfn + 3) == POPULATION
    assert not (s.cells[:512] & NOT_AT_POC).any()
    assert (s.cells[512:] & NOT_AT_POC).all()
    assert split_block(s, 0, 0) == 0
    s.cells[:512] |= NOT_AT_POC
    assert fault(s, s.geo.base_gfn + 3) == POPULATION
    assert list(np.flatnonzero(s.cells[:512] & NOT_AT_POC == 0)) == [3]


def drain_pool(s: Machine, left: int) -> None:
    """Take all table pages out of the pool but the last ``left``."""
    while s.control[POOL_TAIL] - s.control[POOL_HEAD] > left:
        allocate_table(s, 3, 0)


def test_an_exhausted_pool() -> None:
    s = small_machine(ipa_bits=48)  # two levels of tables above the blocks
    drain_pool(s, 1)
    assert fault(s, s.geo.base_gfn) == POOL_EXHAUSTED
    tree = naive_tree(s)
    assert tree.leaves == []
    assert len(tree.tables) == s.geo.root_pages + 1, "the one that was left is linked"
    for page, valid in tree.tables.items():
        assert s.page_count[page] == 1 + valid
    assert fault(s, s.geo.base_gfn) == POOL_EXHAUSTED
    assert naive_tree(s) == tree
    assert violations(s) == {"table-leak": 1}, "somebody has the others"


@pytest.mark.thorough
@pytest.mark.parametrize(("granule", "block_size"), SMALL)
def test_faults_splits_and_rebuilds_against_a_model(granule: int, block_size: int) -> None:
    """The model: per block nothing, the block, or the set of its pages that are mapped."""
    random = Random(3)
    s = small_machine(granule, block_size, blocks=8)
    pages = block_pages(s.geo)
    model: list[set[int] | str] = ["nothing"] * 8
    orders = [order for order in NAMED_ORDERS.values() if order.bbm_level == 0]
    happened = set()
    for _ in range(80):
        block = random.randrange(8)
        state = model[block]
        action = random.choice(["fault", "fault", "split", "rebuild"])
        if action == "fault":
            page = random.choice([0, pages - 1, random.randrange(pages)])
            gfn = s.geo.base_gfn + block * pages + page
            found = fault(s, gfn, random.randrange(2))
            if isinstance(state, set):
                assert found == (SPURIOUS if page in state else POPULATION)
                state.add(page)
            else:
                assert found == (SPURIOUS if state == "block" else POPULATION)
                model[block] = "block"
        elif action == "split":
            count = random.choice([0, 3, min(pages, 600)])
            assert split_block(s, block, (count << 20) // pages) == 0
            if not isinstance(state, set):
                share = (count << 20) // pages
                model[block] = {p for p in range(pages) if (p + 1) * share >> 20 != p * share >> 20}
        else:
            done = rebuild_block(s, block, random.choice(orders).steps)
            reap(s, s.geo.hypervisor)
            assert done == (DONE if isinstance(state, set) else NOT_A_TABLE)
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
