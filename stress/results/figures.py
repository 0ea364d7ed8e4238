"""Figures of an order that stand in several places of a document: on their own, and divided by another order's."""

from __future__ import annotations

import numpy as np

from stress.results.data import COUNTERS, FAULT_CLASSES, OrderData
from stress.results.statistics import Quantiles, histogram_quantiles


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
