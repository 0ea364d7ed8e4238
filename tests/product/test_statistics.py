"""Quantiles and ratio intervals, against slow obvious twins and against known truth."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic import EDGES, histogram, order_data

from stress.orders import BLOCK_FIRST
from stress.results import ratios as module
from stress.results.data import FAULT_CLASSES, NOT_MEASURED, STALL_ROW
from stress.results.ratios import Estimate, estimates, ratios
from stress.results.statistics import PERCENTS, histogram_quantiles, quantiles, student_t

DURATIONS = st.lists(st.integers(0, 10**10), min_size=1, max_size=300)


def slow_quantile(values: list[int], percent: int) -> int:
    """The smallest value with at least that share of all values at or below it, in exact arithmetic."""
    enough = Fraction(percent, 100) * len(values)
    return next(value for below, value in enumerate(sorted(values)) if below + 1 >= enough)


def slow_p99(stalls: list[tuple[int, int]], drawn: dict[int, int]) -> int:
    """p99 of the stalls of the cycles drawn, each as often as its cycle."""
    return slow_quantile([ns for number, ns in stalls for _ in range(drawn.get(number, 0))], 99)


@given(DURATIONS)
def test_quantiles_equal_their_definition(values: list[int]) -> None:
    found = quantiles(np.array(values))
    assert found["count"] == len(values)
    assert found["max"] == max(values)
    assert found["mean"] == pytest.approx(sum(values) / len(values))
    for name, percent in PERCENTS.items():
        assert found[name] == slow_quantile(values, percent)


@given(DURATIONS)
def test_histogram_quantiles_name_the_top_of_the_right_bucket(values: list[int]) -> None:
    found = histogram_quantiles(EDGES, histogram(np.array(values)), max(values))
    assert found["count"] == len(values)
    assert found["max"] == max(values)
    for name, percent in PERCENTS.items():
        exact, reported = slow_quantile(values, percent), found[name]
        assert reported is not None
        assert exact <= reported <= max(values)
        assert reported < exact + max(1, exact / 16)  # a bucket's width


def test_histogram_maximum_of_part_of_the_values_is_its_last_bucket() -> None:
    found = histogram_quantiles(EDGES, histogram(np.array([3, 3, 5])), maximum=10**6)
    assert found == {"count": 3, "p50": 3, "p90": 5, "p99": 5, "max": 5}


@given(DURATIONS)
def test_histogram_quantiles_are_exact_where_every_value_was_kept(values: list[int]) -> None:
    kept = np.sort(np.array(values))
    exact = quantiles(kept)
    del exact["mean"]
    assert histogram_quantiles(EDGES, histogram(kept), max(values), kept) == exact


@given(DURATIONS, st.integers(0, 2**32))
def test_a_sample_refines_a_histogram_within_the_bucket(values: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    kept = np.sort(rng.choice(values, rng.integers(0, len(values) + 1), replace=False))
    counts = histogram(np.array(values))
    coarse, fine = (histogram_quantiles(EDGES, counts, max(values), each) for each in (None, kept))
    for name in PERCENTS:
        rough, refined = coarse[name], fine[name]
        assert rough is not None
        assert refined is not None
        assert (histogram(np.array([rough])) == histogram(np.array([refined]))).all()
        assert refined <= rough
    assert fine["max"] == max(values)


def test_quantiles_of_nothing_are_none() -> None:
    nothing = dict.fromkeys([*PERCENTS, "max"])
    assert quantiles(np.empty(0, np.int64)) == {"count": 0, "mean": None, **nothing}
    assert histogram_quantiles(EDGES, np.zeros(EDGES.size, np.int64), 0) == {"count": 0, **nothing}


#: Rebuilds of each cycle: unequal ones, and cycles without any.
UNEQUAL = np.arange(40) % 7


def test_resamples_are_those_of_a_loop_over_the_drawn_cycles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "spread", lambda value, resampled, weights: resampled)
    data = order_data(np.random.default_rng(1), sizes=UNEQUAL, stalls_per_cycle=30)
    cycles = [data.rows[data.rows["cycle"] == number] for number in np.unique(data.rows["cycle"])]
    draws = np.concatenate(list(module._multiplicities(np.random.default_rng(2), len(cycles), data.rows.size)))
    assert draws.shape == (module.REPLICATES, len(cycles))
    assert (draws.sum(axis=1) == len(cycles)).all()
    assert len(cycles) == np.count_nonzero(UNEQUAL) < 40
    windows = module._window(data.rows, np.random.default_rng(2)).resampled
    assert windows is not None
    for replicate in range(0, module.REPLICATES, 97):
        drawn = np.concatenate([np.tile(rows, times) for rows, times in zip(cycles, draws[replicate], strict=True)])
        assert windows[replicate] == slow_quantile(drawn["window_ns"].tolist(), 50)


def test_a_quotient_of_sums_scatters_as_the_cycles_do() -> None:
    """Against resamples of a loop, in which each cycle brings its part and its size."""
    rng = np.random.default_rng(1)
    sizes = (1 + np.arange(400) % 7).astype(np.float64)
    parts = rng.poisson(3 * sizes * rng.lognormal(0, 0.5, 400)).astype(np.float64)
    value = float(parts.sum() / sizes.sum())
    drawn = rng.integers(0, 400, (4000, 400))
    resampled = parts[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    found = module._quotient(value, parts, sizes, rng)
    assert np.log(found).std() == pytest.approx(np.log(resampled).std(), rel=0.1)
    assert np.median(found) == pytest.approx(value, rel=0.01)


def test_resamples_of_few_cycles_are_spread_as_students_t() -> None:
    resampled = np.exp(np.array([-1.96, 0.0, 1.96]))
    for cycles, t in ((10, 2.262), (20, 2.093), (1000, 1.962)):
        found = np.log(module.spread(1.0, resampled, np.ones(cycles)))
        assert found == pytest.approx(np.array([-1, 0, 1]) * t * (cycles / (cycles - 1)) ** 0.5, rel=2e-3)
    uneven = np.array([64.0] * 10 + [1.0] * 90)  # tell little more than the ten
    assert np.log(module.spread(1.0, resampled, uneven))[2] > 2.1
    assert module.spread(0.0, resampled, np.ones(10)) is resampled, "of nothing, no multiple"


@pytest.mark.parametrize(
    ("freedom", "t"), [(3, 3.1824), (4, 2.7764), (9, 2.2622), (30, 2.0423), (1e6, 1.9600), (math.inf, 1.9600)]
)
def test_quantiles_of_students_t(freedom: float, t: float) -> None:
    assert student_t(0.95, freedom) == pytest.approx(t, rel=4e-3 if freedom == 3 else 1e-3)


def test_stalls_of_one_cycle_are_drawn_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MIN_TAIL_CYCLES", 1)
    monkeypatch.setattr(module, "spread", lambda value, resampled, weights: resampled)
    stalls = np.zeros(1650, STALL_ROW)
    stalls["cycle"] = np.maximum(np.arange(1650) // 100 - 4, 1)  # 12 cycles, the first of 600 stalls
    stalls["stall_ns"] = np.random.default_rng(1).permutation(1650)
    stalls["stall_ns"][:600] += 10_000  # and slow: a resample without it needs a longer walk down
    pairs = [(int(row["cycle"]), int(row["stall_ns"])) for row in stalls]
    draws = np.concatenate(list(module._multiplicities(np.random.default_rng(2), 12, 412)))
    found = module._stall_p99(stalls, np.random.default_rng(2))
    assert found.value == slow_p99(pairs, dict.fromkeys(range(1, 13), 1))
    assert found.resampled is not None
    for replicate in range(0, module.REPLICATES, 41):
        drawn = {cycle + 1: int(times) for cycle, times in enumerate(draws[replicate])}
        assert found.resampled[replicate] == slow_p99(pairs, drawn)


#: Rebuilds of each cycle, as they are in the scenarios; every second migration is cancelled.
STRUCTURES: dict[str, Callable[[np.random.Generator], npt.NDArray[np.int64]]] = {
    "rebuild": lambda rng: np.ones(40, np.int64),
    "migration": lambda rng: np.where(np.arange(20) % 2, 8, rng.integers(1, 9, 20)),
    "selftest": lambda rng: np.full(12, 64),
    "vCPU rebuilder": lambda rng: rng.choice([0, 1, 2], 40, p=[0.1, 0.8, 0.1]),
}


def different(
    structure: str, rng: np.random.Generator, comparisons: int, factor: float, scatter: float = 0.3
) -> dict[str, int]:
    """How often each metric was called different, where the other order's is ``factor`` times the first one's."""
    called: dict[str, int] = {}
    for _ in range(comparisons):
        first = order_data(rng, sizes=STRUCTURES[structure](rng), stalls_per_cycle=60, scatter=scatter)
        other = order_data(
            rng,
            sizes=STRUCTURES[structure](rng),
            stalls_per_cycle=60,
            window_ns=1_000_000 * factor,
            stall_ns=20_000 * factor,
            accesses_per_ns=0.3 * factor,
            scatter=scatter,
        )
        for metric, found in ratios("first", estimates(first, rng), "other", estimates(other, rng)).items():
            if metric != "stall_p99" and structure != "vCPU rebuilder":
                assert found["low"] is not None, found["reason"]
            decided = found["low"] is not None and found["high"] is not None
            called[metric] = called.get(metric, 0) + (decided and not found["low"] <= 1 <= found["high"])
    return called


@pytest.mark.parametrize("structure", STRUCTURES)
def test_an_order_compared_with_itself_is_rarely_called_different(structure: str) -> None:
    called = different(structure, np.random.default_rng(21), 200, 1.0)
    assert all(times <= 0.07 * 200 for times in called.values()), called


@pytest.mark.parametrize("structure", STRUCTURES)
def test_a_true_fifth_is_found(structure: str) -> None:
    called = different(structure, np.random.default_rng(22), 20, 1.2, scatter=0.1)
    assert called["throughput"] >= 18
    assert called["window"] >= 18


def test_pooled_rebuilds_would_call_an_order_different_from_itself() -> None:
    """The reason for resampling cycles: a part that all 64 rebuilds of a cycle share is no noise among them."""
    rng = np.random.default_rng(24)
    wrong = 0
    for _ in range(20):
        orders = [order_data(rng, sizes=np.full(20, 64)) for _ in range(2)]
        for each in orders:
            each.rows["cycle"] = each.rows["number"]
        first, other = (module._window(each.rows, rng) for each in orders)
        found = module._ratio("first", first, "other", other)
        wrong += not found["low"] <= 1 <= found["high"]
    assert wrong >= 8


def test_intervals_cover_the_truth_as_often_as_they_claim() -> None:
    truth = {
        "window": 0.05,
        "rebuilds_hit_share": 0.2,
        "window_faults_per_rebuild": 0.2,
        "stall_p99": 0.5,
        "throughput": 1.02,
    }
    rng = np.random.default_rng(11)
    covered = dict.fromkeys(truth, 0)
    for _ in range(100):
        baseline = order_data(rng, rebuilds=150, stalls_per_cycle=30)
        other = order_data(
            rng,
            BLOCK_FIRST,
            rebuilds=150,
            stalls_per_cycle=30,
            window_ns=50_000,
            hit_share=0.1,
            stall_ns=10_000,
            accesses_per_ns=0.3 * 1.02,
        )
        found = ratios("a", estimates(baseline, rng), "b", estimates(other, rng))
        for metric, expected in truth.items():
            assert "reason" not in found[metric]
            covered[metric] += found[metric]["low"] <= expected <= found[metric]["high"]
    assert all(90 <= times <= 99 for times in covered.values()), covered


def test_pooling_the_events_would_promise_too_much() -> None:
    """The reason for resampling cycles: with stalls drawn one by one the interval is much too narrow."""
    data = order_data(np.random.default_rng(3), rebuilds=100, stalls_per_cycle=200)
    by_cycle = module._stall_p99(data.stalls, np.random.default_rng(4)).resampled
    pooled_rows = data.stalls.copy()
    pooled_rows["cycle"] = np.arange(pooled_rows.size)
    pooled = module._stall_p99(pooled_rows, np.random.default_rng(4)).resampled
    assert by_cycle is not None
    assert pooled is not None
    assert by_cycle.std() > 2 * pooled.std()


def test_a_share_of_0_or_1_is_not_certain() -> None:
    rng = np.random.default_rng(5)

    def share(hit: bool, rebuilds: int, cycles: int) -> Estimate:
        data = order_data(rng, sizes=np.full(cycles, rebuilds // cycles))
        data.rows["window_faults"] = hit
        data.rebuilds_hit = hit * rebuilds
        return module._share(data, rng)

    always, never = share(True, 500, 500), share(False, 500, 500)
    same = module._ratio("a", always, "b", always)
    none = module._ratio("a", always, "b", never)
    assert none["ratio"] == none["low"] == 0
    assert 3 / 500 > none["high"] > 1 / 500
    assert same["ratio"] == 1
    assert module._ratio("a", always, "b", share(True, 500, 500))["low"] < 1
    # Of 64 rebuilds in each of 20 cycles nobody knows whether they are hit one by one or together.
    none = module._ratio("a", always, "b", share(False, 1280, 20))
    assert none["ratio"] == none["low"] == 0
    assert 3 / 20 > none["high"] > 1 / 20
    assert 1 > module._ratio("a", always, "b", share(True, 1280, 20))["low"] > 0.8


def test_too_few_cycles_give_a_ratio_without_interval() -> None:
    rng = np.random.default_rng(6)
    few, many = (
        estimates(order_data(rng, rebuilds=count, stalls_per_cycle=100), rng) for count in (module.MIN_CYCLES - 1, 200)
    )
    for metric, found in ratios("few", few, "many", many).items():
        assert found["ratio"] is not None, metric
        assert found["low"] is found["high"] is None
        assert "few has" in found["reason"]
        assert "interval needs" in found["reason"]


def test_a_baseline_of_zero_gives_no_ratio_and_says_why() -> None:
    rng = np.random.default_rng(7)
    silent = estimates(order_data(rng, hit_share=0, window_ns=0), rng)
    normal = estimates(order_data(rng), rng)
    found = ratios("silent", silent, "normal", normal)
    for metric in ("window", "rebuilds_hit_share", "window_faults_per_rebuild"):
        assert found[metric]["ratio"] is found[metric]["low"] is found[metric]["high"] is None
        assert found[metric]["reason"] == "silent is 0, so there is no ratio"
        assert found[metric]["value"] > 0
    assert found["throughput"]["ratio"] is not None


def test_a_baseline_that_is_zero_in_many_resamples_gives_no_upper_bound() -> None:
    resampled = np.tile([0.0, 1.0], 500)
    found = module._ratio("a", Estimate(0.5, resampled), "b", Estimate(1.0, np.ones(1000)))
    assert (found["ratio"], found["low"], found["high"]) == (2.0, 1.0, None)
    assert "no upper bound" in found["reason"]
    # 0 over 0 may be anything: it must not shrink the interval.
    found = module._ratio("a", Estimate(0.5, resampled), "b", Estimate(0.5, resampled))
    assert (found["low"], found["high"]) == (0.0, None)


def test_no_rebuilds_at_all() -> None:
    rng = np.random.default_rng(8)
    nothing = estimates(order_data(rng, rebuilds=0), rng)
    for found in ratios("nothing", nothing, "some", estimates(order_data(rng), rng)).values():
        assert found["ratio"] is found["low"] is found["high"] is found["baseline"] is None
        assert found["reason"].startswith("nothing has no ")


def test_the_same_seed_gives_the_same_interval() -> None:
    data = order_data(np.random.default_rng(9))
    first, second, third = (estimates(data, np.random.default_rng(seed)) for seed in (1, 1, 2))
    for metric, estimate in first.items():
        assert np.array_equal(estimate.resampled, second[metric].resampled)  # type: ignore[arg-type]
        assert not np.array_equal(estimate.resampled, third[metric].resampled)  # type: ignore[arg-type]


def test_long_runs_draw_fewer_replicates() -> None:
    cycles = 60_000
    drawn = module._multiplicities(np.random.default_rng(1), cycles, cycles)
    first = next(drawn)
    assert first.size <= module._CHUNK_CELLS
    replicates = module._MAX_DRAWS // cycles
    assert module._MIN_REPLICATES < replicates < module.REPLICATES
    assert first.shape[0] + sum(chunk.shape[0] for chunk in drawn) == replicates


def test_ten_thousand_cycles_take_little_time() -> None:
    data = order_data(np.random.default_rng(10), rebuilds=10_000, stalls_per_cycle=20)
    assert data.stalls.size > 190_000
    before = time.process_time()
    estimates(data, np.random.default_rng(1))
    assert time.process_time() - before < 5  # 0.4 s here; a loop over stalls would take minutes


def test_population_faults_do_not_hide_the_stalls_of_window_faults() -> None:
    rng = np.random.default_rng(11)
    plain, crowded = order_data(rng), order_data(rng)
    crowd = np.zeros(100_000, crowded.stalls.dtype)
    crowd["fault_class"] = FAULT_CLASSES.index("population")
    crowd["cycle"] = np.arange(crowd.size) % 200 + 1
    crowd["stall_ns"] = 100
    crowded.stalls = np.concatenate([crowded.stalls, crowd])
    found = ratios("plain", estimates(plain, rng), "crowded", estimates(crowded, rng))["stall_p99"]
    assert found["low"] < 1 < found["high"]
    assert found["value"] > 10_000
    crowded.events_dropped = 1
    found = ratios("plain", estimates(plain, rng), "crowded", estimates(crowded, rng))["stall_p99"]
    assert found["low"] is None
    assert "dropped" in found["reason"]


def test_a_window_without_an_end_is_not_zero() -> None:
    rng = np.random.default_rng(12)
    endless = order_data(rng)
    endless.rows["window_ns"][3] = NOT_MEASURED
    found = ratios("plain", estimates(order_data(rng), rng), "endless", estimates(endless, rng))["window"]
    assert found["ratio"] is found["value"] is None
    assert "no end" in found["reason"]


def test_more_hits_than_rebuilds_break_nothing() -> None:
    # A rebuild that was cut short may have been hit already.
    data = order_data(np.random.default_rng(13), rebuilds=20)
    data.rebuilds_hit = 21
    assert estimates(data, np.random.default_rng(1))["rebuilds_hit_share"].resampled is not None
