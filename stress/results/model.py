"""A result document as typed attributes: one class per object of the document, one attribute per key.

`stress.results.keys` says what each key means; a test holds the two together. A document's list of orders is a mapping
by their names here, and what a document may lack is None, or empty.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict


class Part(BaseModel):
    """A part of a result: read, never changed. Later documents of this version may hold more than it knows."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class Quantiles(Part):
    """Times in ns; all None if ``count`` is 0."""

    count: int
    p50: int | None
    p90: int | None
    p99: int | None
    max: int | None


class Times(Quantiles):
    """`Quantiles` of times kept one by one, so that they have a mean, in ns."""

    mean: float | None


class Histogram(Part):
    """A distribution in log-spaced bins: bin i counts what took ``lower_ns[i]`` to just below ``upper_ns[i]``."""

    lower_ns: tuple[int, ...]
    upper_ns: tuple[int, ...]
    count: tuple[int, ...]


class Faults(Part):
    """Counts of faults by class."""

    window: int
    spurious: int
    population: int
    permission: int
    rebuild: int
    retry: int

    @property
    def total(self) -> int:
        """Faults of every class."""
        return self.window + self.spurious + self.population + self.permission + self.rebuild + self.retry


class Stalls(Part):
    """How long faults of each class stalled their vCPU."""

    window: Quantiles
    spurious: Quantiles
    population: Quantiles
    permission: Quantiles
    rebuild: Quantiles
    retry: Quantiles


class FaultsByLevel(Part):
    """Counts of faults at lookup levels 0 to 3, by the status that the walk met."""

    translation: tuple[int, ...]
    permission: tuple[int, ...]


class Mappings(Part):
    """What fault handlers did to the page table."""

    blocks: int
    pages: int
    relaxed: int
    splits: int


class MmuLock(Part):
    """Waiting for mmu_lock and holding it; totals in ns."""

    rebuilder_wait_ns: Times
    rebuilder_hold_ns: Times
    vcpu_acquisitions: int
    vcpu_wait_ns_total: int
    vcpu_hold_ns_total: int


class Tables(Part):
    """Counts of table pages."""

    allocated: int
    freed: int
    peak: int


class VcpuResult(Part):
    """One vCPU under one order."""

    vcpu: int
    accesses: int
    accesses_per_s: float | None
    writes: int
    tlb_hits: int
    walks: int
    redone: int
    faults: Faults
    lock_acquisitions: int
    lock_wait_ns: int
    lock_hold_ns: int


class OrderResult(Part):
    """What one order cost: its rebuilds, and the guest's accesses and faults meanwhile."""

    order: str
    description: str
    provenance: str
    steps: tuple[str, ...]
    cycles: int | None = None
    rebuilds: int
    restarts: int
    rebuilds_hit: int
    rebuilds_hit_share: float | None
    vcpu_rebuilds: int
    window_ns: Times
    window_histogram: Histogram | None = None
    rebuild_ns: Times
    step_ns: Mapping[str, Times]
    window_faults_per_rebuild: float | None
    faults_per_rebuild: float | None
    faults: Faults
    faults_by_level: FaultsByLevel | None = None
    mappings: Mappings | None = None
    stall_ns: Quantiles
    stall_by_class_ns: Stalls
    stall_histogram: Mapping[str, Histogram] | None = None
    mmu_lock: MmuLock
    accesses: int
    accesses_per_s: float | None
    accesses_per_s_outside: float | None
    accesses_per_s_inside: float | None
    outside_ns: int
    inside_ns: int
    writes: int
    tlb_hits: int
    walks: int
    redone: int
    tlbis: int
    mapped_share: float | None
    cleaned_bytes: int
    tables: Tables
    events_drained: int
    events_dropped: int
    per_vcpu: tuple[VcpuResult, ...]


class Ratio(Part):
    """An order's value over the baseline's, with its interval; ``reason`` says why something is None."""

    ratio: float | None
    low: float | None
    high: float | None
    baseline: float | None
    value: float | None
    reason: str | None = None


class Comparison(Part):
    """An order against the first one, by metric: window, rebuilds_hit_share, stall_p99, throughput, ..."""

    baseline: str
    order: str
    confidence: float
    ratios: Mapping[str, Ratio]


class Stage(Part):
    """One stage of a scenario that has stages, as the KVM selftests have."""

    name: str
    iteration: int
    repeat: int
    order: str | None = None
    duration_ns: int
    faults: Faults
    faults_by_level: FaultsByLevel
    mappings: Mappings
    rebuilds: int
    accesses: int


class Intervals(Part):
    """What all vCPUs did in one interval after the other."""

    start_ns: tuple[int, ...]
    duration_ns: tuple[int, ...]
    accesses: tuple[int, ...]
    faults: tuple[int, ...]


class RebuildTimes(Part):
    """When an order's rebuilds were: a bounded sample of them, in sequence."""

    order: str
    start_ns: tuple[int, ...]
    rebuild_ns: tuple[int, ...]
    window_ns: tuple[int | None, ...]


class Timeline(Part):
    """The run over time, from its first common access on."""

    intervals: Intervals
    rebuilds: tuple[RebuildTimes, ...]


class LifeCycle(Part):
    """Counts of what the guest lived through besides rebuilds."""

    logging_enabled: int = 0
    logging_disabled: int = 0
    harvests: int = 0
    dirty_pages: int = 0
    copied_pages: int = 0
    migrations_completed: int = 0
    migrations_cancelled: int = 0
    collapses: int = 0
    breakups: int = 0
    frames_moved: int = 0
    slot_moves: int = 0
    blocks_split_eagerly: int = 0
    tables_deferred: int = 0


class WarningFound(Part):
    """A reason to trust the result less, the case at hand, and what to do about it."""

    name: str
    detail: str
    remedy: str


class ViolationFound(Part):
    """An invariant that was broken, how often, and the evidence of the first cases."""

    kind: str
    count: int
    evidence: tuple[Mapping[str, Any], ...]
    by_rule: int | None = None


def _by_name(orders: Any) -> Any:
    return {each["order"]: each for each in orders} if isinstance(orders, list) else orders


class Injected(Part):
    """A bug put into the code on purpose, and how often it acted."""

    bug: str
    acted: int


class Document(Part):
    """The whole document. Times in ns, sizes in bytes, as each name says."""

    schema_version: int
    stress_version: str
    complete: bool
    verdict: Literal["correct", "violations", "broken", "interrupted", "nothing-tested"]
    exit_code: int
    failure: Mapping[str, Any] | None
    untested: tuple[str, ...]
    injected: Injected | None = None
    seed: int
    scenario: str
    config: Mapping[str, Any]
    config_hash: str
    host: Mapping[str, Any]
    started_at: str
    elapsed_ns: int
    start_up_ns: int
    memory: Mapping[str, Any]
    warnings: tuple[WarningFound, ...]
    violations: tuple[ViolationFound, ...]
    orders: Annotated[Mapping[str, OrderResult], BeforeValidator(_by_name)]
    extra: Mapping[str, Any]
    timeline: Timeline | None = None
    life_cycle: LifeCycle | None = None
    passes: int | None = None
    stages: tuple[Stage, ...] = ()
    comparison: tuple[Comparison, ...] = ()
