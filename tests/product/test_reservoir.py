"""The reservoir: everything up to its capacity, a uniform sample from there on, however the rows arrive."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stress.live.reservoir import Reservoir

ROW = np.dtype([("number", np.int64), ("twice", np.float64)])


def stream(count: int, first: int = 0) -> npt.NDArray[np.void]:
    rows = np.zeros(count, ROW)
    rows["number"] = np.arange(first, first + count)
    rows["twice"] = 2.0 * rows["number"]
    return rows


def fed(kept: Reservoir, chunks: list[int]) -> int:
    """Offer a stream in chunks of these lengths; its length."""
    total = 0
    for length in chunks:
        kept.extend(stream(length, total))
        total += length
    return total


@given(st.integers(1, 50), st.lists(st.integers(0, 40), max_size=8), st.integers(0, 1000))
def test_what_is_kept_was_offered_and_once(capacity: int, chunks: list[int], seed: int) -> None:
    kept = Reservoir(ROW, capacity, seed)
    total = fed(kept, chunks)
    numbers = kept.rows["number"]
    assert kept.seen == total
    assert len(numbers) == min(total, capacity)
    assert len(set(numbers)) == len(numbers)
    assert set(numbers) <= set(range(total))
    assert (kept.rows["twice"] == 2 * numbers).all(), "rows are kept whole"
    assert kept.sampled == (total > capacity)
    if total <= capacity:
        assert list(numbers) == list(range(total)), "everything, in order"


def test_it_grows_as_needed() -> None:
    kept = Reservoir(ROW, 10_000, 1)
    fed(kept, [1000, 24, 1, 3000, 5975])
    assert list(kept.rows["number"]) == list(range(10_000))
    assert not kept.sampled
    kept.extend(stream(1, 10_000))
    assert kept.sampled
    assert len(kept.rows) == 10_000


@pytest.mark.parametrize("chunks", [[200], [1] * 200, [9, 2, 30, 159], [10, 190], [11, 189]])
def test_every_row_is_kept_equally_often(chunks: list[int]) -> None:
    runs, capacity = 400, 10
    times = np.zeros(200)
    for seed in range(runs):
        kept = Reservoir(ROW, capacity, seed)
        assert fed(kept, chunks) == 200
        times[kept.rows["number"]] += 1
    assert times.sum() == runs * capacity
    share = capacity / 200
    assert times / runs == pytest.approx(share, abs=6 * (share * (1 - share) / runs) ** 0.5)
    early, late = times[:100].sum(), times[100:].sum()
    assert abs(early - late) < 6 * (runs * capacity) ** 0.5, "neither the first nor the last are favoured"


@pytest.mark.parametrize(
    ("capacity", "chunks"), [(1, [2]), (1, [1, 1]), (1, [1, 1, 1]), (1, [3]), (2, [3]), (2, [1, 2])]
)
def test_the_first_replacements_have_the_right_odds(capacity: int, chunks: list[int]) -> None:
    """Where one row more or less in the odds shows at once."""
    runs, total = 2000, sum(chunks)
    times = np.zeros(total)
    for seed in range(runs):
        kept = Reservoir(ROW, capacity, seed)
        fed(kept, chunks)
        times[kept.rows["number"]] += 1
    share = capacity / total
    assert times / runs == pytest.approx(share, abs=6 * (share * (1 - share) / runs) ** 0.5)


def test_the_same_seed_keeps_the_same_rows() -> None:
    one, two, other = Reservoir(ROW, 20, 1), Reservoir(ROW, 20, 1), Reservoir(ROW, 20, 2)
    for kept in (one, two, other):
        fed(kept, [500, 500])
    assert (one.rows == two.rows).all()
    assert (one.rows != other.rows).any()
