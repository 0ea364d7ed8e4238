"""What an executor hands over after a run: plain numbers, one record per order."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from stress.orders import MAX_STEPS, Order

#: Fault classes in the order of every ``(n_classes, ...)`` array below.
FAULT_CLASSES = ("window", "spurious", "population", "permission")

#: Per-vCPU counters in the order of ``OrderData.counters``' last axis.
COUNTERS = (
    "accesses",
    "writes",
    "tlb_hits",
    "walks",
    "redone",  # attempts thrown away because a TLBI was published meanwhile
    "lock_acquisitions",
    "lock_wait_ns",
    "lock_hold_ns",
    "window",
    "spurious",
    "population",
    "permission",
)

#: The window of a rebuild whose entry was still invalid when it ended.
NOT_MEASURED = -1

#: One row per rebuild. Times in ns; ``step_ns[i]`` belongs to ``order.steps[i]``.
REBUILD_ROW = np.dtype(
    [
        ("number", np.int64),  # run-wide rebuild number, from 1
        ("block", np.int64),  # index of the block in the memslot
        ("window_ns", np.int64),  # invalidate's store to install's store; 0 if never invalid, or NOT_MEASURED
        ("rebuild_ns", np.int64),  # first step's start to last step's end
        ("lock_wait_ns", np.int64),  # the rebuilder's wait for mmu_lock
        ("lock_hold_ns", np.int64),
        ("step_ns", np.int64, (MAX_STEPS,)),
        ("mapped_share", np.float64),  # of the block's pages, when its rebuild began
        ("window_faults", np.int64),  # window faults of this rebuild, all vCPUs
        ("cycle_ns", np.int64),  # split to end of the dwell on the block
        ("accesses", np.int64),  # committed accesses of all vCPUs in the cycle
    ]
)

#: One row per fault event drained from the rings.
STALL_ROW = np.dtype(
    [
        ("number", np.int64),  # rebuild number of the cycle in which the fault was taken
        ("fault_class", np.int64),  # index into FAULT_CLASSES
        ("stall_ns", np.int64),
        ("lock_wait_ns", np.int64),
    ]
)


@dataclass(slots=True)
class OrderData:
    """Everything measured for one order."""

    order: Order
    rebuilds: int  # completed rebuilds, exact
    rebuilds_hit: int  # rebuilds with at least one window fault, exact
    rows: npt.NDArray[Any]  # REBUILD_ROW: every rebuild, or a uniform sample of them in long runs
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


@dataclass(slots=True)
class Violation:
    """One kind of violation with its exact count and the first few pieces of evidence."""

    kind: str
    count: int
    evidence: list[dict[str, Any]]


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
