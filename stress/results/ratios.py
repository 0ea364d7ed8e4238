"""Ratios of two orders with 95% intervals, by resampling rebuild cycles.

Everything that happens in one cycle is one observation: a descheduled lock holder makes all stalls of its
cycle long, so pooled events would promise far more certainty than there is. Cycles are drawn with
replacement (cluster bootstrap, percentile interval; Davison and Hinkley, "Bootstrap Methods", 1997,
sections 3.8 and 5.3), each order on its own. The share of rebuilds hit is one yes or no per cycle, where the
bootstrap calls 0 of n and n of n certain; its interval comes from Jeffreys posteriors instead (Agresti and
Min, Biometrics 61, 2005).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from stress.results.data import FAULT_CLASSES, NOT_MEASURED, OrderData
from stress.results.statistics import rank

CONFIDENCE: Final = 0.95
REPLICATES: Final = 2000

#: Fewer cycles than this per order give no interval.
MIN_CYCLES: Final = 10
#: A rate of rare events gets an interval only if this many cycles show one.
MIN_EVENT_CYCLES: Final = 5
#: A p99 gets an interval only if its tail spans this many cycles; with 5 about 1 in 8 intervals misses.
MIN_TAIL_CYCLES: Final = 10

#: Draws per order and metric group. Beyond it, long runs get fewer replicates; their intervals are tight.
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
    by_cycle = _cycle_estimates(data.rows, rng)
    return {
        "window": by_cycle["window"],
        "rebuilds_hit_share": _share(data.rebuilds_hit, data.rebuilds, rng),
        "window_faults_per_rebuild": by_cycle["window_faults_per_rebuild"],
        "stall_p99": _window_stall_p99(data, rng),
        "throughput": by_cycle["throughput"],
    }


def ratios(
    baseline_name: str, baseline: dict[str, Estimate], name: str, other: dict[str, Estimate]
) -> dict[str, dict[str, Any]]:
    """``{metric: {ratio, low, high, baseline, value, reason?}}`` of ``other`` over ``baseline``."""
    return {metric: _ratio(baseline_name, baseline[metric], name, other[metric]) for metric in baseline}


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


def _multiplicities(rng: np.random.Generator, cycles: int, width: int) -> Iterator[npt.NDArray[np.int64]]:
    """How often each cycle is drawn, (chunk, cycles) at a time; rows of ``width`` cells bound the chunk."""
    replicates = min(REPLICATES, max(_MIN_REPLICATES, _MAX_DRAWS // cycles))
    chunk = max(1, _CHUNK_CELLS // width)
    for start in range(0, replicates, chunk):
        size = min(chunk, replicates - start)
        draws = rng.integers(0, cycles, size=(size, cycles))
        draws += cycles * np.arange(size)[:, np.newaxis]
        yield np.bincount(draws.ravel(), minlength=size * cycles).reshape(size, cycles)


def _cycle_estimates(rows: npt.NDArray[Any], rng: np.random.Generator) -> dict[str, Estimate]:
    """Median window (ns), window faults per rebuild, and throughput (accesses/s) from REBUILD_ROW rows."""
    names = ("window", "window_faults_per_rebuild", "throughput")
    cycles = int(rows.size)
    if cycles == 0:
        return dict.fromkeys(names, Estimate(None, reason="has no rebuilds"))
    # Sorted by window, the median of a resample is where its running multiplicity passes the middle.
    rows = rows[np.argsort(rows["window_ns"], kind="stable")]
    windows = rows["window_ns"].astype(np.float64)
    middle = rank(50, cycles)
    columns = np.column_stack([rows[name] for name in ("window_faults", "accesses", "cycle_ns")])
    faults, accesses, time_ns = (float(total) for total in columns.sum(axis=0))
    values = (
        float(windows[middle]),
        faults / cycles,
        accesses / time_ns * 1e9 if time_ns > 0 else None,
    )
    if cycles < MIN_CYCLES:
        reason = f"has {_counted(cycles, 'rebuild')}, an interval needs {MIN_CYCLES}"
        return {name: Estimate(value, reason=reason) for name, value in zip(names, values, strict=True)}

    medians, sums = [], []
    for drawn in _multiplicities(rng, cycles, cycles):
        medians.append(windows[(np.cumsum(drawn, axis=1) <= middle).sum(axis=1)])
        sums.append(drawn.astype(np.float64) @ columns)
    total = np.concatenate(sums)
    found = {"window": Estimate(values[0], np.concatenate(medians))}
    if (windows == NOT_MEASURED).any():
        found["window"] = Estimate(None, reason="leaves the entry invalid, so its window has no end")
    hit = int(np.count_nonzero(rows["window_faults"]))
    if hit < MIN_EVENT_CYCLES:
        reason = f"has {_counted(hit, 'hit rebuild')}, an interval needs {MIN_EVENT_CYCLES}"
        found["window_faults_per_rebuild"] = Estimate(values[1], reason=reason)
    else:
        found["window_faults_per_rebuild"] = Estimate(values[1], total[:, 0] / cycles)
    if values[2] is None:
        found["throughput"] = Estimate(None, reason="has no measured time")
    else:
        with np.errstate(divide="ignore", invalid="ignore"):
            found["throughput"] = Estimate(values[2], total[:, 1] / total[:, 2] * 1e9)
    return found


def _share(hit: int, rebuilds: int, rng: np.random.Generator) -> Estimate:
    """Share of rebuilds hit, from exact counts."""
    if rebuilds == 0:
        return Estimate(None, reason="has no rebuilds")
    if rebuilds < MIN_CYCLES:
        reason = f"has {_counted(rebuilds, 'rebuild')}, an interval needs {MIN_CYCLES}"
        return Estimate(hit / rebuilds, reason=reason)
    hit = min(hit, rebuilds)
    posterior = rng.beta(hit + 0.5, rebuilds - hit + 0.5, size=REPLICATES)
    return Estimate(hit / rebuilds, posterior)


def _window_stall_p99(data: OrderData, rng: np.random.Generator) -> Estimate:
    """The p99 (ns) of window faults' stalls: only they are the order's doing, and population faults would hide them."""
    found = _stall_p99(data.stalls[data.stalls["fault_class"] == FAULT_CLASSES.index("window")], rng)
    return Estimate(found.value, reason="had fault events dropped") if data.events_dropped else found


def _stall_p99(stalls: npt.NDArray[Any], rng: np.random.Generator) -> Estimate:
    """The p99 (ns) of STALL_ROW rows, those of one cycle drawn together."""
    count = int(stalls.size)
    if count == 0:
        return Estimate(None, reason="has no such stalls")
    stalls = stalls[np.argsort(stalls["stall_ns"], kind="stable")[::-1]]
    longest_first = stalls["stall_ns"].astype(np.float64)
    numbers, owner, sizes = np.unique(stalls["number"], return_inverse=True, return_counts=True)
    above = count // 100  # n - ceil(0.99 n) values may lie above the p99
    value = float(longest_first[above])
    cycles, tail_cycles = int(numbers.size), int(np.unique(owner[: above + 1]).size)
    if cycles < MIN_CYCLES:
        reason = f"has stalls in {_counted(cycles, 'cycle')}, an interval needs {MIN_CYCLES}"
        return Estimate(value, reason=reason)
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
    return Estimate(value, np.concatenate(found))


def _counted(count: int, noun: str) -> str:
    return f"{count or 'no'} {noun}{'' if count == 1 else 's'}"
