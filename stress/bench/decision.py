"""Is a ratio today another than the baseline's? Launches are the samples; nothing here measures.

Cycles of one launch share what differs from launch to launch (where memory lies, which core, what else runs), so only
launches are independent, and the test ranks them: Mann-Whitney U, exact, both sides, on each launch's median. Its
p-values are corrected for the number of figures (Holm, Scand. J. Statist. 6, 1979), so that a whole suite raises a
false alarm in at most `ALPHA` of its runs. A difference that is real need not matter: the medians must differ by more
than the figure's threshold too, which also covers what drifts between two runs and no test within them can see. What is
beyond the threshold and not significant is undecided, and no pass either.

The interval resamples launches, and blocks of cycles within each (two-stage bootstrap; Davison and Hinkley, "Bootstrap
Methods", 1997, section 3.8), and is spread for their number by the function that spreads those of one run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
import numpy.typing as npt

from stress.bench.suite import Figure
from stress.errors import TooFewSamples
from stress.results.ratios import spread

#: Probability that a suite of unchanged figures has a significant one.
ALPHA: Final = 0.05
CONFIDENCE: Final = 0.95
REPLICATES: Final = 2000

#: A figure's ratios: by launch, by block of cycles or round within it.
Samples = Sequence[Sequence[float]]
Floats = npt.NDArray[np.float64]


class Verdict(StrEnum):
    """The verdict on a figure."""

    SAME = "same"
    IMPROVEMENT = "improvement"
    REGRESSION = "regression"
    UNDECIDED = "too few samples"  # worse by more than the threshold, but the launches scatter too much to be sure


@dataclass(frozen=True, slots=True)
class Estimate:
    """A ratio with its 95% interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Decision:
    """One figure, now against then."""

    figure: Figure
    baseline: float
    now: float
    change: Estimate  # of now over baseline
    p: float  # corrected for the number of figures
    verdict: Verdict

    @property
    def worse_by(self) -> float:
        """How much worse it is: 0.2 is 20%; negative if it is better."""
        return worse_by(self.change.value, self.figure)


def worse_by(change: float, figure: Figure) -> float:
    """How much worse a change by this factor is: a rate that fell to 1/1.2 is worse by 0.2."""
    return (1 / change if figure.higher_is_better else change) - 1


def estimate(samples: Samples) -> Estimate:
    """The typical ratio of some launches."""
    return _estimate(*_medians(samples))


def decide(figures: Sequence[Figure], baseline: Mapping[str, Samples], now: Mapping[str, Samples]) -> list[Decision]:
    """Judge every figure, each with as many launches. TooFewSamples if they are too few for any verdict but "same"."""
    before, after = (np.array([_launches(samples[each.name]) for each in figures]) for samples in (baseline, now))
    check_enough(before.shape[1], after.shape[1], len(figures))
    raw = [rank_sum_p(each, other) for each, other in zip(before, after, strict=True)]
    return [
        _decision(figure, baseline[figure.name], now[figure.name], p)
        for figure, p in zip(figures, holm(raw), strict=True)
    ]


def rank_sum_p(before: Floats, after: Floats) -> float:
    """Two-sided p-value of the Mann-Whitney U test, exact: the normal approximation cannot fire with few launches.

    Ties, which measured times hardly have, count a half. (numba would load scipy at every start if it were installed.)
    """
    above = (after[:, None] > before).sum() + 0.5 * (after[:, None] == before).sum()
    extreme = int(max(above, before.size * after.size - above))  # rounded down: ties make the test more cautious
    return min(1.0, 2 * sum(_ways(before.size, after.size)[extreme:]) / math.comb(before.size + after.size, after.size))


def _ways(before: int, after: int) -> list[int]:
    """In how many orders of the launches each value of U, 0 to before * after, comes out (a Gaussian binomial)."""
    ways = [1] + [0] * (before * after)
    for i in range(1, after + 1):
        for u in range(len(ways) - 1, before + i - 1, -1):  # times 1 - q^(before + i)
            ways[u] -= ways[u - before - i]
        for u in range(i, len(ways)):  # over 1 - q^i
            ways[u] += ways[u - i]
    return ways


def holm(raw: Sequence[float]) -> list[float]:
    """The p-values corrected for their number, in the same sequence."""
    corrected = [0.0] * len(raw)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(raw)), key=raw.__getitem__)):
        largest = max(largest, min(1.0, (len(raw) - rank) * raw[index]))
        corrected[index] = largest
    return corrected


def check_enough(before: int, after: int, figures: int) -> None:
    """Raise TooFewSamples if even launches without any overlap would not be significant: then nothing could be."""
    if 2 / math.comb(before + after, after) * figures > ALPHA:
        message = (
            f"too few samples: {after} launches against {before} cannot show that one of {figures} figures changed"
        )
        raise TooFewSamples(message, "raise the launches of the suite, or --launches")


def _decision(figure: Figure, baseline: Samples, now: Samples, p: float) -> Decision:
    (before, before_drawn), (after, after_drawn) = _medians(baseline), _medians(now)
    change = _estimate(after / before, after_drawn / before_drawn)
    verdict = Verdict.SAME
    if worse_by(change.value, figure) > figure.threshold:
        verdict = Verdict.REGRESSION if p <= ALPHA else Verdict.UNDECIDED
    elif worse_by(1 / change.value, figure) > figure.threshold and p <= ALPHA:
        verdict = Verdict.IMPROVEMENT
    return Decision(figure, before, after, change, p, verdict)


def _launches(samples: Samples) -> Floats:
    return np.array([np.median(launch) for launch in samples])


def _medians(samples: Samples) -> tuple[float, Floats]:
    """The median of the launches' medians, and of `REPLICATES` resamples; always the same for the same samples."""
    rng = np.random.default_rng(len(samples))
    drawn = np.column_stack([_resampled(launch, rng) for launch in samples])
    chosen = rng.integers(0, len(samples), size=drawn.shape)
    resampled = np.median(np.take_along_axis(drawn, chosen, axis=1), axis=1)
    value = float(np.median(_launches(samples)))
    # Fewer than four launches decide nothing (`check_enough`), and have no quantile of Student's t to speak of.
    return value, spread(value, resampled, np.ones(len(samples))) if len(samples) > 3 else resampled


def _resampled(launch: Sequence[float], rng: np.random.Generator) -> Floats:
    """Medians of resamples of one launch."""
    found: Floats = np.median(np.asarray(launch)[rng.integers(0, len(launch), size=(REPLICATES, len(launch)))], axis=1)
    return found


def _estimate(value: float, resampled: Floats) -> Estimate:
    low, high = np.quantile(resampled, ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2))
    return Estimate(value, min(float(low), value), max(float(high), value))
