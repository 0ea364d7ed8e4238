"""Splitting a block: the share of pages asked for, spread evenly, in sound tables, by the book."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from machines import (
    ALL,
    SHAPES,
    SMALL,
    assert_sound,
    block_gfn,
    block_leaf,
    block_pages,
    evidence,
    fault,
    naive_audit,
    naive_tree,
    page_leaves,
    small_machine,
    split_block,
    violations,
)

from stress.arch.geometry import GIB, KIB
from stress.kernels.codes import POOL_DRY, POOL_EXHAUSTED, POOL_RAN_DRY, POPULATION, SPURIOUS, STOPPED
from stress.kernels.entries import find
from stress.kernels.pool import allocate_table
from stress.kernels.split import DONE, is_split, populate, write_unmapped
from stress.kernels.unlinked import is_populated
from stress.shm.accounts import INSIDE, POOL_PEAK, STATE, Kind, State
from stress.shm.words import (
    LOCK,
    NOT_AT_POC,
    POOL_HEAD,
    POOL_TAIL,
    SEQUENCE,
    SLOT_LOGGING,
    STOP,
    TLBI_DONE,
    TLBI_END,
    TLBI_START,
)

SHARES = [0, 1, ALL // 3, ALL // 2, ALL - 1, ALL]


def populated(pages: int, share: int) -> list[int]:
    """The pages that are mapped: each at which the running sum of the share reaches another whole page."""
    sums = [page * share // ALL for page in range(pages + 1)]
    return [page for page in range(pages) if sums[page + 1] > sums[page]]


@given(st.integers(0, ALL), st.integers(1, 3000))
def test_the_share_is_spread_evenly(share: int, pages: int) -> None:
    chosen = [page for page in range(pages) if is_populated(page, share)]
    assert chosen == populated(pages, share)
    assert len(chosen) == pages * share // ALL
    if len(chosen) > 1:
        gaps = np.diff(chosen)
        assert gaps.max() - gaps.min() <= 1


@pytest.mark.parametrize(("granule", "block_size"), SHAPES)
@pytest.mark.parametrize("share", [0, ALL // 1000, ALL])
def test_split_maps_the_share(granule: int, block_size: int, share: int) -> None:
    s = small_machine(granule, block_size)
    pages = block_pages(s.geo)
    assert fault(s, s.geo.base_gfn) == fault(s, s.geo.base_gfn + pages) == POPULATION
    before = len(naive_tree(s).tables)
    assert split_block(s, 1, share) == DONE
    tree = assert_sound(s)
    mapped = populated(pages, share)
    assert tree.leaves == [block_leaf(s.geo, 0), *page_leaves(s.geo, (pages + page for page in mapped))]
    below = 1 if s.geo.block_level == 2 else 513
    assert len(tree.tables) == before + below == s.tally[POOL_PEAK]
    assert s.control[SEQUENCE] == 1
    assert s.control[TLBI_DONE] == 0, "a leaf needs no VMID-wide TLBI"
    assert s.tlbi[1, TLBI_START] == s.geo.base_gfn + pages
    assert s.tlbi[1, TLBI_END] == s.geo.base_gfn + 2 * pages
    assert s.control[LOCK] == 0
    assert s.states[1, STATE] == State.DWELL
    index, level = find(s, s.geo.base_gfn + pages, s.geo.block_level)
    assert (level, s.tables[index] & 3) == (s.geo.block_level, 3), "the table is linked where the block was"
    assert (is_split(s, s.geo.base_gfn), is_split(s, s.geo.base_gfn + pages)) == (False, True)


@pytest.mark.parametrize(("granule", "block_size"), SHAPES)
@pytest.mark.parametrize("share", [ALL // 1000, ALL])
def test_eager_splitting_keeps_pages_write_protected(granule: int, block_size: int, share: int) -> None:
    """As dirty logging wants it: the first write to each page must fault."""
    s = small_machine(granule, block_size)
    s.memslots[0, SLOT_LOGGING] = 1
    assert split_block(s, 1, share, writable=0) == DONE
    pages = block_pages(s.geo)
    expected = page_leaves(s.geo, (pages + page for page in populated(pages, share)), writable=False)
    assert assert_sound(s).leaves == expected


@pytest.mark.parametrize(("granule", "block_size"), SMALL)
def test_a_block_that_is_not_mapped_is_left_alone_unless_asked(granule: int, block_size: int) -> None:
    s = small_machine(granule, block_size)
    assert split_block(s, 0, ALL, map_first=0) == DONE
    tree = assert_sound(s)
    assert tree.leaves == []
    assert len(tree.tables) == s.geo.root_pages
    assert not is_split(s, s.geo.base_gfn)
    assert s.control[SEQUENCE] == 0


def test_frames_that_have_moved_are_found_where_they_are() -> None:
    """Both when the block is mapped and when it is split: what the host says counts, not the first placing."""
    s = small_machine(blocks=2, spare_blocks=1)
    s.host[512:1024] = np.arange(1024, 1536)
    assert populate(s, 1, block_gfn(s.geo, 1)) == DONE
    [leaf] = assert_sound(s).leaves
    assert (leaf.gfn, leaf.level, leaf.frame) == (block_gfn(s.geo, 1), 2, 1024)
    assert split_block(s, 1, ALL // 4) == DONE
    leaves = assert_sound(s).leaves
    assert [leaf.frame for leaf in leaves] == [1024 + page for page in populated(512, ALL // 4)]


@pytest.mark.parametrize(("granule", "block_size"), SHAPES)
def test_populate_maps_a_block_once(granule: int, block_size: int) -> None:
    s = small_machine(granule, block_size)
    for _ in range(2):
        assert populate(s, s.geo.hypervisor, block_gfn(s.geo, 1)) == DONE
        assert assert_sound(s).leaves == [block_leaf(s.geo, 1)]
    assert fault(s, block_gfn(s.geo, 1) + 3) == SPURIOUS
    assert split_block(s, 1, 0) == DONE
    tree = naive_tree(s)
    assert populate(s, s.geo.hypervisor, block_gfn(s.geo, 1)) == DONE
    assert naive_tree(s) == tree, "a table there stays"
    assert s.control[SEQUENCE] == 1
    assert s.control[LOCK] == 0


@pytest.mark.parametrize(("granule", "block_size"), SMALL)
@pytest.mark.parametrize("share", SHARES)
def test_a_block_that_was_not_mapped_is_mapped_first(granule: int, block_size: int, share: int) -> None:
    s = small_machine(granule, block_size, fwb=False)
    assert split_block(s, 0, share) == DONE
    tree = assert_sound(s)
    assert tree.leaves == page_leaves(s.geo, populated(block_pages(s.geo), share))
    assert not (s.cells[: block_pages(s.geo)] & NOT_AT_POC).any(), "cleaned when it was mapped"
    assert (s.cells[block_pages(s.geo) :] & NOT_AT_POC).all()


@pytest.mark.parametrize("share", [0, ALL // 2, ALL])
def test_a_block_that_is_split_already_stays_as_it_is(share: int) -> None:
    s = small_machine()
    assert split_block(s, 0, share) == DONE
    tree, tlbis = naive_tree(s), int(s.control[SEQUENCE])
    assert split_block(s, 0, ALL) == DONE
    assert assert_sound(s) == tree
    assert s.control[SEQUENCE] == tlbis


def test_a_split_cleans_nothing() -> None:
    """A block was cleaned when it was mapped (Linux 6.5 kvm_pgtable_stage2_split: KVM_PGTABLE_WALK_SKIP_CMO)."""
    s = small_machine(fwb=False)
    assert (s.cells[:512] & NOT_AT_POC).all()
    assert fault(s, s.geo.base_gfn) == POPULATION
    assert not (s.cells[:512] & NOT_AT_POC).any()
    s.cells[:512] |= NOT_AT_POC
    assert split_block(s, 0, ALL // 4) == DONE
    assert (s.cells[:512] & NOT_AT_POC).all()


@pytest.mark.parametrize("cmo_per_fault", [False, True])
def test_a_block_is_clean_once_it_is_populated(cmo_per_fault: bool) -> None:
    s = small_machine(fwb=False, guest_caches=False, cmo_per_fault=cmo_per_fault)
    assert populate(s, 1, s.geo.base_gfn) == DONE
    assert not (s.cells[:512] & NOT_AT_POC).any()
    assert (s.cells[512:] & NOT_AT_POC).all()


@pytest.mark.parametrize(("granule", "block_size"), SHAPES)
def test_the_vmm_writes_what_is_not_mapped(granule: int, block_size: int) -> None:
    s = small_machine(granule, block_size, fwb=False)
    pages = block_pages(s.geo)
    share = ALL // 512
    assert split_block(s, 0, share) == DONE
    assert split_block(s, 1, 0) == DONE
    assert not (s.cells & NOT_AT_POC).any()
    assert write_unmapped(s, 1, block_gfn(s.geo, 0)) == DONE
    clean = np.flatnonzero(s.cells & NOT_AT_POC == 0)
    assert list(clean) == [*populated(pages, share), *range(pages, 2 * pages)], "of that block only"
    assert (s.cells >> 32 == np.arange(2 * pages) + 1).all()
    assert s.control[LOCK] == 0


def test_the_vmm_leaves_a_mapped_block_alone() -> None:
    s = small_machine(fwb=False)
    assert fault(s, s.geo.base_gfn) == POPULATION
    assert write_unmapped(s, 1, block_gfn(s.geo, 0)) == DONE
    assert not (s.cells[:512] & NOT_AT_POC).any()


@pytest.mark.parametrize("left", [0, 1])
def test_an_exhausted_pool(left: int) -> None:
    """Without a page for the table, or (unmapped, and the table above missing) for the block itself."""
    s = small_machine()
    while s.control[POOL_TAIL] - s.control[POOL_HEAD] > left:
        allocate_table(s, 3, 0)
    assert split_block(s, 0, ALL) == POOL_EXHAUSTED
    if not left:
        assert populate(s, 1, s.geo.base_gfn) == POOL_EXHAUSTED
    assert naive_tree(s).leaves == ([block_leaf(s.geo, 0)] if left else [])
    assert s.control[LOCK] == 0
    assert "bbm" not in violations(s)
    index, level = find(s, s.geo.base_gfn, 2)
    assert level == (2 if left else 1)
    assert (s.tables[index] & 1 == 1) == (left == 1), "what was mapped still is"


def test_exhausted_halfway_gives_back_what_there_is() -> None:
    """The pool was short by a leak, which is said once; what was taken for the table goes back."""
    s = small_machine(4 * KIB, GIB, blocks=1)
    assert fault(s, s.geo.base_gfn) == POPULATION
    while s.control[POOL_TAIL] - s.control[POOL_HEAD] > 3:
        s.control[POOL_HEAD] += 1  # as if in use elsewhere
    assert split_block(s, 0, 0) == POOL_EXHAUSTED
    assert naive_tree(s).leaves == [block_leaf(s.geo, 0)]
    assert s.control[POOL_TAIL] - s.control[POOL_HEAD] == 3
    assert violations(s) == {"table-leak": 1}
    assert evidence(s, Kind.TABLE_LEAK)["detail"] == POOL_RAN_DRY


@pytest.mark.parametrize("left", [0, 3])
def test_a_dry_pool_that_others_are_about_to_fill_undoes_the_split(left: int) -> None:
    s = small_machine(4 * KIB, GIB, blocks=1)
    assert fault(s, s.geo.base_gfn) == POPULATION
    taken = int(s.control[POOL_TAIL] - s.control[POOL_HEAD]) - left
    s.control[POOL_HEAD] += taken  # as if still in use elsewhere
    s.tally[INSIDE] = 1
    assert split_block(s, 0, 0) == POOL_DRY
    assert naive_tree(s).leaves == [block_leaf(s.geo, 0)]
    assert s.control[POOL_TAIL] - s.control[POOL_HEAD] == left
    assert s.control[LOCK] == 0
    s.control[POOL_HEAD] -= taken
    s.tally[INSIDE] = 0
    assert split_block(s, 0, 0) == DONE
    assert violations(s) == {}


def test_a_stopping_run() -> None:
    s = small_machine()
    s.control[LOCK], s.control[STOP] = 1, 1
    assert split_block(s, 0, ALL) == STOPPED
    assert populate(s, 1, s.geo.base_gfn) == STOPPED
    assert write_unmapped(s, 1, block_gfn(s.geo, 0)) == STOPPED
    assert naive_tree(s).leaves == []
    assert naive_audit(s) == []
