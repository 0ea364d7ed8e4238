"""The histogram's buckets: their edges are where they say, and no value is off by more than a 32nd."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stress.shm.accounts import HISTOGRAM_BUCKETS
from stress.shm.edges import lower_edges
from stress.shm.histogram import bucket

EDGES = lower_edges()


def test_edges_grow_and_are_the_first_value_of_their_bucket() -> None:
    assert EDGES.shape == (HISTOGRAM_BUCKETS,)
    assert EDGES[0] == 0
    assert (np.diff(EDGES) > 0).all()
    for index, edge in enumerate(map(int, EDGES)):
        assert bucket(edge) == index
        if edge:
            assert bucket(edge - 1) == index - 1


def test_small_values_are_exact() -> None:
    assert list(EDGES[:64]) == list(range(64))


@given(st.integers(0, int(EDGES[-1]) - 1))
def test_a_value_lies_between_its_edges_which_are_close(value: int) -> None:
    index = bucket(value)
    lower, upper = int(EDGES[index]), int(EDGES[index + 1])
    assert lower <= value < upper
    assert (upper - 1 - lower) * 32 <= lower, "at most a 32nd off"


@given(st.integers(int(EDGES[-1]), (1 << 63) - 1))
def test_the_last_bucket_takes_all_that_is_longer(value: int) -> None:
    assert bucket(value) == HISTOGRAM_BUCKETS - 1


def test_the_last_bucket_begins_after_hours() -> None:
    assert EDGES[-1] > 3600 * 10**9


@given(st.integers(-(1 << 63), -1))
def test_a_clock_that_went_back_counts_as_nothing(value: int) -> None:
    assert bucket(value) == 0
