"""What an executor hands over after a run: plain numbers, one record per order."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from stress.orders import MAX_STEPS, Order
from stress.results.trace import TraceData

#: Fault classes in the order of every ``(n_classes, ...)`` array below.
FAULT_CLASSES = (
    "window",  # the walk met an entry that a rebuild had invalidated
    "spurious",  # once the handler held mmu_lock, the mapping was there
    "population",  # nothing was mapped
    "permission",  # mapped without write permission: the handler relaxed it, or split its block
    "rebuild",  # the handler rebuilt the block
    "retry",  # the handler met a locked entry or a moving frame, and went back to the guest
)

#: Levels of a stage-2 lookup, 0 to 3.
LEVELS = 4

#: Faults by status and lookup level as the vCPU's walk met them, all classes.
LEVEL_COUNTERS = {
    status: tuple(f"{status}_l{level}" for level in range(LEVELS)) for status in ("translation", "permission")
}

#: What fault handlers did to the page table.
MAPPING_COUNTERS = ("mapped_blocks", "mapped_pages", "relaxed", "splits")

#: Per-vCPU counters in the order of the last axis of ``OrderData.counters`` and ``StageData.counters``.
COUNTERS = (
    "accesses",
    "writes",
    "tlb_hits",
    "walks",
    "redone",  # attempts thrown away because a TLBI was published meanwhile
    "lock_acquisitions",
    "lock_wait_ns",
    "lock_hold_ns",
    *FAULT_CLASSES,
    *MAPPING_COUNTERS,
    *LEVEL_COUNTERS["translation"],
    *LEVEL_COUNTERS["permission"],
)

#: What a guest's life cycle holds besides rebuilds: the keys of ``RunData.life_cycle``, all optional.
LIFE_CYCLE = (
    "logging_enabled",  # dirty logging switched on for a memslot
    "logging_disabled",
    "harvests",  # dirty bitmap read and cleared
    "dirty_pages",  # pages that all harvests found dirty
    "copied_pages",  # pages that migrations copied
    "migrations_completed",  # each with its copy compared to memory, cell by cell
    "migrations_cancelled",
    "collapses",  # THP: pages moved into one huge page
    "breakups",  # THP: a huge page broken up, its range unmapped
    "frames_moved",
    "slot_moves",  # KVM_MR_MOVE
    "blocks_split_eagerly",
    "tables_deferred",  # table pages freed after a grace period
)

#: The window of a rebuild whose entry was still invalid when it ended.
NOT_MEASURED = -1

#: One row per rebuild. Times in ns; ``step_ns[i]`` belongs to ``order.steps[i]``.
REBUILD_ROW = np.dtype(
    [
        ("number", np.int64),  # run-wide rebuild number, from 1
        ("cycle", np.int64),  # run-wide number of the cycle in which it began, from 1
        ("block", np.int64),  # index of the block in the memslot
        ("start_ns", np.int64),  # first step's start, since the run's first common access
        ("window_ns", np.int64),  # invalidate's store to install's store; 0 if never invalid, or NOT_MEASURED
        ("rebuild_ns", np.int64),  # first step's start to last step's end
        ("lock_wait_ns", np.int64),  # the rebuilder's wait for mmu_lock
        ("lock_hold_ns", np.int64),
        ("step_ns", np.int64, (MAX_STEPS,)),
        ("mapped_share", np.float64),  # of the block's pages, when its rebuild began
        ("window_faults", np.int64),  # window faults of this rebuild, all vCPUs
    ]
)

#: One row per cycle of a scenario: a block split and rebuilt, a migration, a pass over all stages. What happened in one
#: cycle has much in common; cycles have not, and so they are what statistics resample.
CYCLE_ROW = np.dtype(
    [
        ("number", np.int64),  # run-wide, from 1; cycles of several orders take turns
        ("time_ns", np.int64),
        ("accesses", np.int64),  # committed accesses of all vCPUs
    ]
)

#: One row per fault event drained from the rings.
STALL_ROW = np.dtype(
    [
        ("cycle", np.int64),  # number of the cycle in which it was taken; a window fault's is its rebuild's
        ("fault_class", np.int64),  # index into FAULT_CLASSES
        ("stall_ns", np.int64),
        ("lock_wait_ns", np.int64),
    ]
)


@dataclass(slots=True)
class OrderData:
    """Everything measured for one order."""

    order: Order
    cycle_count: int  # completed cycles, exact
    rebuilds: int  # completed rebuilds, exact
    restarts: int  # rebuilds begun anew after mmu_lock was taken, exact
    rebuilds_hit: int  # rebuilds with at least one window fault, exact
    rows: npt.NDArray[Any]  # REBUILD_ROW: every rebuild, or a uniform sample of them in long runs
    cycles: npt.NDArray[Any]  # CYCLE_ROW: every cycle, or a uniform sample of them in long runs
    stalls: npt.NDArray[Any]  # STALL_ROW: drained events, or a uniform sample of them in long runs
    stall_buckets_ns: npt.NDArray[np.int64]  # (n_buckets,) lower edge of each histogram bucket
    stall_counts: npt.NDArray[np.int64]  # (n_classes, n_buckets) exact counts of all faults
    stall_max_ns: int
    counters: npt.NDArray[np.int64]  # (n_vcpus, 2, n_counters): [:, 0] outside, [:, 1] inside rebuilds
    outside_ns: int  # time in this order's cycles outside of rebuilds
    inside_ns: int  # time inside rebuilds
    tlbis: int
    cleaned_bytes: int
    tables_allocated: int
    tables_freed: int
    tables_peak: int
    events_drained: int
    events_dropped: int


@dataclass(frozen=True, slots=True)
class Interval:
    """What all vCPUs did in a stretch of the run."""

    start_ns: int  # since the run's first common access
    duration_ns: int
    accesses: int
    faults: int


@dataclass(slots=True)
class StageData:
    """One stage of a staged scenario: from the vCPUs' common start to the last one's end."""

    name: str  # as the selftest calls it: "KVM_CREATE_MAPPINGS"; else "populate", "enable", ...
    iteration: int  # of a stage that repeats within a pass, from 1; 0 if it does not
    repeat: int  # the pass over all stages, from 0
    duration_ns: int
    counters: npt.NDArray[np.int64]  # (n_counters,) of all vCPUs within the stage
    rebuilds: int
    order: str = ""  # name of the order that the pass was under; "" if all orders of the run shared the pass


@dataclass(slots=True)
class Violation:
    """One kind of violation with its exact count and the first few pieces of evidence."""

    kind: str
    count: int
    evidence: list[dict[str, Any]]
    by_rule: int = (
        0  # of ``count``: a step broke a rule; in the others an access, a walk or an audit met the consequence
    )


@dataclass(slots=True)
class RunData:
    """A whole run, complete or cut short."""

    complete: bool
    exit_code: int
    seed: int
    config: dict[str, Any]  # the run's configuration as plain JSON values
    host: dict[str, Any]
    warnings: list[tuple[str, str]]  # (warning name, detail)
    orders: list[OrderData]
    violations: list[Violation]
    started_at: str  # ISO 8601, UTC
    elapsed_ns: int
    start_up_ns: int  # process launch to the first guest access of the last vCPU
    memory: dict[str, Any]  # segment_bytes, unique_bytes per process
    failure: dict[str, Any] | None = None  # who died or hung, in which state
    extra: dict[str, Any] = field(default_factory=dict)
    scenario: str = "rebuild"
    stages: list[StageData] = field(default_factory=list)  # of all passes, or of every 2nd, 4th, ... one
    passes: int = 0  # begun, under each order
    life_cycle: dict[str, int] = field(default_factory=dict)
    intervals: list[Interval] = field(default_factory=list)
    trace: TraceData | None = None  # if one was asked for
    acted: int | None = None  # times that the injected bug acted; None without one
    untested: list[str] = field(default_factory=list)  # evidence that a verdict needs and that is missing
