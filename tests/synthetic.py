"""Made-up measurements with known truth, for tests of what happens after a run."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from stress.orders import BLOCK_FIRST, UNMAP_FIRST, Order
from stress.results.data import (
    COUNTERS,
    FAULT_CLASSES,
    REBUILD_ROW,
    STALL_ROW,
    OrderData,
    RunData,
    Violation,
)

#: Lower edges of a small log-linear histogram: 0 to 31 ns exactly, then 16 buckets per power of two.
EDGES = np.array(
    [
        *range(32),
        *(base + base // 16 * step for base in (1 << n for n in range(5, 36)) for step in range(16)),
    ],
    dtype=np.int64,
)


def histogram(values_ns: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Counts per bucket of `EDGES`, (n_buckets,)."""
    buckets = np.searchsorted(EDGES, values_ns, side="right") - 1
    return np.bincount(buckets, minlength=EDGES.size).astype(np.int64)


def order_data(
    rng: np.random.Generator,
    order: Order = UNMAP_FIRST,
    *,
    rebuilds: int = 200,
    window_ns: float = 1_000_000,
    hit_share: float = 0.5,
    accesses_per_ns: float = 0.3,
    stall_ns: float = 20_000,
    stalls_per_cycle: float = 20,
    vcpus: int = 2,
) -> OrderData:
    """One order. Medians are as given; cycles differ in speed, which ties the stalls of a cycle together."""
    rows = np.zeros(rebuilds, REBUILD_ROW)
    speed = rng.lognormal(0, 0.3, rebuilds)
    rows["number"] = np.arange(1, rebuilds + 1)
    rows["window_ns"] = window_ns * speed
    hit = rng.random(rebuilds) < hit_share
    rows["window_faults"] = np.where(hit, 1 + rng.poisson(0.5, rebuilds), 0)
    for index in range(len(order.steps)):
        rows["step_ns"][:, index] = rows["window_ns"] // 2 + 100 * index
    rows["rebuild_ns"] = rows["step_ns"].sum(axis=1)
    rows["lock_wait_ns"] = 500 * speed
    rows["lock_hold_ns"] = rows["rebuild_ns"] + 1000
    rows["cycle_ns"] = 20_000_000 * rng.lognormal(0, 0.1, rebuilds)
    rows["accesses"] = rows["cycle_ns"] * accesses_per_ns * rng.lognormal(0, 0.05, rebuilds)

    per_cycle = rng.poisson(stalls_per_cycle, rebuilds)
    stalls = np.zeros(int(per_cycle.sum()), STALL_ROW)
    stalls["number"] = np.repeat(rows["number"], per_cycle)
    stalls["fault_class"] = rng.choice(len(FAULT_CLASSES), stalls.size, p=[0.85, 0.05, 0.05, 0.05])
    stalls["stall_ns"] = stall_ns * np.repeat(speed, per_cycle) * rng.lognormal(0, 0.5, stalls.size)
    by_class = [stalls["stall_ns"][stalls["fault_class"] == index] for index in range(len(FAULT_CLASSES))]

    counters = np.zeros((vcpus, 2, len(COUNTERS)), np.int64)
    counters[:, 0, COUNTERS.index("accesses")] = rows["accesses"].sum() * 9 // (10 * vcpus)
    counters[:, 1, COUNTERS.index("accesses")] = rows["accesses"].sum() // (10 * vcpus)
    counters[:, :, COUNTERS.index("tlb_hits")] = counters[:, :, 0] * 9 // 10
    counters[:, :, COUNTERS.index("walks")] = counters[:, :, 0] // 10
    for name, values in zip(FAULT_CLASSES, by_class, strict=True):
        counters[0, 1, COUNTERS.index(name)] = values.size
    return OrderData(
        order=order,
        rebuilds=rebuilds,
        rebuilds_hit=int(np.count_nonzero(rows["window_faults"])),
        rows=rows,
        stalls=stalls,
        stall_buckets_ns=EDGES,
        stall_counts=np.array([histogram(values) for values in by_class]),
        stall_max_ns=int(stalls["stall_ns"].max()) if stalls.size else 0,
        counters=counters,
        outside_ns=int(rows["cycle_ns"].sum()) * 9 // 10,
        inside_ns=int(rows["cycle_ns"].sum()) // 10,
        tlbis=rebuilds,
        cleaned_bytes=rebuilds << 30,
        tables_allocated=513 * rebuilds,
        tables_freed=513 * rebuilds,
        tables_peak=514,
        events_drained=int(stalls.size),
        events_dropped=0,
    )


def run_data(
    orders: list[OrderData],
    *,
    complete: bool = True,
    exit_code: int = 0,
    warnings: list[tuple[str, str]] | None = None,
    violations: list[Violation] | None = None,
    failure: dict[str, Any] | None = None,
    config: dict[str, Any] | None = None,
    seed: int = 42,
) -> RunData:
    """A run that measured ``orders``."""
    return RunData(
        complete=complete,
        exit_code=exit_code,
        seed=seed,
        config={"vcpus": 2, "block_size": 1 << 30} if config is None else config,
        host={"cpu": "a CPU", "cores": 2},
        warnings=warnings or [],
        orders=orders,
        violations=violations or [],
        started_at="2026-01-02T03:04:05Z",
        elapsed_ns=10_000_000_000,
        start_up_ns=300_000_000,
        memory={"segment_bytes": 44 << 20, "unique_bytes": [90 << 20]},
        failure=failure,
    )


def head_to_head(rng: np.random.Generator, rebuilds: int = 200) -> RunData:
    """Unmap-first against block-first, with a window thirty times shorter."""
    return run_data(
        [
            order_data(rng, UNMAP_FIRST, rebuilds=rebuilds),
            order_data(
                rng,
                BLOCK_FIRST,
                rebuilds=rebuilds,
                window_ns=33_000,
                hit_share=0.1,
                stall_ns=10_000,
                accesses_per_ns=0.31,
            ),
        ]
    )
