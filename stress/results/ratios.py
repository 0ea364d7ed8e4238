"""Ratios of two orders with 95% intervals, by resampling cycles.

Everything that happens in one cycle is one observation, however many rebuilds it has: a migration or a pass over all
stages shares its state of the caches, its place in memory and its noise, and a descheduled lock holder makes all stalls
of its cycle long. Pooled rebuilds or events would promise far more certainty than there is. So cycles are drawn with
replacement, each order on its own (cluster bootstrap; Davison and Hinkley, "Bootstrap Methods", 1997, sections 3.8 and
5.3), and every figure is the ratio of sums or the quantile of what the cycles drawn have, whatever their sizes.

Resamples of few cycles scatter too little. Their logarithms are spread about the value's as Student's t would be (the
expanded percentile interval; Hesterberg, The American Statistician 69, 2015), with the degrees of freedom of as many
cycles of equal size as tell the same.

The share of rebuilds hit needs other means, for resamples call 0 of n and n of n certain: its interval comes from
Jeffreys posteriors (Agresti and Min, Biometrics 61, 2005) for the number of independent rebuilds that tell as much as
these do in their cycles (the effective sample size of Korn and Graubard, Survey Methodology 24, 1998).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from stress.results.data import COUNTERS, FAULT_CLASSES, NOT_MEASURED, OrderData
from stress.results.statistics import Quantiles, histogram_quantiles, rank, student_t

CONFIDENCE: Final = 0.95
REPLICATES: Final = 2000

#: Fewer cycles than this per order give no interval.
MIN_CYCLES: Final = 10
#: Cycles of so different size that they tell no more than this many equal ones give no interval either.
MIN_EQUAL_CYCLES: Final = 5
#: A rate of rare events gets an interval only if this many cycles show one.
MIN_EVENT_CYCLES: Final = 5
#: A p99 gets an interval only if its tail spans this many cycles; with 5 about 1 in 8 intervals misses.
MIN_TAIL_CYCLES: Final = 10

#: Most draws per order and metric. Long runs get fewer replicates than `REPLICATES` by it; their intervals are tight.
_MAX_DRAWS: Final = 40_000_000
_MIN_REPLICATES: Final = 400
#: Cells of the largest temporary (64 bit each).
_CHUNK_CELLS: Final = 1 << 20

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Estimate:
    """One metric of one order: its value, the values of its resamples, and why either is missing."""

    value: float | None
    resampled: Floats | None = None  # (replicates,); None: no interval can be given
    reason: str = ""  # "" or a clause that follows the order's name: "has only 3 rebuilds"


def estimates(data: OrderData, rng: np.random.Generator) -> dict[str, Estimate]:
    """Every metric that `ratios` compares, for one order, with its resamples drawn from ``rng``."""
    return {
        "window": _window(data.rows, rng),
        "rebuilds_hit_share": _share(data, rng),
        "window_faults_per_rebuild": _window_faults(data.rows, rng),
        "stall_p99": _window_stall_p99(data, rng),
        "throughput": _throughput(data, rng),
    }


def ratios(
    baseline_name: str, baseline: dict[str, Estimate], name: str, other: dict[str, Estimate]
) -> dict[str, dict[str, Any]]:
    """``{metric: {ratio, low, high, baseline, value, reason?}}`` of ``other`` over ``baseline``."""
    return {metric: _ratio(baseline_name, baseline[metric], name, other[metric]) for metric in baseline}


def exact_ratios(
    baseline_name: str, baseline: dict[str, Estimate], name: str, other: dict[str, Estimate]
) -> dict[str, dict[str, Any]]:
    """The ratios of predicted passes, without intervals: nothing is drawn, and a prediction has no noise."""
    found = ratios(baseline_name, baseline, name, other)
    for each in found.values():
        if each["ratio"] is not None:
            each |= {"low": None, "high": None}
            each.pop("reason", None)
    return found


def _ratio(baseline_name: str, baseline: Estimate, name: str, other: Estimate) -> dict[str, Any]:
    found: dict[str, Any] = {"ratio": None, "low": None, "high": None}
    found |= {"baseline": baseline.value, "value": other.value}
    clauses = [(baseline_name, baseline), (name, other)]
    reasons = [f"{who} {estimate.reason}" for who, estimate in clauses if estimate.reason]
    if baseline.value is not None and other.value is not None:
        if baseline.value == 0:
            reasons = [f"{baseline_name} is 0, so there is no ratio"]
        else:
            found["ratio"] = other.value / baseline.value
            if baseline.resampled is not None and other.resampled is not None:
                low, high = _interval(baseline.resampled, other.resampled)
                # Nothing seen among n is 0, though its posterior never is: the ratio lies in its interval.
                found["low"] = min(low, found["ratio"])
                found["high"] = None if high is None else max(high, found["ratio"])
                if high is None:
                    reasons.append(f"no upper bound: {baseline_name} is 0 in many resamples")
    if reasons:
        found["reason"] = "; ".join(dict.fromkeys(reasons))
    return found


def _interval(baseline: Floats, other: Floats) -> tuple[float, float | None]:
    """Percentile interval of ``other / baseline``; 0/0 may be anything, so it widens both ends."""
    size = min(baseline.size, other.size)
    with np.errstate(divide="ignore", invalid="ignore"):
        quotients = other[:size] / baseline[:size]
    tail = (1 - CONFIDENCE) / 2
    low = np.quantile(np.nan_to_num(quotients, nan=0.0, posinf=np.inf), tail, method="inverted_cdf")
    high = np.quantile(np.nan_to_num(quotients, nan=np.inf, posinf=np.inf), 1 - tail, method="inverted_cdf")
    return float(low), float(high) if np.isfinite(high) else None


@dataclass(frozen=True, slots=True)
class _Cycles:
    """Rows by the cycle that they belong to."""

    owner: npt.NDArray[np.int64]  # (rows,) index of each row's cycle
    sizes: npt.NDArray[np.int64]  # (cycles,) rows of each

    @classmethod
    def of(cls, numbers: npt.NDArray[np.int64]) -> _Cycles:
        """The cycles with these numbers, one per row."""
        _, owner, sizes = np.unique(numbers, return_inverse=True, return_counts=True)
        return cls(owner, sizes)

    @property
    def count(self) -> int:
        return int(self.sizes.size)

    def total(self, values: npt.NDArray[Any]) -> Floats:
        """Sum of the rows' values in each cycle, (cycles,)."""
        return np.bincount(self.owner, weights=values, minlength=self.count).astype(np.float64)


def _equal_cycles(weights: npt.NDArray[Any]) -> float:
    """The number of equal cycles that tell as much as these (Kish, "Survey Sampling", 1965, section 11.7)."""
    weights = weights.astype(np.float64)
    return float(weights.sum() ** 2 / (weights @ weights))


def _too_few(what: str, weights: npt.NDArray[Any]) -> str:
    """Why the cycles that have ``what``, with these weights, give no interval; empty if they do."""
    if weights.size < MIN_CYCLES:
        return f"has {what} in {_counted(int(weights.size), 'cycle')}, an interval needs {MIN_CYCLES}"
    if (equal := _equal_cycles(weights)) < MIN_EQUAL_CYCLES:
        return (
            f"has most {what} in few of its cycles, which tell what {equal:.1f} equal ones would; "
            f"an interval needs {MIN_EQUAL_CYCLES}"
        )
    return ""


def spread(value: float, resampled: Floats, weights: npt.NDArray[Any]) -> Floats:
    """The resamples of cycles with these weights, moved away from ``value`` on a logarithmic scale for their number."""
    if value <= 0:
        return resampled
    equal = _equal_cycles(weights)
    factor = math.sqrt(equal / (equal - 1)) * student_t(CONFIDENCE, equal - 1) / student_t(CONFIDENCE, math.inf)
    found: Floats = value * (resampled / value) ** factor
    return found


def _multiplicities(rng: np.random.Generator, cycles: int, width: int) -> Iterator[npt.NDArray[np.int64]]:
    """How often each cycle is drawn, (chunk, cycles) at a time; rows of ``width`` cells bound chunk and draws."""
    replicates = min(REPLICATES, max(_MIN_REPLICATES, _MAX_DRAWS // width))
    chunk = max(1, _CHUNK_CELLS // width)
    for start in range(0, replicates, chunk):
        size = min(chunk, replicates - start)
        draws = rng.integers(0, cycles, size=(size, cycles))
        draws += cycles * np.arange(size)[:, np.newaxis]
        yield np.bincount(draws.ravel(), minlength=size * cycles).reshape(size, cycles)


def _window(rows: npt.NDArray[Any], rng: np.random.Generator) -> Estimate:
    """Median window (ns) of REBUILD_ROW rows."""
    if rows.size == 0:
        return Estimate(None, reason="has no rebuilds")
    if (rows["window_ns"] == NOT_MEASURED).any():
        return Estimate(None, reason="leaves the entry invalid, so its window has no end")
    # Sorted by window, the median of a resample is where its running number of rebuilds passes the middle.
    rows = rows[np.argsort(rows["window_ns"], kind="stable")]
    windows = rows["window_ns"].astype(np.float64)
    value = float(windows[rank(50, rows.size)])
    cycles = _Cycles.of(rows["cycle"])
    if reason := _too_few("rebuilds", cycles.sizes):
        return Estimate(value, reason=reason)
    found = []
    for drawn in _multiplicities(rng, cycles.count, rows.size):
        running = np.cumsum(drawn.astype(np.int32)[:, cycles.owner], axis=1, dtype=np.int32)
        middle = (running[:, -1:] - 1) // 2  # rank(50, n)
        found.append(windows[(running <= middle).sum(axis=1)])
    return Estimate(value, spread(value, np.concatenate(found), cycles.sizes))


def _quotient(value: float, parts: Floats, wholes: Floats, rng: np.random.Generator) -> Floats:
    """Likely ratios of the sums of ``parts`` and of ``wholes``, each (cycles,); ``value`` is the measured one."""
    apart = parts - value * wholes
    error = math.sqrt(parts.size / (parts.size - 1) * float(apart @ apart)) / parts.sum()  # of the logarithm
    found: Floats = value * np.exp(error * rng.standard_t(_equal_cycles(wholes) - 1, size=REPLICATES))
    return found


def _window_faults(rows: npt.NDArray[Any], rng: np.random.Generator) -> Estimate:
    """Window faults per rebuild of REBUILD_ROW rows."""
    if rows.size == 0:
        return Estimate(None, reason="has no rebuilds")
    value = float(rows["window_faults"].mean())
    cycles = _Cycles.of(rows["cycle"])
    faults = cycles.total(rows["window_faults"])
    if reason := _too_few("rebuilds", cycles.sizes):
        return Estimate(value, reason=reason)
    hit = int(np.count_nonzero(faults))
    if hit < MIN_EVENT_CYCLES:
        reason = f"has window faults in {_counted(hit, 'cycle')}, an interval needs {MIN_EVENT_CYCLES}"
        return Estimate(value, reason=reason)
    return Estimate(value, _quotient(value, faults, cycles.sizes.astype(np.float64), rng))


def _throughput(data: OrderData, rng: np.random.Generator) -> Estimate:
    """Accesses per second: its value from exact counts, its interval from CYCLE_ROW rows."""
    value = accesses_per_s(data)
    if value is None:
        return Estimate(None, reason="has no complete cycle")
    accesses, time_ns = (data.cycles[name].astype(np.float64) for name in ("accesses", "time_ns"))
    if reason := _too_few("time", time_ns):
        return Estimate(value, reason=reason)
    if not accesses.any():
        return Estimate(value, reason="has no accesses")
    of_rows = float(accesses.sum() / time_ns.sum())
    return Estimate(value, value / of_rows * _quotient(of_rows, accesses, time_ns, rng))


def _share(data: OrderData, rng: np.random.Generator) -> Estimate:
    """Share of rebuilds hit: its value from exact counts, its interval from the rows."""
    if data.rebuilds == 0:
        return Estimate(None, reason="has no rebuilds")
    value = min(data.rebuilds_hit, data.rebuilds) / data.rebuilds
    cycles = _Cycles.of(data.rows["cycle"])
    if reason := _too_few("rebuilds", cycles.sizes):
        return Estimate(value, reason=reason)
    independent = _independent(cycles, cycles.total(data.rows["window_faults"] > 0))
    posterior = rng.beta(value * independent + 0.5, (1 - value) * independent + 0.5, size=REPLICATES)
    return Estimate(value, posterior)


def _independent(cycles: _Cycles, hits: Floats) -> float:
    """The number of independent rebuilds that tell as much of the share hit as these cycles, with ``hits`` in each."""
    rebuilds = float(cycles.sizes.sum())
    if rebuilds == cycles.count:
        return rebuilds
    equal = _equal_cycles(cycles.sizes)
    share = hits.sum() / rebuilds
    if share in (0, 1):  # nothing tells rebuilds of one cycle apart, so they count as one
        return equal
    apart = hits - share * cycles.sizes
    scatter = cycles.count / (cycles.count - 1) * (apart @ apart) / rebuilds**2
    effective = min(rebuilds, share * (1 - share) / scatter) if scatter > 0 else rebuilds
    # The scatter is an estimate of few cycles itself.
    return effective * (student_t(CONFIDENCE, rebuilds - 1) / student_t(CONFIDENCE, equal - 1)) ** 2


def _window_stall_p99(data: OrderData, rng: np.random.Generator) -> Estimate:
    """The p99 (ns) of window faults' stalls: only these depend on the order, and population faults would hide them.

    The p99's value comes from exact counts, its interval from the events kept.
    """
    value = stall_quantiles(data, "window")["p99"]
    found = _stall_p99(data.stalls[data.stalls["fault_class"] == FAULT_CLASSES.index("window")], rng)
    if data.events_dropped:
        return Estimate(value, reason="had fault events dropped")
    if value is None or not found.value or found.resampled is None:
        return Estimate(value, reason=found.reason)
    return Estimate(value, value / found.value * found.resampled)


def _stall_p99(stalls: npt.NDArray[Any], rng: np.random.Generator) -> Estimate:
    """The p99 (ns) of STALL_ROW rows; the rows of one cycle are drawn together."""
    count = int(stalls.size)
    if count == 0:
        return Estimate(None, reason="has no such stalls")
    stalls = stalls[np.argsort(stalls["stall_ns"], kind="stable")[::-1]]
    longest_first = stalls["stall_ns"].astype(np.float64)
    found_in = _Cycles.of(stalls["cycle"])
    owner, sizes, cycles = found_in.owner, found_in.sizes, found_in.count
    above = count // 100  # n - ceil(0.99 n) values may lie above the p99
    value = float(longest_first[above])
    if count < 100:
        reason = f"has {_counted(count, 'such stall')}, of which a p99 is no more than the longest"
        return Estimate(value, reason=reason)
    if reason := _too_few("such stalls", sizes):
        return Estimate(value, reason=reason)
    tail_cycles = int(np.unique(owner[: above + 1]).size)
    if tail_cycles < MIN_TAIL_CYCLES:
        reason = f"has its slowest 1% of stalls in {_counted(tail_cycles, 'cycle')}"
        return Estimate(value, reason=f"{reason}, an interval needs {MIN_TAIL_CYCLES}")

    # Only the tail matters: walk down from the longest stall, in a prefix that grows until it holds 1%.
    found = []
    for drawn in _multiplicities(rng, cycles, max(cycles, count // 4)):
        allowed = drawn @ sizes // 100
        prefix = min(count, 2 * above + 64)
        while True:
            cumulative = np.cumsum(drawn[:, owner[:prefix]], axis=1)
            if prefix == count or (cumulative[:, -1] > allowed).all():
                break
            prefix = min(count, 2 * prefix)
        found.append(longest_first[(cumulative <= allowed[:, np.newaxis]).sum(axis=1)])
    return Estimate(value, spread(value, np.concatenate(found), sizes))


def _counted(count: int, noun: str) -> str:
    return f"{count or 'no'} {noun}{'' if count == 1 else 's'}"


def accesses_per_s(data: OrderData) -> float | None:
    """Checked accesses of all vCPUs over the order's time; None without any time."""
    time_ns = int(data.outside_ns) + int(data.inside_ns)
    accesses = int(data.counters[:, :, COUNTERS.index("accesses")].sum())
    return accesses * 1e9 / time_ns if time_ns > 0 else None


def stall_quantiles(data: OrderData, fault_class: str | None = None) -> Quantiles:
    """``count, p50, p90, p99, max`` (ns) of the stalls of a class of faults, or of all: counts refined by events."""
    counts, kept = data.stall_counts, data.stalls
    if fault_class is not None:
        index = FAULT_CLASSES.index(fault_class)
        counts, kept = counts[index : index + 1], kept[kept["fault_class"] == index]
    return histogram_quantiles(
        data.stall_buckets_ns, counts.sum(axis=0), int(data.stall_max_ns), np.sort(kept["stall_ns"])
    )
