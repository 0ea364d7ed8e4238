"""Documents of earlier schema versions in the shape of the present one."""

from __future__ import annotations

from typing import Any, Final

from stress.orders import SPELLINGS

_NOTHING: Final = {"count": 0, "p50": None, "p90": None, "p99": None, "max": None}


def upgraded(document: dict[str, Any]) -> dict[str, Any]:
    """``document``, changed in place: values that its version implies are filled in, figures it lacks stay absent.

    Distributions and the timeline came with version 3; earlier documents have none. ``schema_version`` stays that of
    the document. Raises KeyError, TypeError or AttributeError if it is no document of its version.
    """
    if document["schema_version"] == 1:
        _from_1(document)
    if document["schema_version"] < 4:
        document.setdefault("untested", [])  # a verdict needed no evidence then, but the run's end
    if document["schema_version"] < 5:
        for order in document["orders"]:
            order.setdefault("restarts", 0)
            _unlock_spelled_out(order)
    if document["schema_version"] < 6:  # what levels 2 and 3 of FEAT_BBM did was the same: nobody aborted
        _never(document, "conflict")
        for order in document["orders"]:
            order.setdefault("conflict_aborts", 0)
            order.setdefault("yields", 0)
    return document


def _never(document: dict[str, Any], *classes: str) -> None:
    """Faults of these classes, which a version did not have, did not occur."""
    counts = [stage["faults"] for stage in document.get("stages", ())]
    for order in document["orders"]:
        counts += [order["faults"], *(vcpu["faults"] for vcpu in order["per_vcpu"])]
        for name in classes:
            order["stall_by_class_ns"].setdefault(name, dict(_NOTHING))
    for each in counts:
        for name in classes:
            each.setdefault(name, 0)


def _unlock_spelled_out(order: dict[str, Any]) -> None:
    """Split the step of earlier versions that gave mmu_lock back and tore down; the unlock, next to nothing, took 0."""
    for spelling, steps in SPELLINGS.items():
        if spelling in order["steps"]:
            order["steps"] = [each for step in order["steps"] for each in (steps if step == spelling else (step,))]
            times = order["step_ns"].pop(spelling)
            nothing = {key: None if value is None else 0 for key, value in times.items()} | {"count": times["count"]}
            order["step_ns"] |= {steps[0].value: nothing, steps[1].value: times}
            order["step_ns"] = {step: order["step_ns"][step] for step in order["steps"]}


def _from_1(document: dict[str, Any]) -> None:
    """Fill in the keys that version 1 lacks: it knew one scenario, in which only the hypervisor rebuilt."""
    document.setdefault("scenario", "rebuild")
    _never(document, "rebuild", "retry")
    for order in document["orders"]:
        order.setdefault("vcpu_rebuilds", 0)
        rebuilds = order["rebuilds"]
        order.setdefault("faults_per_rebuild", sum(order["faults"].values()) / rebuilds if rebuilds else None)
