"""Access patterns: each goes where it should, from one seed, and writes as often as asked. (Programs: test_program.)"""

from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stress.kernels import pattern
from stress.kernels.pattern import draw_accesses
from stress.kernels.workload import Pattern, Workload, pattern_over, scatter_for, seed_for
from stress.shm.mode import JIT_DISABLED

LONG = 20_000 if JIT_DISABLED else 200_000


def workload(kind: Pattern, pages: int, *, stride: int = 1, exponent: float = 0.99, write_below: int = 0) -> Workload:
    return Workload(int(kind), pages, stride, exponent, scatter_for(pages), write_below)


def draw(
    work: Workload, count: int, first: int = 0, seed: int = 1
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """(pages, writes) of the next accesses."""
    upcoming = np.zeros(count, np.int64)
    last, state = draw_accesses(work, upcoming, first, seed_for(seed, 0))
    assert last == (first + count if work.pattern == Pattern.PROGRAM else upcoming[-1] >> 1)
    assert state != seed_for(seed, 0)
    assert -(1 << 63) <= state < 1 << 63
    return upcoming >> 1, upcoming & 1


def test_sequential_goes_round() -> None:
    pages, _ = draw(workload(Pattern.SEQUENTIAL, 5), 12, first=2)
    assert list(pages) == [3, 4, 0, 1, 2, 3, 4, 0, 1, 2, 3, 4]


def test_sequential_over_one_page() -> None:
    pages, _ = draw(workload(Pattern.SEQUENTIAL, 1), 3)
    assert list(pages) == [0, 0, 0]


def test_strided_steps_and_starts_each_lap_one_further_on() -> None:
    pages, _ = draw(workload(Pattern.STRIDED, 8, stride=3), 12)
    assert list(pages) == [3, 6, 1, 4, 7, 2, 5, 0, 3, 6, 1, 4]


@given(st.integers(1, 300), st.data())
def test_strided_reaches_every_page_once_per_round(pages: int, data: st.DataObject) -> None:
    stride = data.draw(st.integers(1, pages))
    first = data.draw(st.integers(0, pages - 1))
    visited, _ = draw(workload(Pattern.STRIDED, pages, stride=stride), 2 * pages, first=first)
    # Whatever the first page, from the first lap's end on every page comes once in `pages` accesses.
    assert sorted(visited[pages:]) == list(range(pages))
    assert sum(after - before == stride for before, after in pairwise(visited)) >= 2 * pages - 1 - 2 * stride


@pytest.mark.parametrize("pages", [1, 2, 1000])
def test_uniform_covers_all_pages_alike(pages: int) -> None:
    visited, _ = draw(workload(Pattern.UNIFORM, pages), LONG)
    counts = np.bincount(visited, minlength=pages)
    assert len(counts) == pages
    expected = LONG / pages
    chi_square = float(((counts - expected) ** 2 / expected).sum())
    assert chi_square < pages - 1 + 6 * math.sqrt(2 * pages), "six standard deviations"


@pytest.mark.parametrize("exponent", [0.5, 0.99, 1.0, 1.3])
def test_zipf_follows_the_power_law(exponent: float) -> None:
    size = 4096
    visited, _ = draw(workload(Pattern.ZIPF, size, exponent=exponent), LONG)
    assert visited.min() >= 0
    assert visited.max() < size
    rank_of = {rank * scatter_for(size) % size: rank for rank in range(size)}
    ranks = np.array([rank_of[page] for page in map(int, visited)])
    edges = [0, 1, 3, 7, 15, 63, 255, 1023, size]
    weights = np.array([_between(low + 1, high + 1, exponent) for low, high in pairwise(edges)])
    expected = weights / weights.sum()
    found = np.histogram(ranks, edges)[0] / LONG
    assert found == pytest.approx(expected, abs=6 * math.sqrt(0.25 / LONG))
    assert found[0] * size > 2, "the first rank is popular"


def _between(low: float, high: float, exponent: float) -> float:
    """Integral of x ** -exponent."""
    if exponent == 1.0:
        return math.log(high / low)
    return float(high ** (1 - exponent) - low ** (1 - exponent)) / (1 - exponent)


@given(st.integers(0, (1 << 32) - 1), st.integers(1, 1 << 40), st.one_of(st.just(1.0), st.floats(0.01, 8.0)))
def test_zipf_ranks_stay_within_the_memslot(uniform: int, pages: int, exponent: float) -> None:
    assert 0 <= pattern.zipf_rank(uniform, pages, exponent) < pages


def test_zipf_reaches_the_ends() -> None:
    assert pattern.zipf_rank(0, 1000, 0.99) == 0
    assert pattern.zipf_rank((1 << 32) - 1, 1000, 0.99) == 999
    assert pattern.zipf_rank(0, 1000, 1.0) == 0
    assert pattern.zipf_rank((1 << 32) - 1, 1000, 1.0) == 999


@given(st.integers(1, 1 << 24))
def test_scatter_is_a_permutation(pages: int) -> None:
    scatter = scatter_for(pages)
    assert math.gcd(scatter, pages) == 1
    assert 1 <= scatter <= pages


def test_scatter_separates_popular_ranks() -> None:
    scatter = scatter_for(1 << 18)
    popular = sorted(rank * scatter % (1 << 18) for rank in range(8))
    assert min(after - before for before, after in pairwise(popular)) > 10_000


@pytest.mark.parametrize("kind", list(Pattern))
@pytest.mark.parametrize("write_below", [0, 1, 410, 2048, 4095, 4096])
def test_writes_are_as_frequent_as_asked(kind: Pattern, write_below: int) -> None:
    _, writes = draw(workload(kind, 1000, stride=7, write_below=write_below), LONG)
    share = write_below / 4096
    assert writes.mean() == pytest.approx(share, abs=6 * math.sqrt(share * (1 - share) / LONG))


@pytest.mark.parametrize("kind", [each for each in Pattern if each is not Pattern.PROGRAM])
@pytest.mark.parametrize(("first", "pages"), [(512, 512), (7, 100), (3, 1)])
def test_a_pattern_over_a_part_of_memory_is_the_same_there(kind: Pattern, first: int, pages: int) -> None:
    at, writes = draw(pattern_over(int(kind), 0, pages, 17, 0.99, 1024), 1000)
    upcoming = np.zeros(1000, np.int64)
    draw_accesses(pattern_over(int(kind), first, pages, 17, 0.99, 1024), upcoming, 0, seed_for(1, 0))
    assert (upcoming >> 1 == at + first).all()
    assert (upcoming & 1 == writes).all()
    assert (at >= 0).all()
    assert (at < pages).all()


def test_writes_do_not_depend_on_the_page() -> None:
    pages, writes = draw(workload(Pattern.UNIFORM, 16, write_below=1024), LONG)
    for page in range(16):
        chosen = writes[pages == page]
        assert chosen.mean() == pytest.approx(0.25, abs=6 * math.sqrt(0.1875 / len(chosen)))


def test_the_same_seed_gives_the_same_accesses() -> None:
    work = workload(Pattern.ZIPF, 5000, write_below=1024)
    assert (draw(work, 500, seed=3)[0] == draw(work, 500, seed=3)[0]).all()
    assert (draw(work, 500, seed=3)[0] != draw(work, 500, seed=4)[0]).any()


def test_a_chunk_at_a_time_is_the_same_stream() -> None:
    work = workload(Pattern.UNIFORM, 5000, write_below=1024)
    whole, parts = np.zeros(256, np.int64), np.zeros(256, np.int64)
    draw_accesses(work, whole, 0, 42)
    page, state = 0, 42
    for part in np.split(parts, 4):
        page, state = draw_accesses(work, part, page, state)
    assert (whole == parts).all()


def test_every_vcpu_has_a_seed_of_its_own() -> None:
    states = Counter(seed_for(seed, vcpu) for seed in range(40) for vcpu in range(64))
    assert len(states) == 40 * 64
    assert any(state < 0 for state in states)
    assert any(state > 0 for state in states)
    assert all(-(1 << 63) <= state < 1 << 63 for state in states)


@given(st.integers(-(1 << 63), (1 << 63) - 1))
def test_the_generator_is_knuths(state: int) -> None:
    expected = (state * 6364136223846793005 + 1442695040888963407) % (1 << 64)
    word: Any = np.int64(state)  # as a register gives it
    advanced = pattern.advance(word)
    assert advanced % (1 << 64) == expected
    assert pattern.draw(advanced) == expected >> 32
