"""The gate's statistics on made-up launches with known truth: false alarms, power, and what is too little to judge."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stress.bench import decision as module
from stress.bench.decision import Decision, Samples, Verdict, check_enough, decide, estimate, holm, rank_sum_p
from stress.bench.suite import Figure
from stress.errors import TooFewSamples

NOISE = 0.03  # from launch to launch, and from block to block
BLOCKS = 8


def samples(rng: np.random.Generator, launches: int, ratio: float = 1.0, noise: float = NOISE) -> Samples:
    """Launches that differ among themselves, of blocks that differ within them."""
    each = ratio * np.exp(noise * rng.standard_normal((launches, 1)) + noise * rng.standard_normal((launches, BLOCKS)))
    found: list[list[float]] = each.tolist()
    return found


def figures(count: int, threshold: float = 0.1, *, higher: bool = False) -> list[Figure]:
    return [Figure(f"case: figure {index}", threshold, higher) for index in range(count)]


def judged(
    rng: np.random.Generator, chosen: list[Figure], shift: float = 1.0, launches: int = 7, noise: float = NOISE
) -> list[Decision]:
    """A baseline of twice the launches, and a run in which every figure is ``shift`` times as large."""
    baseline = {figure.name: samples(rng, 2 * launches, noise=noise) for figure in chosen}
    now = {figure.name: samples(rng, launches, shift, noise) for figure in chosen}
    return decide(chosen, baseline, now)


@pytest.fixture
def few_replicates(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is shown takes most of the time; the decision does not need it."""
    monkeypatch.setattr(module, "REPLICATES", 2)


@pytest.mark.usefixtures("few_replicates")
def test_unchanged_suites_raise_a_false_alarm_no_more_often_than_nominal() -> None:
    """The threshold is out of the way, so that the test alone decides: 2,000 figures, 100 suites."""
    rng = np.random.default_rng(1)
    suites = [judged(rng, figures(20, threshold=1e-9)) for _ in range(100)]
    alarms = sum(any(each.p <= module.ALPHA for each in suite) for suite in suites)
    # 5% nominal; 100 suites show 11 or more with a chance of 1% if it is just kept.
    assert alarms < 11


@pytest.mark.usefixtures("few_replicates")
def test_a_drift_between_runs_below_the_threshold_is_no_alarm() -> None:
    """What is common to all launches of a run no test within them can see: that is what the threshold is for."""
    rng = np.random.default_rng(2)
    drifted = [judged(rng, figures(1), shift=float(np.exp(rng.normal(0, 0.04))), noise=0.01)[0] for _ in range(400)]
    significant = sum(each.p <= module.ALPHA for each in drifted)
    assert significant > 200, "the drift is to be seen"
    assert sum(each.verdict is not Verdict.SAME for each in drifted) < 12


@pytest.mark.usefixtures("few_replicates")
@pytest.mark.parametrize("higher", [False, True])
def test_a_shift_of_a_third_is_found_among_many_figures(higher: bool) -> None:
    rng = np.random.default_rng(3)
    shift = 1 / 1.3 if higher else 1.3
    found = [each for _ in range(10) for each in judged(rng, figures(20, higher=higher), shift, noise=0.06)]
    assert sum(each.verdict is Verdict.REGRESSION for each in found) >= 0.95 * len(found)
    assert not any(each.verdict is Verdict.IMPROVEMENT for each in found)
    assert 0.25 < np.median([each.worse_by for each in found]) < 0.35


@pytest.mark.usefixtures("few_replicates")
def test_a_sixth_is_found_where_launches_agree() -> None:
    found = [each for _ in range(10) for each in judged(np.random.default_rng(4), figures(20), shift=1.17)]
    assert sum(each.verdict is Verdict.REGRESSION for each in found) >= 0.9 * len(found)


def test_the_other_direction_is_an_improvement() -> None:
    rng = np.random.default_rng(5)
    assert {each.verdict for each in judged(rng, figures(5), shift=1 / 1.3)} == {Verdict.IMPROVEMENT}
    assert {each.verdict for each in judged(rng, figures(5, higher=True), shift=1.3)} == {Verdict.IMPROVEMENT}


def test_one_launch_in_seven_that_went_wrong_hides_no_regression_and_makes_none() -> None:
    rng = np.random.default_rng(6)
    (chosen,) = figures(1)
    for shift, at, verdict in ((1.4, 0.2, Verdict.REGRESSION), (1.0, 5.0, Verdict.SAME)):
        now = [[at] * BLOCKS, *samples(rng, 6, shift)]
        (found,) = decide([chosen], {chosen.name: samples(rng, 14)}, {chosen.name: now})
        assert found.verdict is verdict


def test_what_seems_worse_and_scatters_is_undecided_and_no_pass() -> None:
    rng = np.random.default_rng(9)
    found = judged(rng, figures(20), shift=1.2, noise=0.5)
    undecided = [each for each in found if each.verdict is Verdict.UNDECIDED]
    assert undecided
    assert all(each.worse_by > 0.1 and each.p > module.ALPHA for each in undecided)


def test_intervals_hold_the_truth_about_as_often_as_they_claim() -> None:
    rng = np.random.default_rng(7)
    found = judged(rng, figures(100), shift=1.2)
    held = sum(each.change.low <= 1.2 <= each.change.high for each in found)
    # The blocks of a launch count twice, in its own median and in the resamples: rather too wide than too narrow.
    assert held >= 90
    assert np.median([each.change.high - each.change.low for each in found]) < 0.15
    alone = estimate(samples(rng, 14, 3.0))
    assert alone.low < 3.0 < alone.high < 3.3


@settings(max_examples=30)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holm_is_the_closed_test_of_bonferroni(raw: list[float]) -> None:
    """The slow twin: a figure's p is the largest of n * min over every set of figures that it is in."""
    sets = [each for size in range(1, len(raw) + 1) for each in itertools.combinations(range(len(raw)), size)]
    for index, corrected in enumerate(holm(raw)):
        slow = max(min(1.0, len(each) * min(raw[i] for i in each)) for each in sets if index in each)
        assert corrected == pytest.approx(slow)


@settings(max_examples=40)
@given(st.lists(st.floats(0, 1), min_size=4, max_size=9, unique=True), st.integers(2, 4))
def test_the_rank_test_counts_every_way_in_which_launches_can_fall(pooled: list[float], size: int) -> None:
    """The slow twin: deal the values out in all ways, and see how many are as lopsided as this one."""

    def lopsided(after: tuple[float, ...]) -> float:
        before = [value for value in pooled if value not in after]
        return abs(sum(each > other for each in after for other in before) - len(after) * len(before) / 2)

    size = min(size, len(pooled) - 2)
    ways = [lopsided(after) for after in itertools.combinations(pooled, size)]
    found = rank_sum_p(np.array(pooled[size:]), np.array(pooled[:size]))
    assert found == pytest.approx(min(1, np.mean([way >= lopsided(tuple(pooled[:size])) for way in ways])))


def test_too_few_launches_are_an_error_and_not_a_pass() -> None:
    check_enough(4, 4, 1)
    with pytest.raises(TooFewSamples, match="3 launches against 3"):
        check_enough(3, 3, 1)
    rng = np.random.default_rng(8)
    chosen = figures(20)
    with pytest.raises(TooFewSamples, match=r"5 launches against 5 .* 20 figures"):
        decide(chosen, *({figure.name: samples(rng, 5) for figure in chosen} for _ in range(2)))


def test_the_fewest_launches_allowed_can_fire() -> None:
    (chosen,) = figures(1)
    baseline, now = ([[value + 0.01 * launch] for launch in range(4)] for value in (1.0, 2.0))
    (found,) = decide([chosen], {chosen.name: baseline}, {chosen.name: now})
    assert found.verdict is Verdict.REGRESSION
    # Ties too: launches of a step of a few ns often agree.
    (tied,) = decide([chosen], {chosen.name: [[1.0]] * 4}, {chosen.name: [[2.0]] * 4})
    assert tied.verdict is Verdict.REGRESSION
    assert (tied.change.low, tied.change.value, tied.change.high) == (2.0, 2.0, 2.0)
