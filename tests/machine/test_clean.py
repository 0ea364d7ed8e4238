"""Cleaning to the PoC: exactly the frames asked for, or those that a table does not map, and nothing with FWB."""

from __future__ import annotations

import time
from random import Random

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from machines import ALL, SHAPES, block_gfn, block_pages, fault, naive_tree, small_machine, split_block

from stress.arch.geometry import GIB, KIB
from stress.kernels import clean
from stress.kernels.clean import clean_frames, clean_unmapped
from stress.kernels.codes import POPULATION
from stress.kernels.descriptor import next_page, table_descriptor
from stress.kernels.entries import find
from stress.kernels.pool import allocate_table, get_page, put_page
from stress.kernels.split import DONE
from stress.shm.layout import Machine
from stress.shm.mode import JIT_DISABLED
from stress.shm.words import NOT_AT_POC, VALUE_MASK

NO_FWB, FWB = small_machine(fwb=False), small_machine(fwb=True)
FRAMES = NO_FWB.geo.frames


@given(st.integers(0, FRAMES), st.integers(0, FRAMES), st.integers(0, 1 << 32))
def test_cleans_the_frames_asked_for_and_keeps_tags_and_values(one: int, other: int, seed: int) -> None:
    first, end = sorted((one, other))
    random = np.random.default_rng(seed)
    s = NO_FWB
    s.cells[:] = (np.arange(FRAMES) + 1) << 32 | random.integers(0, VALUE_MASK, FRAMES, endpoint=True)
    s.cells[random.random(FRAMES) < 0.5] |= NOT_AT_POC
    expected = s.cells.copy()
    expected[first:end] &= ~NOT_AT_POC
    assert clean_frames(s, first, end - first, 0) == (end - first) * 4096
    assert (s.cells == expected).all()


@pytest.mark.parametrize("count", [0, 1, FRAMES])
def test_with_fwb_nothing_needs_cleaning(count: int) -> None:
    s = FWB
    s.cells[:] |= NOT_AT_POC
    before = s.cells.copy()
    assert clean_frames(s, 0, count, 0) == 0
    assert (s.cells == before).all()


# What the old tables did not map.


def table_of(s: Machine, block: int) -> int:
    """The table in the place of a block."""
    index, level = find(s, block_gfn(s.geo, block), s.geo.block_level)
    assert level == s.geo.block_level
    return int(next_page(s.geo, s.tables[index]))


def clean_block(s: Machine, block: int) -> int:
    """Dirty all memory, then clean what a block's tables do not map; bytes cleaned."""
    s.cells[:] |= NOT_AT_POC
    first = block * block_pages(s.geo)
    return int(clean_unmapped(s, table_of(s, block), s.geo.block_level + 1, first, 0))


def cleaned(s: Machine) -> npt.NDArray[np.int64]:
    """Frames that are at the PoC."""
    return np.flatnonzero(s.cells & NOT_AT_POC == 0)


def unmapped(s: Machine, block: int) -> list[int]:
    """Frames of a block that no leaf maps."""
    pages = range(block * block_pages(s.geo), (block + 1) * block_pages(s.geo))
    return sorted(set(pages) - {leaf.frame for leaf in naive_tree(s).leaves if leaf.level == 3})


@pytest.mark.parametrize(("granule", "block_size"), SHAPES)
@pytest.mark.parametrize("share", [0, 1, ALL // 3, ALL - 1, ALL])
def test_exactly_the_pages_that_are_not_mapped_are_cleaned(granule: int, block_size: int, share: int) -> None:
    s = small_machine(granule, block_size, fwb=False)
    assert split_block(s, 0, ALL) == DONE
    assert split_block(s, 1, share) == DONE
    expected = unmapped(s, 1)
    assert len(expected) == block_pages(s.geo) - block_pages(s.geo) * share // ALL
    assert clean_block(s, 1) == len(expected) * granule
    assert list(cleaned(s)) == expected


@pytest.mark.parametrize("seed", range(6))
def test_any_pages(seed: int) -> None:
    """Single pages, runs, both ends of the table: against the leaves that can be reached."""
    random = Random(seed)
    s = small_machine(fwb=False)
    assert split_block(s, 1, 0) == DONE
    chosen = {0, 511, *random.sample(range(512), random.choice([1, 40, 300]))} - set(range(7, 7 + seed))
    for page in chosen:
        assert fault(s, block_gfn(s.geo, 1) + page) == POPULATION
    assert clean_block(s, 1) == (512 - len(chosen)) * 4096
    assert list(cleaned(s)) == unmapped(s, 1) == [512 + page for page in range(512) if page not in chosen]


def test_ranges_without_a_table_are_cleaned_whole() -> None:
    """A gigabyte under a table that has itself been filled by faults: most of its entries are empty."""
    s = small_machine(4 * KIB, GIB, blocks=1, fwb=False)
    index, level = find(s, s.geo.base_gfn, 1)
    assert level == 1
    page = allocate_table(s, 2, 0)
    s.tables[index] = table_descriptor(s.geo, page)
    get_page(s, 0)
    for at in (0, 511 * 512, 511 * 512 + 511, 77 * 512 + 5):
        assert fault(s, s.geo.base_gfn + at) == POPULATION
    expected = unmapped(s, 0)
    assert len(expected) == 262_144 - 4
    assert clean_block(s, 0) == len(expected) * 4096
    assert list(cleaned(s)) == expected


def test_the_reference_count_alone_proves_a_table_full() -> None:
    """``page_count == entries + 1``: its entries are not even looked at."""
    s = small_machine(fwb=False)
    assert split_block(s, 0, ALL // 2) == DONE
    page = table_of(s, 0)
    for _ in range(256):
        get_page(s, page)
    assert clean_block(s, 0) == 0
    assert not len(cleaned(s))
    put_page(s, page)
    assert clean_block(s, 0) == 256 * 4096


def test_with_fwb_the_unmapped_need_no_cleaning_either() -> None:
    s = small_machine(fwb=True)
    assert split_block(s, 0, 0) == DONE
    assert clean_block(s, 0) == 0
    assert not len(cleaned(s))


# What it costs on a platform.


def timed(s: Machine, count: int) -> int:
    """Shortest time in ns of cleaning ``count`` frames."""
    times = []
    for _ in range(5):
        start = time.monotonic_ns()
        clean_frames(s, 0, count, 0)
        times.append(time.monotonic_ns() - start)
    return min(times)


def test_modelled_costs_are_spent() -> None:
    """Per page and once for the I-cache, whatever is dirty in the range; none with FWB."""
    pages, icache = 20_000_000, 3_000_000  # ps, ns
    s = small_machine(fwb=False, clean_ps_per_page=pages, icache_ns=icache)
    clean_frames(s, 0, 1, 0)
    assert not (s.cells[:1] & NOT_AT_POC).any()
    for count in (1, 100, 500):
        assert timed(s, count) >= count * pages // 1000 + icache
    free = small_machine(fwb=True, clean_ps_per_page=pages, icache_ns=icache)
    assert timed(free, 500) < icache


@pytest.mark.skipif(not JIT_DISABLED, reason="compiled code calls no replacement")
def test_one_range_operation_per_run_of_unmapped_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each costs an I-cache invalidation of its own: a page at a time would be dear."""
    s = small_machine(fwb=False)
    assert split_block(s, 0, 0) == DONE
    for page in (0, 1, 100, 200, 201, 511):
        assert fault(s, s.geo.base_gfn + page) == POPULATION
    ranges: list[tuple[int, int]] = []

    def noted(machine: Machine, first: int, count: int, who: int) -> int:
        ranges.append((first, count))
        return int(clean_frames(machine, first, count, who))

    monkeypatch.setattr(clean, "clean_frames", noted)
    assert clean_block(s, 0) == 506 * 4096
    assert ranges == [(2, 98), (101, 99), (202, 309)]
