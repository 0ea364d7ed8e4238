"""Registry of every key a result document may have: unit, type, meaning. Documentation comes from it.

A path joins keys with dots; ``[]`` stands for the elements of a list, ``<step>`` for any step's name, ``<class>``
for any fault class.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from stress.orders import STEPS


@dataclass(frozen=True, slots=True)
class ResultKey:
    """One leaf of the document. ``type`` is JSON's; ``number?`` may be null, ``object`` is free of form."""

    path: str
    type: str
    unit: str  # "" for counts, ratios and words
    meaning: str
    optional: bool = False  # absent from some documents
    since: int | None = None  # of an optional key: documents, or such parts of them, have it from this version on


def _quantiles(path: str, meaning: str, *, mean: bool = True) -> list[ResultKey]:
    keys = [ResultKey(f"{path}.count", "integer", "", f"{meaning}: how many")]
    if mean:
        keys.append(ResultKey(f"{path}.mean", "number?", "ns", f"{meaning}: mean"))
    for name, words in (("p50", "median"), ("p90", "90th percentile"), ("p99", "99th percentile")):
        keys.append(ResultKey(f"{path}.{name}", "integer?", "ns", f"{meaning}: {words}, nearest rank"))
    return [*keys, ResultKey(f"{path}.max", "integer?", "ns", f"{meaning}: longest")]


_FAULT_WORDS: Final = {
    "window": "on an entry a rebuild had invalidated",
    "spurious": "whose handler found the mapping there",
    "population": "on pages that were not mapped",
    "permission": "on a write to a mapping without write permission",
    "rebuild": "whose handler rebuilt the block",
    "retry": "whose handler met a locked entry or a moving frame and went back to the guest",
}


def _faults(path: str, whose: str, *, since: int | None = None) -> list[ResultKey]:
    return [
        ResultKey(f"{path}.{name}", "integer", "", f"{whose} faults {words}", since is not None, since)
        for name, words in _FAULT_WORDS.items()
    ]


def _handled(path: str) -> list[ResultKey]:
    """What all vCPUs' walks met, and what their handlers did; version 2 brought it."""
    return [
        *(
            ResultKey(f"{path}.faults_by_level.{status}[]", "integer", "", f"{status} faults at level 0 to 3", True, 2)
            for status in ("translation", "permission")
        ),
        ResultKey(f"{path}.mappings.blocks", "integer", "", "blocks that fault handlers mapped", True, 2),
        ResultKey(f"{path}.mappings.pages", "integer", "", "pages that fault handlers mapped", True, 2),
        ResultKey(f"{path}.mappings.relaxed", "integer", "", "entries that fault handlers made writable", True, 2),
        ResultKey(f"{path}.mappings.splits", "integer", "", "blocks that fault handlers split", True, 2),
    ]


def _histogram(path: str, meaning: str) -> list[ResultKey]:
    """Version 3 brought them; one of nothing is empty."""
    return [
        ResultKey(f"{path}.lower_ns[]", "integer", "ns", f"{meaning}: least time of each log-spaced bin", True, 3),
        ResultKey(f"{path}.upper_ns[]", "integer", "ns", f"{meaning}: first time beyond each bin", True, 3),
        ResultKey(
            f"{path}.count[]", "integer", "", f"{meaning}: how many in each bin; empty bins are left out", True, 3
        ),
    ]


#: What is compared between orders: unit, and words for it.
RATIOS: Final = {
    "window": ("ns", "median invalid window"),
    "rebuilds_hit_share": ("", "share of rebuilds hit"),
    "window_faults_per_rebuild": ("", "window faults per rebuild"),
    "stall_p99": ("ns", "p99 of window faults' stalls"),
    "throughput": ("1/s", "accesses per second"),
}


def _ratio(metric: str, unit: str, meaning: str) -> list[ResultKey]:
    path = f"comparison[].ratios.{metric}"
    return [
        ResultKey(f"{path}.ratio", "number?", "", f"{meaning}: this order over the baseline"),
        ResultKey(f"{path}.low", "number?", "", "lower end of the ratio's interval"),
        ResultKey(f"{path}.high", "number?", "", "upper end of the ratio's interval; null if it has none"),
        ResultKey(f"{path}.baseline", "number?", unit, f"{meaning}: the baseline's value"),
        ResultKey(f"{path}.value", "number?", unit, f"{meaning}: this order's value"),
        ResultKey(f"{path}.reason", "string", "", "why ratio, low or high is null", optional=True),
    ]


_RUN: Final = [
    ResultKey("schema_version", "integer", "", "version of this format; newer ones are refused"),
    ResultKey("stress_version", "string", "", "version of stress that wrote the document"),
    ResultKey("complete", "boolean", "", "false if the run was interrupted or broke"),
    ResultKey(
        "verdict", "string", "", "correct, violations (outweighs the rest), broken, interrupted or nothing-tested"
    ),
    ResultKey("exit_code", "integer", "", "exit code of the run"),
    ResultKey("failure", "object?", "", "who died or hung, and in which state; null if nobody did"),
    ResultKey("untested[]", "string", "", "evidence that a verdict needs and that is missing"),
    ResultKey("injected.bug", "string", "", "bug that was put into the code; only with one", True, 4),
    ResultKey(
        "injected.acted",
        "integer",
        "",
        "times that it changed what was done; rebuilds, if it is in the order",
        True,
        4,
    ),
    ResultKey("seed", "integer", "", "seed of every random choice in the run"),
    ResultKey("scenario", "string", "", "what the hypervisor did: rebuild, migration, thp, or a selftest's name"),
    ResultKey("config", "object", "", "the run's configuration"),
    ResultKey("config_hash", "string", "", "16 hexadecimal digits, equal for equal configurations"),
    ResultKey("host", "object", "", "the machine and the software that ran it"),
    ResultKey("started_at", "string", "", "start of the run, ISO 8601, UTC"),
    ResultKey("elapsed_ns", "integer", "ns", "the run's wall-clock time"),
    ResultKey("start_up_ns", "integer", "ns", "process launch to the first guest access of the last vCPU"),
    ResultKey("memory", "object", "bytes", "size of the shared segment and memory unique to each process"),
    ResultKey("warnings[].name", "string", "", "reason to trust the result less, from a closed set"),
    ResultKey("warnings[].detail", "string", "", "the case at hand"),
    ResultKey("warnings[].remedy", "string", "", "what to do about it"),
    ResultKey("violations[].kind", "string", "", "invariant that was broken"),
    ResultKey("violations[].count", "integer", "", "how often, exactly"),
    ResultKey("violations[].by_rule", "integer?", "", "of these, where a step broke a rule; null before version 4"),
    ResultKey(
        "violations[].evidence[]",
        "object",
        "",
        "a first case: found by rule or access, process, IPA, level, step, time; of a store its entry, line, record",
    ),
    ResultKey("extra", "object", "", "what the executor adds of its own"),
]

_TIMELINE: Final = [
    ResultKey(f"timeline.{path}", kind, unit, meaning, optional=True, since=3)
    for path, kind, unit, meaning in (
        ("intervals.start_ns[]", "integer", "ns", "start of each interval, since the run's first common access"),
        ("intervals.duration_ns[]", "integer", "ns", "how long each interval was"),
        ("intervals.accesses[]", "integer", "", "checked guest accesses of all vCPUs in each interval"),
        ("intervals.faults[]", "integer", "", "faults of all vCPUs in each interval"),
        ("rebuilds[].order", "string", "", "order of these rebuilds, a bounded sample in sequence"),
        ("rebuilds[].start_ns[]", "integer", "ns", "start of each, since the run's first common access"),
        ("rebuilds[].rebuild_ns[]", "integer", "ns", "how long each took"),
        ("rebuilds[].window_ns[]", "integer?", "ns", "invalid window of each; null if it had no end"),
    )
]

_LIFE_CYCLE: Final = [
    ResultKey(f"life_cycle.{name}", "integer", "", meaning, optional=True)
    for name, meaning in (
        ("logging_enabled", "times dirty logging was enabled on a memslot"),
        ("logging_disabled", "times dirty logging was disabled on a memslot"),
        ("harvests", "times the dirty bitmap was read and cleared"),
        ("dirty_pages", "pages that all harvests found dirty"),
        ("copied_pages", "pages that migrations copied"),
        ("migrations_completed", "migrations completed, their copies compared to memory cell by cell"),
        ("migrations_cancelled", "migrations cancelled midway"),
        ("collapses", "ranges of pages that THP collapsed into one huge page"),
        ("breakups", "huge pages that THP broke up"),
        ("frames_moved", "frames that moved to another place"),
        ("slot_moves", "memslots moved (KVM_MR_MOVE)"),
        ("blocks_split_eagerly", "blocks split when dirty logging was enabled"),
        ("tables_deferred", "table pages freed after a grace period"),
    )
]

_STAGE: Final = [
    ResultKey("passes", "integer", "", "passes over all stages begun, under each order", optional=True),
    ResultKey("stages[].name", "string", "", "the stage's name, as the selftest calls it", optional=True, since=2),
    ResultKey(
        "stages[].iteration", "integer", "", "its iteration within the pass, from 1; 0 if none", optional=True, since=2
    ),
    ResultKey("stages[].repeat", "integer", "", "its pass over all stages, from 0", optional=True, since=2),
    ResultKey("stages[].order", "string", "", "the order the pass was under, if it was one alone", optional=True),
    ResultKey("stages[].duration_ns", "integer", "ns", "common start to the last vCPU's end", optional=True, since=2),
    *_faults("stages[].faults", "all vCPUs'", since=2),
    *_handled("stages[]"),
    ResultKey("stages[].rebuilds", "integer", "", "rebuilds completed in the stage", optional=True, since=2),
    ResultKey("stages[].accesses", "integer", "", "checked guest accesses of all vCPUs", optional=True, since=2),
]

_ORDER: Final = [
    ResultKey("orders[].order", "string", "", "the order's name"),
    ResultKey("orders[].description", "string", "", "what the order does, in one line"),
    ResultKey("orders[].provenance", "string", "", "kernel versions or posting the order comes from"),
    ResultKey("orders[].steps[]", "string", "", "the order's steps in sequence"),
    ResultKey(
        "orders[].cycles",
        "integer",
        "",
        "completed cycles of the scenario: what intervals rest on",
        optional=True,
        since=4,
    ),
    ResultKey("orders[].rebuilds", "integer", "", "completed rebuilds"),
    ResultKey("orders[].restarts", "integer", "", "rebuilds begun anew: what they did before mmu_lock no longer held"),
    ResultKey("orders[].rebuilds_hit", "integer", "", "rebuilds with at least one window fault"),
    ResultKey("orders[].rebuilds_hit_share", "number?", "", "rebuilds_hit over rebuilds, 0 to 1"),
    ResultKey("orders[].vcpu_rebuilds", "integer", "", "rebuilds that a faulting vCPU did, not the hypervisor"),
    *_quantiles("orders[].window_ns", "invalid window, invalidating to installing store"),
    *_histogram("orders[].window_histogram", "invalid windows"),
    *_quantiles("orders[].rebuild_ns", "whole rebuild, first step's start to last step's end"),
    *_quantiles("orders[].step_ns.<step>", "time of this step"),
    ResultKey("orders[].window_faults_per_rebuild", "number?", "", "mean number of window faults"),
    ResultKey("orders[].faults_per_rebuild", "number?", "", "faults of every class over rebuilds"),
    *_faults("orders[].faults", "all vCPUs'"),
    *_handled("orders[]"),
    *_quantiles("orders[].stall_ns", "stall of a vCPU, faulting access to retry, all faults", mean=False),
    *(
        key
        for name in _FAULT_WORDS
        for key in _quantiles(f"orders[].stall_by_class_ns.{name}", f"stall of {name} faults", mean=False)
    ),
    *_histogram("orders[].stall_histogram.<class>", "stalls of this class of faults"),
    *_quantiles("orders[].mmu_lock.rebuilder_wait_ns", "the rebuilder's wait for mmu_lock"),
    *_quantiles("orders[].mmu_lock.rebuilder_hold_ns", "how long the rebuilder held mmu_lock"),
    ResultKey("orders[].mmu_lock.vcpu_acquisitions", "integer", "", "times vCPUs took mmu_lock"),
    ResultKey("orders[].mmu_lock.vcpu_wait_ns_total", "integer", "ns", "vCPUs' total time waiting for it"),
    ResultKey("orders[].mmu_lock.vcpu_hold_ns_total", "integer", "ns", "vCPUs' total time holding it"),
    ResultKey("orders[].accesses", "integer", "", "checked guest accesses of all vCPUs"),
    ResultKey("orders[].accesses_per_s", "number?", "1/s", "accesses over the order's time, all vCPUs"),
    ResultKey("orders[].accesses_per_s_outside", "number?", "1/s", "the same outside of rebuilds"),
    ResultKey("orders[].accesses_per_s_inside", "number?", "1/s", "the same while a rebuild runs"),
    ResultKey("orders[].outside_ns", "integer", "ns", "the order's time outside of rebuilds"),
    ResultKey(
        "orders[].inside_ns", "integer", "ns", "the order's time in which a rebuild ran, from having mmu_lock on"
    ),
    ResultKey("orders[].writes", "integer", "", "accesses that were writes"),
    ResultKey("orders[].tlb_hits", "integer", "", "accesses translated by the TLB"),
    ResultKey("orders[].walks", "integer", "", "translation table walks"),
    ResultKey("orders[].redone", "integer", "", "attempts thrown away because of a TLBI in their midst"),
    ResultKey("orders[].tlbis", "integer", "", "TLB invalidations issued"),
    ResultKey("orders[].mapped_share", "number?", "", "mean share of a block's pages mapped when its rebuild began"),
    ResultKey("orders[].cleaned_bytes", "integer", "bytes", "guest memory cleaned to the point of coherency"),
    ResultKey("orders[].tables.allocated", "integer", "", "table pages allocated"),
    ResultKey("orders[].tables.freed", "integer", "", "table pages freed"),
    ResultKey("orders[].tables.peak", "integer", "", "most table pages in use at once"),
    ResultKey("orders[].events_drained", "integer", "", "fault events the collector read"),
    ResultKey("orders[].events_dropped", "integer", "", "fault events lost because a ring was full"),
    ResultKey("orders[].per_vcpu[].vcpu", "integer", "", "number of the vCPU"),
    ResultKey("orders[].per_vcpu[].accesses", "integer", "", "its checked accesses"),
    ResultKey("orders[].per_vcpu[].accesses_per_s", "number?", "1/s", "its accesses over the order's time"),
    ResultKey("orders[].per_vcpu[].writes", "integer", "", "its accesses that were writes"),
    ResultKey("orders[].per_vcpu[].tlb_hits", "integer", "", "its accesses translated by its TLB"),
    ResultKey("orders[].per_vcpu[].walks", "integer", "", "its translation table walks"),
    ResultKey("orders[].per_vcpu[].redone", "integer", "", "its attempts thrown away"),
    *_faults("orders[].per_vcpu[].faults", "its"),
    ResultKey("orders[].per_vcpu[].lock_acquisitions", "integer", "", "times it took mmu_lock"),
    ResultKey("orders[].per_vcpu[].lock_wait_ns", "integer", "ns", "its time waiting for mmu_lock"),
    ResultKey("orders[].per_vcpu[].lock_hold_ns", "integer", "ns", "its time holding mmu_lock"),
]

_COMPARISON: Final = [
    ResultKey("comparison[].baseline", "string", "", "the first order, which ratios refer to"),
    ResultKey("comparison[].order", "string", "", "the order compared with it"),
    ResultKey("comparison[].confidence", "number", "", "confidence of the intervals"),
    *(key for metric, (unit, words) in RATIOS.items() for key in _ratio(metric, unit, words)),
]

#: What of the configuration a document with stages is shown with. (`stress.config` says what each means.)
STAGED_CONFIG: Final = (
    ResultKey("config.backing", "string", "", "backing of guest memory"),
    *(
        ResultKey(f"config.{name}", "integer", "bytes", "a size, more than 0")
        for name in ("granule_bytes", "block_size_bytes", "memory_bytes")
    ),
    ResultKey("config.phys_offset_bytes", "integer", "bytes", "where guest memory begins"),
    *(ResultKey(f"config.{name}", "integer", "", "a count") for name in ("ipa_bits", "vcpus", "iterations")),
)

#: Every key, in the order of the documentation.
RESULT_KEYS: Final = (*_RUN, *_TIMELINE, *_LIFE_CYCLE, *_STAGE, *_ORDER, *_COMPARISON)

_BY_PATH: Final = {key.path: key for key in RESULT_KEYS}
_OBJECTS: Final = frozenset(key.path for key in RESULT_KEYS if key.type.startswith("object"))


def leaves(document: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every (path, value) of a document; free-form objects are leaves, empty lists have none."""
    if path in _OBJECTS:
        yield path, document
    elif isinstance(document, dict):
        for key, value in document.items():
            name = "<step>" if path.endswith("step_ns") and key in STEPS else key
            name = "<class>" if path.endswith("stall_histogram") and key in _FAULT_WORDS else name
            yield from leaves(value, f"{path}.{name}" if path else name)
    elif isinstance(document, list):
        for value in document:
            yield from leaves(value, f"{path}[]")
    else:
        yield path, document


def find_key(path: str) -> ResultKey | None:
    """The registered key of a path that `leaves` yields, or None."""
    return _BY_PATH.get(path)
