"""Whole distributions and the timeline of a document: bounded, and nothing of what was measured lost."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic import head_to_head, order_data, run_data

from stress.live.throughput import Throughput
from stress.results.document import build
from stress.results.statistics import EDGES, of_counts, of_values
from stress.results.store import encode
from stress.shm.edges import lower_edges

TIMES = st.lists(st.integers(0, 2**61), min_size=1, max_size=50)


@given(TIMES)
def test_each_value_lies_in_a_bin_an_eighth_wide(values: list[int]) -> None:
    bins = of_values(np.array(values))
    assert sum(bins["count"]) == len(values)
    for lower, upper, count in zip(bins["lower_ns"], bins["upper_ns"], bins["count"], strict=True):
        assert sum(lower <= value < upper for value in values) == count > 0
        assert upper - lower <= max(1, lower / 8)


def test_a_finer_histogram_falls_into_the_bins_without_rest() -> None:
    finer = lower_edges()
    assert set(EDGES[: np.searchsorted(EDGES, finer[-1])]) <= set(finer)
    counts = np.arange(finer.size)
    assert of_counts(finer, counts) == of_values(np.repeat(finer, counts))


def test_windows_without_an_end_are_in_no_bin_and_have_no_mark() -> None:
    order = order_data(np.random.default_rng(1), rebuilds=4)
    order.rows["window_ns"] = [0, -1, 100, 103]
    document = build(run_data([order]))
    assert document["orders"][0]["window_histogram"] == {"lower_ns": [0, 96], "upper_ns": [1, 104], "count": [1, 2]}
    assert document["timeline"]["rebuilds"][0]["window_ns"] == [0, None, 100, 103]


def test_stalls_are_counted_exactly_by_class() -> None:
    for order in build(head_to_head(np.random.default_rng(1)))["orders"]:
        counted = {name: sum(bins["count"]) for name, bins in order["stall_histogram"].items()}
        assert counted == {name: count for name, count in order["faults"].items() if count}


def test_marks_are_a_bounded_sample_in_sequence() -> None:
    document = build(head_to_head(np.random.default_rng(1), rebuilds=3000))
    for marks in document["timeline"]["rebuilds"]:
        starts = marks["start_ns"]
        assert len(starts) == len(marks["window_ns"]) == len(marks["rebuild_ns"]) == 200
        assert starts == sorted(starts)
        assert max(np.diff(starts)) < 4 * np.mean(np.diff(starts))


@pytest.mark.parametrize("readings", [1, 2, 599, 601, 5000])
def test_intervals_stay_bounded_and_lose_nothing_within(readings: int) -> None:
    throughput = Throughput()
    for index in range(readings):
        throughput.read(100_000_000 * index, 7 * index, 3 * index)
    intervals = throughput.intervals()
    assert min(readings - 1, 300) <= len(intervals) <= 600
    end = 0
    for each in intervals:
        assert each.start_ns == end
        assert each.accesses * 3 == each.faults * 7 > 0
        end += each.duration_ns
    missing = 100_000_000 * (readings - 1) - end
    assert 0 <= missing <= (intervals[-1].duration_ns if intervals else 0)


def test_readings_that_follow_too_closely_are_left_out() -> None:
    throughput = Throughput()
    for at_ns in (0, 1_000_000, 20_000_000, 21_000_000):
        throughput.read(at_ns, at_ns, 0)
    assert [(each.start_ns, each.duration_ns) for each in throughput.intervals()] == [(0, 20_000_000)]


def test_lists_of_numbers_take_one_line_and_nothing_else_changes() -> None:
    document = {"a": [1, 2.5, None, -3e-9], "b": ["[\n 1,\n 2\n]", "x"], "c": [], "d": [[1], [2, 3]], "e": [{"f": 1}]}
    text = encode(document)
    assert json.loads(text) == document
    assert '"a": [1, 2.5, null, -3e-09]' in text.splitlines()[1]
    real = build(head_to_head(np.random.default_rng(1)))
    assert json.loads(encode(real)) == real
    with pytest.raises(ValueError, match="not JSON compliant"):
        encode({"a": float("nan")})
