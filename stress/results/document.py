"""The JSON document of a run, built from what the executor measured.

`stress.results.schema` says what each key means. All values are plain JSON; a figure that was not measured is null.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from stress import __version__
from stress.executors import PREDICT
from stress.results.data import (
    COUNTERS,
    FAULT_CLASSES,
    INSIDE,
    LEVEL_COUNTERS,
    MAPPING_COUNTERS,
    NOT_MEASURED,
    OUTSIDE,
    OrderData,
    RunData,
    StageData,
)
from stress.results.parts import Part
from stress.results.ratios import CONFIDENCE, accesses_per_s, estimates, exact_ratios, ratios, stall_quantiles
from stress.results.schema import SCHEMA_VERSION, Counted, Document, OrderResult, Ran, Stage, VcpuResult, ViolationFound
from stress.results.statistics import of_counts, of_values, quantiles
from stress.results.warnings import warnings


def build(data: RunData) -> dict[str, Any]:
    """The whole document, schema version `SCHEMA_VERSION`. Rates and quantiles of nothing are None, never NaN."""
    config = plain(data.config)
    comparison = _comparison(data)
    found: dict[str, Any] = {
        **_as_measured(data, Ran),
        "schema_version": SCHEMA_VERSION,
        "stress_version": __version__,
        "verdict": _verdict(data),
        "config_hash": config_hash(config),
        "warnings": warnings(data, comparison),
        "violations": [_as_measured(each, ViolationFound) for each in data.violations],
        "orders": [_order(order) for order in data.orders],
        "timeline": timeline(data),
        "injected": None if data.acted is None else {"bug": str(config["inject"]), "acted": data.acted},
        "life_cycle": plain(data.life_cycle) or None,
        "passes": data.passes if data.stages else None,
        "stages": [_stage(stage) for stage in data.stages] or None,
        "comparison": comparison or None,
    }
    return _in_sequence(found, Document)


def _as_measured(data: object, kind: type[Part]) -> dict[str, Any]:
    """The keys of one class of the schema, with an executor's values as they are."""
    return {name: plain(getattr(data, name)) for name in kind.model_fields}


def _in_sequence(found: dict[str, Any], kind: type[Part]) -> dict[str, Any]:
    """The values of ``found`` in the schema's sequence; a key that a document may lack is left out, never null."""
    fields = kind.model_fields.items()
    return {name: found[name] for name, field in fields if field.is_required() or found.get(name) is not None}


def config_hash(config: dict[str, Any]) -> str:
    """Sixteen hexadecimal digits, equal for equal configurations whatever the order of their keys."""
    canonical = json.dumps(plain(config), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def plain(value: Any) -> Any:
    """``value`` in JSON's own types: numpy's, enums, tuples and paths converted, NaN is None."""
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Part):
        return {name: plain(item) for name, item in value}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    return str(value)


def _verdict(data: RunData) -> str:
    # A violation is never a false alarm, so it outweighs the way in which the run ended.
    if data.violations:
        return "violations"
    if data.failure is not None:
        return "broken"
    if data.complete and data.untested:
        return "nothing-tested"
    if not data.complete:
        return "interrupted"
    return "predicted" if data.executor == PREDICT else "correct"


def _per_s(count: int, time_ns: int) -> float | None:
    return count * 1e9 / time_ns if time_ns > 0 else None


def _quotient(part: int, whole: int) -> float | None:
    return part / whole if whole > 0 else None


def _by_name(counts: Any) -> dict[str, int]:
    """Counters, (n_counters,), by their names."""
    return dict(zip(COUNTERS, (int(count) for count in counts), strict=True))


def _handled(total: dict[str, int]) -> dict[str, Any]:
    """Faults by class, faults by the walk's status and level, and what their handlers did to the page table."""
    return {
        "faults": {name: total[name] for name in FAULT_CLASSES},
        "faults_by_level": {status: [total[name] for name in names] for status, names in LEVEL_COUNTERS.items()},
        "mappings": {name.removeprefix("mapped_"): total[name] for name in MAPPING_COUNTERS},
    }


def _stage(data: StageData) -> dict[str, Any]:
    total = _by_name(data.counters)
    given = {name: getattr(data, name) for name in ("name", "iteration", "repeat", "duration_ns", "rebuilds")}
    return _in_sequence({**total, **given, **_handled(total), "order": data.order or None}, Stage)


def _order(data: OrderData) -> dict[str, Any]:
    rows = data.rows
    counters = data.counters
    total = _by_name(counters.sum(axis=(0, 1)))
    handled = _handled(total)
    accesses = counters[:, :, COUNTERS.index("accesses")].sum(axis=0)
    time_ns = data.outside_ns + data.inside_ns
    windows = rows["window_ns"][rows["window_ns"] != NOT_MEASURED]
    found = {
        **total,
        **_as_measured(data, Counted),
        **handled,
        "order": data.order.name,
        "description": data.order.description,
        "provenance": data.order.provenance,
        "steps": [step.value for step in data.order.steps],
        "cycles": data.cycle_count,
        "rebuilds_hit_share": _quotient(data.rebuilds_hit, data.rebuilds),
        "vcpu_rebuilds": total["rebuild"],
        "conflict_aborts": total["conflict"],
        **_recovery(data),
        "window_ns": quantiles(windows),
        "window_histogram": of_values(windows),
        "rebuild_ns": quantiles(rows["rebuild_ns"]),
        "step_ns": {step.value: quantiles(rows["step_ns"][:, index]) for index, step in enumerate(data.order.steps)},
        "window_faults_per_rebuild": float(rows["window_faults"].mean()) if rows.size else None,
        "faults_per_rebuild": _quotient(sum(handled["faults"].values()), data.rebuilds),
        "stall_ns": stall_quantiles(data),
        "stall_by_class_ns": {name: stall_quantiles(data, name) for name in FAULT_CLASSES},
        "stall_histogram": {
            name: of_counts(data.stall_buckets_ns, counts)
            for name, counts in zip(FAULT_CLASSES, data.stall_counts, strict=True)
            if counts.any()
        },
        "mmu_lock": {
            "rebuilder_wait_ns": quantiles(rows["lock_wait_ns"]),
            "rebuilder_hold_ns": quantiles(rows["lock_hold_ns"]),
            "vcpu_acquisitions": total["lock_acquisitions"],
            "vcpu_wait_ns_total": total["lock_wait_ns"],
            "vcpu_hold_ns_total": total["lock_hold_ns"],
        },
        "accesses_per_s": accesses_per_s(data),
        "accesses_per_s_outside": _per_s(int(accesses[OUTSIDE]), data.outside_ns),
        "accesses_per_s_inside": _per_s(int(accesses[INSIDE]), data.inside_ns),
        "mapped_share": float(rows["mapped_share"].mean()) if len(rows) else None,
        "per_vcpu": [_vcpu(index, each, time_ns) for index, each in enumerate(counters.sum(axis=1))],
    }
    return _in_sequence(found, OrderResult)


def _recovery(data: OrderData) -> dict[str, Any]:
    """What followed dirty logging, if any stopped and left something to rebuild."""
    cycles = data.cycles[data.cycles["recovery_ns"] > 0]
    if not cycles.size:
        return {}
    return {
        "recovery_ns": quantiles(cycles["recovery_ns"]),
        "recovery_faults": float(cycles["recovery_faults"].mean()),
    }


def _vcpu(index: int, counts: Any, time_ns: int) -> dict[str, Any]:
    """One vCPU's counters, (n_counters,), over the order's time."""
    total = _by_name(counts)
    found = {**total, "vcpu": index, "accesses_per_s": _per_s(total["accesses"], time_ns)}
    return _in_sequence(found | {"faults": {name: total[name] for name in FAULT_CLASSES}}, VcpuResult)


def _comparison(data: RunData) -> list[dict[str, Any]]:
    """Every other order against the first; empty when there is nothing to compare."""
    if len(data.orders) < 2:
        return []
    # Independent draws for each order; the same run always gives the same intervals.
    seeds = np.random.SeedSequence(data.seed % 2**64).spawn(len(data.orders))
    measured = [
        (each.order.name, estimates(each, np.random.default_rng(seed)))
        for each, seed in zip(data.orders, seeds, strict=True)
    ]
    (baseline_name, baseline), *others = measured
    compared = exact_ratios if data.executor == PREDICT and data.stages else ratios
    return [
        {
            "baseline": baseline_name,
            "order": name,
            "confidence": CONFIDENCE,
            "ratios": compared(baseline_name, baseline, name, other),
        }
        for name, other in others
    ]


#: Rebuilds marked per order.
_MARKS: Final = 200


def timeline(data: RunData) -> dict[str, Any]:
    """Intervals as parallel lists, and of each order a sample of rebuilds in their sequence."""
    columns = ("start_ns", "duration_ns", "accesses", "faults")
    return {
        "intervals": {name: [int(getattr(each, name)) for each in data.intervals] for name in columns},
        "rebuilds": [_marks(order) for order in data.orders if order.rows.size],
    }


def _marks(order: OrderData) -> dict[str, Any]:
    rows = np.sort(order.rows, order="start_ns")
    chosen = rows[np.linspace(0, rows.size - 1, min(rows.size, _MARKS)).astype(np.int64)]
    windows = chosen["window_ns"].tolist()
    return {
        "order": order.order.name,
        "start_ns": chosen["start_ns"].tolist(),
        "rebuild_ns": chosen["rebuild_ns"].tolist(),
        "window_ns": [None if window == NOT_MEASURED else window for window in windows],
    }
