"""Every key of a result document, once: its type, unit and meaning, which documents have it, and what must agree.

A class per object of the document, an attribute per key. The attributes of `stress.Result`, the check of files, the
reference page, the selection by path and the columns shown by default are made of them. A list of orders is a mapping
by their names here, and a key that a document may lack is None, or empty.

A new key is one attribute here, and its value where it is measured: the values of `Ran` and `Counted` go from the
executor into the document as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Generic, Literal, TypeVar

from pydantic import BeforeValidator, ConfigDict, ValidationError, model_validator

from stress.backings import Backing
from stress.results.parts import (
    PARENTS,
    Flag,
    Free,
    Histogram,
    Int,
    Num,
    Parallel,
    Part,
    Quantiles,
    ResultKey,
    Text,
    Times,
    columns_of,
    defects,
    key,
    keys_of,
    wrong,
)

#: `since` tells what each version brought. Besides, version 4 has the verdict nothing-tested, and in 5 lock and unlock
#: are steps.
SCHEMA_VERSION: Final = 6

#: Metrics that are compared between orders: metric -> unit, and words for it.
RATIOS: Final = {
    "window": ("ns", "median invalid window"),
    "rebuilds_hit_share": ("", "share of rebuilds hit"),
    "window_faults_per_rebuild": ("", "window faults per rebuild"),
    "stall_p99": ("ns", "p99 of window faults' stalls"),
    "throughput": ("1/s", "accesses per second"),
}

T = TypeVar("T")


class ByClass(Part, Generic[T]):
    """One value per class of faults."""

    window: T = key("on an entry a rebuild had invalidated")
    spurious: T = key("whose handler found the mapping there")
    population: T = key("on pages that were not mapped")
    permission: T = key("on a write to a mapping without write permission")
    rebuild: T = key("whose handler rebuilt the block", since=2)
    retry: T = key("whose handler met a locked entry or a moving frame and went back to the guest", since=2)
    conflict: T = key("aborts: its TLB met the block and pages of it (FEAT_BBM level 2)", since=6)


class Faults(ByClass[Int]):
    """Counts of faults by class."""

    @property
    def total(self) -> int:
        """Faults of every class."""
        return (
            self.window + self.spurious + self.population + self.permission + self.rebuild + self.retry + self.conflict
        )


class FaultsByLevel(Part):
    """Counts of faults at lookup levels 0 to 3, by the status that the walk met."""

    translation: tuple[Int, Int, Int, Int] = key("translation faults at level 0 to 3")
    permission: tuple[Int, Int, Int, Int] = key("permission faults at level 0 to 3")


class Mappings(Part):
    """What fault handlers did to the page table."""

    blocks: Int = key("blocks that fault handlers mapped")
    pages: Int = key("pages that fault handlers mapped")
    relaxed: Int = key("entries that fault handlers made writable")
    splits: Int = key("blocks that fault handlers split")


class MmuLock(Part):
    """Waiting for mmu_lock and holding it; totals in ns."""

    rebuilder_wait_ns: Times = key("the rebuilder's wait for mmu_lock")
    rebuilder_hold_ns: Times = key("how long the rebuilder held mmu_lock")
    vcpu_acquisitions: Int = key("times vCPUs took mmu_lock")
    vcpu_wait_ns_total: Int = key("vCPUs' total time waiting for it")
    vcpu_hold_ns_total: Int = key("vCPUs' total time holding it")


class Tables(Part):
    """Counts of table pages."""

    allocated: Int = key("table pages allocated")
    freed: Int = key("table pages freed")
    peak: Int = key("most table pages in use at once")


class VcpuResult(Part):
    """One vCPU under one order."""

    vcpu: Int = key("number of the vCPU")
    accesses: Int = key("its checked accesses")
    accesses_per_s: Num | None = key("its accesses over the order's time")
    writes: Int = key("its accesses that were writes")
    tlb_hits: Int = key("its accesses translated by its TLB")
    walks: Int = key("its translation table walks")
    redone: Int = key("its attempts thrown away")
    faults: Faults = key("its faults")
    lock_acquisitions: Int = key("times it took mmu_lock")
    lock_wait_ns: Int = key("its time waiting for mmu_lock")
    lock_hold_ns: Int = key("its time holding mmu_lock")


class Named(Part):
    """The name and the steps of an order."""

    order: Text = key("the order's name")
    description: Text = key("what the order does, in one line")
    provenance: Text = key("kernel versions or posting the order comes from")
    steps: tuple[Text, ...] = key("the order's steps in sequence")


class Counted(Part):
    """The exact counts of an executor for one order."""

    model_config = ConfigDict(frozen=False)

    rebuilds: Int = key("completed rebuilds")
    restarts: Int = key("rebuilds begun anew: what they did before mmu_lock no longer held", since=5)
    yields: Int = key("times that a tear-down gave mmu_lock up for others", since=6)
    lost_races: Int | None = key(
        "rebuilds given up: another rebuilder changed the entry first (shared mmu_lock)", default=None, since=6
    )
    rebuilds_hit: Int = key("rebuilds with at least one window fault")
    outside_ns: Int = key("the order's time outside of rebuilds")
    inside_ns: Int = key("the order's time in which a rebuild ran, from having mmu_lock on")
    tlbis: Int = key("TLB invalidations issued")
    cleaned_bytes: Int = key("guest memory cleaned to the point of coherency")
    tables: Tables = key()
    events_drained: Int = key("fault events the collector read")
    events_dropped: Int = key("fault events lost because a ring was full")


class OrderResult(Counted, Named):
    """The costs of one order: its rebuilds, and the guest's accesses and faults meanwhile."""

    model_config = ConfigDict(frozen=True)

    cycles: Int | None = key("completed cycles of the scenario: what intervals rest on", default=None, since=4)
    vcpu_rebuilds: Int = key("rebuilds that a faulting vCPU did, not the hypervisor", since=2)
    conflict_aborts: Int = key("TLB conflict aborts of the vCPUs, each with a TLBI of its core", since=6)
    recovery_ns: Times | None = key(
        "end of dirty logging to the end of its cycle's last rebuild", default=None, sometimes=True, since=6
    )
    recovery_faults: Num | None = key(
        "mean faults of all vCPUs from the end of dirty logging to that of its cycle",
        default=None,
        sometimes=True,
        since=6,
    )
    window_ns: Times = key("invalid window, invalidating to installing store", column="p50")
    window_histogram: Histogram | None = key("invalid windows", default=None, since=3)
    rebuilds_hit_share: Num | None = key("rebuilds_hit over rebuilds, 0 to 1", column="")
    rebuild_ns: Times = key("whole rebuild, first step's start to last step's end")
    step_ns: Mapping[str, Times] = key("time of this step", each=".<step>")
    window_faults_per_rebuild: Num | None = key("mean number of window faults")
    faults_per_rebuild: Num | None = key("faults of every class over rebuilds", since=2)
    faults: Faults = key("all vCPUs' faults")
    faults_by_level: FaultsByLevel | None = key(default=None, since=2)
    mappings: Mappings | None = key(default=None, since=2)
    stall_ns: Quantiles = key("stall of a vCPU, faulting access to retry, all faults")
    stall_by_class_ns: ByClass[Quantiles] = key("stall of {} faults", column="window.p99")
    stall_histogram: Mapping[str, Histogram] | None = key(
        "stalls of this class of faults", each=".<class>", default=None, since=3
    )
    mmu_lock: MmuLock = key()
    accesses: Int = key("checked guest accesses of all vCPUs")
    accesses_per_s: Num | None = key("accesses over the order's time, all vCPUs", column="")
    accesses_per_s_outside: Num | None = key("the same outside of rebuilds")
    accesses_per_s_inside: Num | None = key("the same while a rebuild runs")
    writes: Int = key("accesses that were writes")
    tlb_hits: Int = key("accesses translated by the TLB")
    walks: Int = key("translation table walks")
    redone: Int = key("attempts thrown away because of a TLBI in their midst")
    mapped_share: Num | None = key("mean share of a block's pages mapped when its rebuild began")
    per_vcpu: tuple[VcpuResult, ...] = key()

    @model_validator(mode="after")
    def _times_of_its_steps(self) -> OrderResult:
        if set(self.step_ns) != set(self.steps):
            raise wrong("step_ns")
        if any(times.count != self.rebuild_ns.count for times in self.step_ns.values()):
            raise wrong("step_ns.<step>.count")
        return self


class Ratio(Part):
    """An order's value over the baseline's, with its interval; ``reason`` says why something is None."""

    ratio: Num | None = key("this order over the baseline", unit="", ge=0)
    low: Num | None = key("lower end of the ratio's interval", unit="", ge=0)
    high: Num | None = key("upper end of the ratio's interval; null if it has none", unit="", ge=0)
    baseline: Num | None = key("the baseline's value", unit=PARENTS, ge=0)
    value: Num | None = key("this order's value", unit=PARENTS, ge=0)
    reason: Text | None = key("why ratio, low or high is null", default=None, sometimes=True)


class Comparison(Part):
    """An order against the first one, by metric: window, rebuilds_hit_share, stall_p99, throughput, ..."""

    baseline: Text = key("the first order, which ratios refer to")
    order: Text = key("the order compared with it")
    confidence: Num = key("confidence of the intervals")
    ratios: Mapping[str, Ratio] = key(each=RATIOS)

    @model_validator(mode="after")
    def _every_ratio(self) -> Comparison:
        for name in RATIOS:
            if name not in self.ratios:
                raise wrong(f"ratios.{name}")
        return self


class Stage(Part):
    """One stage of a scenario that has stages, as the KVM selftests have."""

    name: Text = key("the stage's name, as the selftest calls it")
    iteration: Int = key("its iteration within the pass, from 1; 0 if none")
    repeat: Int = key("its pass over all stages, from 0")
    order: Text | None = key("the order the pass was under, if it was one alone", default=None, sometimes=True)
    duration_ns: Int = key("common start to the last vCPU's end")
    faults: Faults = key("all vCPUs' faults")
    faults_by_level: FaultsByLevel = key()
    mappings: Mappings = key()
    rebuilds: Int = key("rebuilds completed in the stage")
    accesses: Int = key("checked guest accesses of all vCPUs")


class Intervals(Parallel):
    """Accesses and faults of all vCPUs in one interval after the other."""

    start_ns: tuple[Int, ...] = key("start of each interval, since the run's first common access")
    duration_ns: tuple[Int, ...] = key("how long each interval was")
    accesses: tuple[Int, ...] = key("checked guest accesses of all vCPUs in each interval")
    faults: tuple[Int, ...] = key("faults of all vCPUs in each interval")


class RebuildTimes(Parallel):
    """Start and duration of an order's rebuilds: a bounded sample of them, in sequence."""

    order: Text = key("order of these rebuilds, a bounded sample in sequence")
    start_ns: tuple[Int, ...] = key("start of each, since the run's first common access")
    rebuild_ns: tuple[Int, ...] = key("how long each took")
    window_ns: tuple[Int | None, ...] = key("invalid window of each; null if it had no end")


class Timeline(Part):
    """The run over time, from its first common access on."""

    intervals: Intervals = key()
    rebuilds: tuple[RebuildTimes, ...] = key()


class LifeCycle(Part):
    """Counts of the scenario's events besides rebuilds."""

    logging_enabled: Int = key("times dirty logging was enabled on a memslot", default=0)
    logging_disabled: Int = key("times dirty logging was disabled on a memslot", default=0)
    harvests: Int = key("times the dirty bitmap was read and cleared", default=0)
    dirty_pages: Int = key("pages that all harvests found dirty", default=0)
    copied_pages: Int = key("pages that migrations copied", default=0)
    migrations_completed: Int = key("migrations completed, their copies compared to memory cell by cell", default=0)
    migrations_cancelled: Int = key("migrations cancelled midway", default=0)
    collapses: Int = key("ranges of pages that THP collapsed into one huge page", default=0)
    breakups: Int = key("huge pages that THP broke up", default=0)
    frames_moved: Int = key("frames that moved to another place", default=0)
    slot_moves: Int = key("memslots moved (KVM_MR_MOVE)", default=0)
    blocks_split_eagerly: Int = key("blocks split when dirty logging was enabled", default=0)
    tables_deferred: Int = key("table pages freed after a grace period", default=0)


class WarningFound(Part):
    """A reason to trust the result less, the case at hand, and what to do about it."""

    name: Text = key("reason to trust the result less, from a closed set")
    detail: Text = key("the case at hand")
    remedy: Text = key("what to do about it")


class ViolationFound(Part):
    """An invariant that was broken, how often, and the evidence of the first cases."""

    kind: Text = key("invariant that was broken")
    count: Int = key("how often, exactly")
    by_rule: Int | None = key("of these, where a step broke a rule", default=None, since=4)
    evidence: tuple[Free, ...] = key(
        "a first case: found by rule or access, process, IPA, level, step, time; of a store its entry, line, record"
    )


class Injected(Part):
    """A bug put into the code on purpose, and how often it acted."""

    bug: Text = key("bug that was put into the code; only with one")
    acted: Int = key("times that it changed what was done; rebuilds, if it is in the order")


class Ran(Part):
    """The values of an executor for the whole run."""

    model_config = ConfigDict(frozen=False)

    executor: Literal["live", "predict"] = key(
        "live: processes ran; predict: virtual time passed, and nothing was checked", default="live", sometimes=True
    )
    complete: Flag = key("false if the run was interrupted or broke")
    exit_code: Int = key("exit code of the run")
    failure: Free | None = key("the process that died or hung, and in which state; null if none did")
    untested: tuple[Text, ...] = key("evidence that a verdict needs and that is missing", since=4)
    seed: Int = key("seed of every random choice in the run")
    scenario: Text = key("what the hypervisor did: rebuild, migration, thp, or a selftest's name", since=2)
    config: Free = key("the run's configuration")
    host: Free = key("the machine and the software that ran it")
    started_at: Text = key("start of the run, ISO 8601, UTC")
    elapsed_ns: Int = key("the run's wall-clock time")
    start_up_ns: Int = key("process launch to the first guest access of the last vCPU")
    memory: Free = key("size of the shared segment and memory unique to each process", unit="bytes")
    extra: Free = key("what the executor adds of its own")


class Written(Part):
    """The first keys of a document."""

    schema_version: Int = key("version of this format; newer ones are refused")
    stress_version: Text = key("version of stress that wrote the document")
    verdict: Literal["correct", "violations", "broken", "interrupted", "nothing-tested", "predicted"] = key(
        "correct, violations (outweighs the rest), broken, interrupted, nothing-tested; or predicted: nobody looked"
    )
    config_hash: Text = key("16 hexadecimal digits, equal for equal configurations")


class StagedConfig(Part):
    """Keys of the configuration that tables of stages show; `stress.config` says what each means."""

    backing: Backing = key()
    granule_bytes: Int = key(ge=1)
    block_size_bytes: Int = key(ge=1)
    memory_bytes: Int = key(ge=1)
    phys_offset_bytes: Int = key()
    ipa_bits: Int = key()
    vcpus: Int = key()
    iterations: Int = key()


def _by_name(orders: Any) -> Any:
    if not isinstance(orders, list):
        return orders
    try:
        named = {each["order"]: each for each in orders}
    except (KeyError, TypeError):
        named = {}
    if len(named) < len(orders) or not all(isinstance(name, str) for name in named):
        raise wrong("[].order")
    return named


class Document(Ran, Written):
    """The whole document. Times in ns, sizes in bytes, as each name says."""

    model_config = ConfigDict(frozen=True)

    warnings: tuple[WarningFound, ...] = key()
    violations: tuple[ViolationFound, ...] = key()
    injected: Injected | None = key(default=None, sometimes=True, since=4)
    orders: Annotated[Mapping[str, OrderResult], BeforeValidator(_by_name)] = key(each="[]")
    comparison: tuple[Comparison, ...] = key(default=())
    passes: Int | None = key("passes over all stages begun, under each order", default=None, sometimes=True, since=4)
    stages: tuple[Stage, ...] = key(default=(), since=2)
    life_cycle: LifeCycle | None = key(default=None, sometimes=True, since=2)
    timeline: Timeline | None = key(default=None, since=3)

    @model_validator(mode="after")
    def _of_one_run(self) -> Document:
        if "comparison" in self.model_fields_set:
            first, *others = [*self.orders, ""]
            if [(each.baseline, each.order) for each in self.comparison] != [(first, name) for name in others[:-1]]:
                raise wrong("comparison[].order")
        if "stages" in self.model_fields_set:
            try:
                StagedConfig.model_validate(self.config)
            except ValidationError as error:
                raise wrong(f"config.{defects(StagedConfig, error)[0]}") from None
        return self


#: Every key, in the order of the documentation.
RESULT_KEYS: Final = tuple(keys_of(Document))

_BY_PATH: Final = {each.path: each for each in RESULT_KEYS}

#: Paths, below an order, of the keys that are shown of a sweep by default.
COLUMNS: Final = tuple(columns_of(OrderResult))


def find_key(path: str) -> ResultKey | None:
    """The key with this path, or None."""
    return _BY_PATH.get(path)
