"""The pool of table pages against a queue and a set, and its reference counts."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st
from machines import evidence, naive_audit, small_machine, violations

from stress.arch.descriptors import POISON
from stress.kernels.pool import allocate_table, free_table, get_page, put_page
from stress.shm.layout import (
    Machine,
)
from stress.shm.words import (
    FREE,
    POOL_PEAK,
    Kind,
)


def words(s: Machine, page: int) -> set[int]:
    """Different words of a table page."""
    entries = 1 << s.geo.index_bits
    return set(map(int, s.tables[page * entries : (page + 1) * entries]))


class NaivePool:
    """Free pages in the order in which they became free, and the ones in use."""

    def __init__(self, s: Machine) -> None:
        self.free = deque(range(s.geo.root_pages, s.geo.table_pages))
        self.used: dict[int, int] = {}  # page -> level
        self.peak = s.geo.root_pages
        self._roots = s.geo.root_pages

    def allocate(self, level: int) -> int:
        if not self.free:
            return -1
        page = self.free.popleft()
        self.used[page] = level
        self.peak = max(self.peak, self._roots + len(self.used))
        return page

    def release(self, page: int) -> None:
        del self.used[page]
        self.free.append(page)


@given(st.lists(st.one_of(st.integers(1, 3), st.just(None)), max_size=40), st.randoms(use_true_random=False))
def test_against_a_queue(actions: list[int | None], random: object) -> None:
    """An integer allocates for that level; None frees some page in use."""
    s = small_machine(blocks=6)
    twin = NaivePool(s)
    for action in actions:
        if action is not None:
            page = allocate_table(s, action)
            assert page == twin.allocate(action)
            if page >= 0:
                assert words(s, page) == {0}
                assert (s.page_count[page], s.page_level[page]) == (1, action)
        elif twin.used:
            page = random.choice(sorted(twin.used))  # type: ignore[attr-defined]
            s.tables[(page << s.geo.index_bits) + 5] = 1
            free_table(s, page, 0, 0)
            twin.release(page)
            assert words(s, page) == {POISON}
    assert s.control[POOL_PEAK] == twin.peak
    for page in range(s.geo.root_pages, s.geo.table_pages):
        assert s.page_level[page] == twin.used.get(page, FREE)
    assert violations(s) == {}


def test_exhausted_then_one_comes_back() -> None:
    s = small_machine(blocks=1)
    pages = [allocate_table(s, 3) for _ in range(s.geo.table_pages - s.geo.root_pages)]
    assert len(pages) == 2
    assert -1 not in pages
    assert allocate_table(s, 3) == -1
    assert s.control[POOL_PEAK] == s.geo.table_pages
    free_table(s, pages[1], 0, 0)
    assert allocate_table(s, 2) == pages[1]


def test_the_ring_wraps_round_and_stays_whole() -> None:
    s = small_machine(blocks=2)
    for _ in range(3 * s.geo.table_pages):
        free_table(s, allocate_table(s, 3), 0, 0)
    assert naive_audit(s) == []


def test_a_referenced_page_is_not_freed() -> None:
    s = small_machine()
    page = allocate_table(s, 3)
    get_page(s, page)
    assert s.page_count[page] == 2
    free_table(s, page, 0, 0)
    assert s.page_level[page] == 3
    assert words(s, page) == {0}
    assert s.page_count[page] == 1, "its own reference is gone"
    assert put_page(s, page) == 0


def test_counts_go_up_and_down() -> None:
    s = small_machine()
    page = allocate_table(s, 3)
    get_page(s, page)
    get_page(s, page)
    assert [put_page(s, page) for _ in range(3)] == [2, 1, 0]


@pytest.mark.parametrize("times", [1, 2])
def test_freed_twice(times: int) -> None:
    s = small_machine()
    page = allocate_table(s, 3)
    free_table(s, page, 77, 1)
    for _ in range(times):
        free_table(s, page, 77, 1)
    assert violations(s) == {"double-free": times}
    piece = evidence(s, Kind.DOUBLE_FREE)
    assert (piece["who"], piece["gfn"], piece["found"]) == (1, 77, page)
    assert naive_audit(s) == [], "and it went into the ring once"
