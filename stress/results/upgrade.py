"""Documents of earlier schema versions in the shape of the present one."""

from __future__ import annotations

from typing import Any, Final

from stress.orders import SPELLINGS
from stress.results.data import FAULT_CLASSES

_NOTHING: Final = {"count": 0, "p50": None, "p90": None, "p99": None, "max": None}


def upgraded(document: dict[str, Any]) -> dict[str, Any]:
    """``document``, changed in place: what its version implies is filled in, what it did not measure stays absent.

    Distributions and the timeline came with version 3; earlier documents have none. ``schema_version`` stays the one
    the document was written with. Raises KeyError, TypeError or AttributeError if it is no document of that version.
    """
    if document["schema_version"] == 1:
        _from_1(document)
    if document["schema_version"] < 4:
        document.setdefault("untested", [])  # nothing more was asked for than that the run ended
    if document["schema_version"] < 5:
        for order in document["orders"]:
            order.setdefault("restarts", 0)
            _unlock_spelled_out(order)
    return document


def _unlock_spelled_out(order: dict[str, Any]) -> None:
    """Before version 5 one step gave mmu_lock back, which takes next to nothing and was not measured, and tore down."""
    for spelling, steps in SPELLINGS.items():
        if spelling in order["steps"]:
            order["steps"] = [each for step in order["steps"] for each in (steps if step == spelling else (step,))]
            times = order["step_ns"].pop(spelling)
            nothing = {key: None if value is None else 0 for key, value in times.items()} | {"count": times["count"]}
            order["step_ns"] |= {steps[0].value: nothing, steps[1].value: times}
            order["step_ns"] = {step: order["step_ns"][step] for step in order["steps"]}


def _from_1(document: dict[str, Any]) -> None:
    """Version 1 knew one scenario, in which only the hypervisor rebuilt."""
    document.setdefault("scenario", "rebuild")
    for order in document["orders"]:
        order.setdefault("vcpu_rebuilds", 0)
        faults = [order["faults"], *(vcpu["faults"] for vcpu in order["per_vcpu"])]
        for name in FAULT_CLASSES:
            for each in faults:
                each.setdefault(name, 0)
            order["stall_by_class_ns"].setdefault(name, dict(_NOTHING))
        rebuilds = order["rebuilds"]
        order.setdefault("faults_per_rebuild", sum(order["faults"].values()) / rebuilds if rebuilds else None)
