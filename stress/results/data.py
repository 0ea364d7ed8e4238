"""The data that an executor hands over after a run: plain numbers, a record per order, and a trace."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import Field, GetPydanticSchema
from pydantic_core.core_schema import any_schema

from stress.orders import MAX_STEPS, Order
from stress.results.schema import Counted, Faults, Ran

T = TypeVar("T")
#: A field that is taken as it is.
AsIs = Annotated[T, GetPydanticSchema(lambda kind, handler: any_schema())]

#: Fault classes in the order of every ``(n_classes, ...)`` array below.
FAULT_CLASSES = tuple(Faults.model_fields)

#: Levels of a stage-2 lookup, 0 to 3.
LEVELS = 4

#: Faults by status and lookup level as the vCPU's walk met them, all classes.
LEVEL_COUNTERS = {
    status: tuple(f"{status}_l{level}" for level in range(LEVELS)) for status in ("translation", "permission")
}

#: Counts of what fault handlers did to the page table.
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

#: Second axis of ``OrderData.counters``.
OUTSIDE, INSIDE = 0, 1

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

#: One row per cycle of a scenario: a block split and rebuilt, a migration, a pass over all stages. Events of one cycle
#: depend on each other, cycles do not: so statistics resample cycles.
CYCLE_ROW = np.dtype(
    [
        ("number", np.int64),  # run-wide, from 1; cycles of several orders take turns
        ("time_ns", np.int64),
        ("accesses", np.int64),  # committed accesses of all vCPUs
        ("recovery_ns", np.int64),  # end of dirty logging to the end of the last rebuild; 0 if there was none
        ("recovery_faults", np.int64),  # of all vCPUs from then to the end of the cycle
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


class OrderData(Counted):
    """Everything measured for one order."""

    order: AsIs[Order]
    cycle_count: int  # completed cycles, exact
    rows: AsIs[npt.NDArray[Any]]  # REBUILD_ROW: every rebuild, or a uniform sample of them in long runs
    cycles: AsIs[npt.NDArray[Any]]  # CYCLE_ROW: every cycle, or a uniform sample of them in long runs
    stalls: AsIs[npt.NDArray[Any]]  # STALL_ROW: drained events, or a uniform sample of them in long runs
    stall_buckets_ns: AsIs[npt.NDArray[np.int64]]  # (n_buckets,) lower edge of each histogram bucket
    stall_counts: AsIs[npt.NDArray[np.int64]]  # (n_classes, n_buckets) exact counts of all faults
    stall_max_ns: int
    counters: AsIs[npt.NDArray[np.int64]]  # (n_vcpus, 2, n_counters): OUTSIDE and INSIDE rebuilds


@dataclass(frozen=True, slots=True)
class Interval:
    """Accesses and faults of all vCPUs in a stretch of the run."""

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


class RunData(Ran):
    """A whole run, complete or cut short."""

    failure: Mapping[str, Any] | None = None
    untested: tuple[str, ...] = ()
    scenario: str = "rebuild"
    extra: Mapping[str, Any] = {}
    warnings: AsIs[list[tuple[str, str]]]  # (name, detail) of those that only the executor can tell
    orders: AsIs[list[OrderData]]
    violations: AsIs[list[Violation]]
    stages: AsIs[list[StageData]] = Field(default_factory=list)  # of all passes, or of every 2nd, 4th, ... one
    passes: int = 0  # begun, under each order
    life_cycle: AsIs[dict[str, int]] = Field(default_factory=dict)
    intervals: AsIs[list[Interval]] = Field(default_factory=list)
    trace: AsIs[TraceData | None] = None  # if one was asked for
    acted: int | None = None  # times that the injected bug acted; None without one


class TraceRequest(NamedTuple):
    """The extent of the trace that is asked for."""

    rebuilds: int  # the trace ends with this rebuild
    changes: bool  # every change of the page table, not only rebuilds and faults


class TableShape(NamedTuple):
    """The page table as addresses see it."""

    granule_shift: int
    index_bits: int
    start_level: int
    root_pages: int  # concatenated at the start level: the first pages of the pool
    table_pages: int
    tables_pa: int  # physical address of the pool's first page


#: One row per rebuild; clock times in ns, 0 for what did not happen.
TRACED_REBUILD = np.dtype(
    [
        ("number", np.int64),
        ("order", np.int64),  # index of its order
        ("ipa", np.int64),
        ("who", np.int64),  # process number of the rebuilder; vCPUs first, then the hypervisor
        ("requested_ns", np.int64),
        ("locked_ns", np.int64),
        ("unlocked_ns", np.int64),
        ("start_ns", np.int64),  # of the first step
        ("end_ns", np.int64),  # of the last
        ("invalid_ns", np.int64),
        ("valid_ns", np.int64),
        ("window_faults", np.int64),
        ("step_ns", np.int64, (MAX_STEPS,)),  # duration of each step
    ]
)

#: One row per fault.
TRACED_FAULT = np.dtype(
    [
        ("vcpu", np.int64),
        ("time_ns", np.int64),  # clock
        ("ipa", np.int64),
        ("stall_ns", np.int64),
        ("lock_wait_ns", np.int64),
        ("number", np.int64),  # the rebuild whose window it fell into, or 0
        ("fault_class", np.int64),  # index into FAULT_CLASSES
        ("level", np.int64),
        ("write", np.int64),
    ]
)


@dataclass(slots=True)
class TraceData:
    """A trace; everything in it happened before ``end_ns``. ``cut`` says why it is shorter than the one asked for.

    ``beyond`` names the limits of casemate, the checker that ``changes`` are written for, which the trace exceeds.
    """

    orders: tuple[Order, ...]
    exit_ns: int  # what a vCPU's exit costs before it asks for mmu_lock
    guest_ns: list[int]  # clock at each vCPU's first access, 0 if it made none
    end_ns: int  # clock
    rebuilds: npt.NDArray[Any]  # TRACED_REBUILD, by number
    faults: npt.NDArray[Any]  # TRACED_FAULT, per vCPU in the order of time
    shape: TableShape
    changes: npt.NDArray[np.int64]  # rows of region "trace", in the order in which it all happened
    waits: bool = True  # whether a DSB follows every TLBI; not with the injected bug missing-dsb
    slowed: bool = False  # whether each change of the page table was written down as it happened
    cut: str = ""
    beyond: str = ""
