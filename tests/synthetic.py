"""Made-up measurements with known truth, for tests of what happens after a run."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import numpy.typing as npt

from stress.orders import BLOCK_FIRST, CLEAN_FIRST, UNMAP_FIRST, Order, Step
from stress.results.data import (
    COUNTERS,
    CYCLE_ROW,
    FAULT_CLASSES,
    REBUILD_ROW,
    STALL_ROW,
    Interval,
    OrderData,
    RunData,
    StageData,
    TraceData,
    Violation,
)
from stress.results.schema import Tables

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
    sizes: npt.NDArray[np.int64] | None = None,
    scatter: float = 0.3,
) -> OrderData:
    """One order. Medians are as given; cycles differ in speed, which ties together what is in one.

    Each cycle has one of ``rebuilds``; or as many as ``sizes``, (cycles,), says. Then rebuilds differ as much among
    themselves as cycles do, and in a fast cycle more of them are hit.
    """
    if sizes is None:
        sizes = np.ones(rebuilds, np.int64)
        speed = within = rng.lognormal(0, scatter, rebuilds)
        hit = rng.random(rebuilds) < hit_share
        owner = np.arange(rebuilds)
    else:
        rebuilds = int(sizes.sum())
        owner = np.repeat(np.arange(sizes.size), sizes)
        shared = rng.normal(0, 1, sizes.size)
        speed = np.exp(scatter * shared)
        within = speed[owner] * rng.lognormal(0, scatter, rebuilds)
        logit = np.log(hit_share / (1 - hit_share)) - shared[owner]
        hit = rng.random(rebuilds) < 1 / (1 + np.exp(-logit))
    count = sizes.size
    rows = np.zeros(rebuilds, REBUILD_ROW)
    cycles = np.zeros(count, CYCLE_ROW)
    cycles["number"] = np.arange(1, count + 1)
    rows["number"] = np.arange(1, rebuilds + 1)
    rows["cycle"] = cycles["number"][owner]
    rows["window_ns"] = window_ns * within
    rows["window_faults"] = np.where(hit, 1 + rng.poisson(0.5, rebuilds), 0)
    for index in range(len(order.steps)):
        rows["step_ns"][:, index] = rows["window_ns"] // 2 + 100 * index
    rows["rebuild_ns"] = rows["step_ns"].sum(axis=1)
    rows["lock_wait_ns"] = 500 * within
    rows["lock_hold_ns"] = rows["rebuild_ns"] + 1000
    cycles["time_ns"] = 20_000_000 * rng.lognormal(0, 0.1, count)
    rows["start_ns"] = (np.cumsum(cycles["time_ns"]) - cycles["time_ns"])[owner] + 1000 * rows["number"]
    cycles["accesses"] = cycles["time_ns"] * accesses_per_ns * rng.lognormal(0, 0.05, count)

    per_cycle = rng.poisson(stalls_per_cycle, count)
    stalls = np.zeros(int(per_cycle.sum()), STALL_ROW)
    stalls["cycle"] = np.repeat(cycles["number"], per_cycle)
    stalls["fault_class"] = rng.choice(len(FAULT_CLASSES), stalls.size, p=[0.85, 0.05, 0.05, 0.05, 0, 0, 0])
    stalls["stall_ns"] = stall_ns * np.repeat(speed, per_cycle) * rng.lognormal(0, 0.5, stalls.size)
    by_class = [stalls["stall_ns"][stalls["fault_class"] == index] for index in range(len(FAULT_CLASSES))]

    counters = np.zeros((vcpus, 2, len(COUNTERS)), np.int64)
    counters[:, 0, COUNTERS.index("accesses")] = cycles["accesses"].sum() * 9 // (10 * vcpus)
    counters[:, 1, COUNTERS.index("accesses")] = cycles["accesses"].sum() // (10 * vcpus)
    counters[:, :, COUNTERS.index("tlb_hits")] = counters[:, :, 0] * 9 // 10
    counters[:, :, COUNTERS.index("walks")] = counters[:, :, 0] // 10
    for name, values in zip(FAULT_CLASSES, by_class, strict=True):
        counters[0, 1, COUNTERS.index(name)] = values.size
    return OrderData(
        order=order,
        cycle_count=count,
        rebuilds=rebuilds,
        restarts=0,
        yields=0,
        lost_races=0,
        rebuilds_hit=int(np.count_nonzero(rows["window_faults"])),
        rows=rows,
        cycles=cycles,
        stalls=stalls,
        stall_buckets_ns=EDGES,
        stall_counts=np.array([histogram(values) for values in by_class]),
        stall_max_ns=int(stalls["stall_ns"].max()) if stalls.size else 0,
        counters=counters,
        outside_ns=int(cycles["time_ns"].sum()) * 9 // 10,
        inside_ns=int(cycles["time_ns"].sum()) // 10,
        tlbis=rebuilds,
        cleaned_bytes=rebuilds << 30,
        tables=Tables(allocated=513 * rebuilds, freed=513 * rebuilds, peak=514),
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
    scenario: str = "rebuild",
    stages: list[StageData] | None = None,
    life_cycle: dict[str, int] | None = None,
    trace: TraceData | None = None,
    untested: list[str] | None = None,
) -> RunData:
    """A run that measured ``orders``."""
    return RunData(
        complete=complete,
        exit_code=exit_code,
        seed=seed,
        config={"vcpus": 2, "block_size": 1 << 30} if config is None else config,
        host={"cpu": "a CPU", "cores": 8},
        warnings=warnings or [],
        orders=orders,
        violations=violations or [],
        started_at="2026-01-02T03:04:05Z",
        elapsed_ns=10_000_000_000,
        start_up_ns=300_000_000,
        memory={"segment_bytes": 44 << 20, "unique_bytes": [90 << 20]},
        failure=failure,
        scenario=scenario,
        stages=stages or [],
        passes=len({stage.repeat for stage in stages or []}),
        life_cycle=life_cycle or {},
        intervals=[Interval(start * 100_000_000, 100_000_000, 30_000_000 + start, 7) for start in range(100)],
        trace=trace,
        untested=tuple(untested or ()),
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


def counts(**named: int) -> npt.NDArray[np.int64]:
    """Counters, (n_counters,), 0 unless named."""
    found = np.zeros(len(COUNTERS), np.int64)
    for name, value in named.items():
        found[COUNTERS.index(name)] = value
    return found


def selftest_config(scenario: str, backing: str, blocks: int, block_size: int) -> dict[str, Any]:
    """What of a configuration the selftests' lines show: 4 vCPUs, 4 KiB pages, 40 bits of IPA."""
    return {
        "scenario": scenario,
        "granule_bytes": 4096,
        "ipa_bits": 40,
        "backing": backing,
        "block_size_bytes": block_size,
        "memory_bytes": blocks * block_size,
        "phys_offset_bytes": 1 << 30,
        "vcpus": 4,
        "iterations": 2,
    }


def vcpu_rebuilt(order: OrderData) -> OrderData:
    """The same order with its blocks rebuilt by the faulting vCPUs, of which some lost the race."""
    order.counters[0, 1, COUNTERS.index("rebuild")] = order.rebuilds
    order.counters[1, 1, COUNTERS.index("retry")] = 7 * order.rebuilds
    return order


def page_table_test(
    rng: np.random.Generator, *, passes: int = 1, orders: tuple[Order, ...] = (UNMAP_FIRST,)
) -> RunData:
    """kvm_page_table_test with 20 GiB of 1 GiB blocks, as its stages must come out; passes take turns at ``orders``."""
    half = 1 << 17  # pages of half a block
    stages = []
    for repeat in range(passes):
        order = orders[repeat % len(orders)].name if len(orders) > 1 else ""
        for name, duration_ns, counters, rebuilds in (
            (
                "KVM_CREATE_MAPPINGS",
                123_456,
                counts(accesses=80, population=20, mapped_blocks=20, translation_l1=20),
                0,
            ),
            (
                "KVM_UPDATE_MAPPINGS",
                1_234_567_890,
                counts(
                    accesses=4 * 20 * (half + 1),
                    permission=20,
                    population=20 * half,
                    splits=20,
                    mapped_pages=20 * (half + 1),
                    permission_l1=20,
                    translation_l2=20 * 256,
                    translation_l3=20 * (half - 256),
                ),
                0,
            ),
            (
                "KVM_ADJUST_MAPPINGS",
                345_678_901,
                counts(accesses=4 * 40 * half, window=12, rebuild=20, translation_l1=12, translation_l3=20),
                20,
            ),
        ):
            stages.append(
                StageData(name, 0, repeat // len(orders), duration_ns * (repeat + 1), counters, rebuilds, order)
            )
    return run_data(
        [vcpu_rebuilt(order_data(rng, order, rebuilds=20 * passes // len(orders), vcpus=4)) for order in orders],
        config=selftest_config("kvm-page-table-test", "hugetlb-1g", 20, 1 << 30),
        scenario="kvm-page-table-test",
        stages=stages,
    )


def dirty_log_perf(rng: np.random.Generator, *, manual: bool = False) -> RunData:
    """dirty_log_perf_test with two iterations over 4 GiB of 2 MiB blocks; with ``manual`` protection or without."""
    pages = 1 << 20
    dirty = counts(
        accesses=pages, permission=2048, population=pages - 2048, permission_l2=2048, translation_l3=pages - 2048
    )
    stages = [
        StageData("populate", 0, 0, 412_000_000, counts(population=2048, mapped_blocks=2048, translation_l2=2048), 0),
        StageData("enable", 0, 0, 1_234_567, counts(), 0),
        StageData("dirty", 1, 0, 2_000_000_001, dirty, 0),
        StageData("get-dirty-log", 1, 0, 40_000_000, counts(), 0),
        StageData("dirty", 2, 0, 1_000_000_002, counts(permission=pages, relaxed=pages, permission_l3=pages), 0),
        StageData("get-dirty-log", 2, 0, 60_000_001, counts(), 0),
        StageData("disable", 0, 0, 5_000, counts(), 0),
    ]
    if manual:
        for iteration, after in ((1, 4), (2, 7)):
            stages.insert(after, StageData("clear-dirty-log", iteration, 0, iteration * 300_000_000, counts(), 0))
    return run_data(
        [order_data(rng, rebuilds=0)],
        config=selftest_config("dirty-log-perf", "hugetlb-2m", 2048, 2 << 20),
        scenario="dirty-log-perf",
        stages=stages,
        life_cycle={"logging_enabled": 1, "logging_disabled": 1, "harvests": 2, "dirty_pages": 2 * pages},
    )


def migration(rng: np.random.Generator) -> RunData:
    """Twelve migrations, half of them cancelled, with the blocks rebuilt by vCPUs."""
    life_cycle = {
        "logging_enabled": 12,
        "logging_disabled": 12,
        "harvests": 31,
        "dirty_pages": 12_345,
        "copied_pages": 20_000,
        "migrations_completed": 6,
        "migrations_cancelled": 6,
    }
    order = vcpu_rebuilt(order_data(rng))
    order.cycles["recovery_ns"], order.cycles["recovery_faults"] = order.cycles["time_ns"] // 4, 9
    return run_data([order], scenario="migration", life_cycle=life_cycle)


def published(rng: np.random.Generator) -> RunData:
    """Unmap-first, block-first and clean-first without FWB, with the clean at a hundred times the tear-down."""
    orders = [order_data(rng, order) for order in (UNMAP_FIRST, BLOCK_FIRST, CLEAN_FIRST)]
    for order in orders:
        for index, step in enumerate(order.order.steps):
            ns = {Step.CLEAN: 130_000_000, Step.UNMAP: 1_300_000}.get(step, 1_000)
            order.rows["step_ns"][:, index] = ns
        order.rows["rebuild_ns"] = order.rows["step_ns"].sum(axis=1)
    return run_data(orders)


def version_5(document: dict[str, Any]) -> dict[str, Any]:
    """The document as schema version 5 had it."""
    old = copy.deepcopy(document)
    old["schema_version"] = 5
    for order in old["orders"]:
        del order["conflict_aborts"], order["lost_races"], order["yields"]
        for faults in (order["faults"], order["stall_by_class_ns"], *(vcpu["faults"] for vcpu in order["per_vcpu"])):
            del faults["conflict"]
    for stage in old.get("stages", ()):
        del stage["faults"]["conflict"]
    return old


def version_3(document: dict[str, Any]) -> dict[str, Any]:
    """The document as schema version 3 had it."""
    old = version_5(document)
    old["schema_version"] = 3
    del old["untested"]
    for found in old["violations"]:
        del found["by_rule"]
    old.pop("passes", None)
    for order in old["orders"]:
        del order["cycles"], order["restarts"]
    return old


def version_2(document: dict[str, Any]) -> dict[str, Any]:
    """The document as schema version 2 had it."""
    old = version_3(document)
    old["schema_version"] = 2
    del old["timeline"]
    for order in old["orders"]:
        del order["window_histogram"], order["stall_histogram"]
    return old


def version_1(document: dict[str, Any]) -> dict[str, Any]:
    """The document as schema version 1 had it, for a run of its one scenario."""
    old = version_2(document)
    old["schema_version"] = 1
    del old["scenario"]
    for order in old["orders"]:
        for key in ("vcpu_rebuilds", "faults_per_rebuild", "faults_by_level", "mappings"):
            del order[key]
        for faults in (order["faults"], order["stall_by_class_ns"], *(vcpu["faults"] for vcpu in order["per_vcpu"])):
            del faults["rebuild"], faults["retry"]
    return old
