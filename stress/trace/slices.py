"""A timeline as tracks of slices, for any format: slices of a track are disjoint or nested, outer ones first."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from stress.orders import Step
from stress.results.data import FAULT_CLASSES, TraceData


@dataclass(frozen=True, slots=True)
class Slice:
    """An event from ``start_ns`` to ``end_ns`` on the trace's clock."""

    name: str
    start_ns: int
    end_ns: int
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Track:
    """One line of the timeline, its slices in the order of their start."""

    name: str
    slices: list[Slice]


def tracks(data: TraceData) -> list[Track]:
    """One track per vCPU, the hypervisor's, and as many of invalid windows as are open at once."""
    rebuilds: dict[int, list[list[Slice]]] = {}
    batches = {(int(row["who"]), int(row["start_ns"])): row for row in data.rebuilds[::-1]}
    for (who, _), row in reversed(batches.items()):  # one process begins one batch at a time: the first stands for it
        rebuilds.setdefault(who, []).append(_rebuild(data, row))
    vcpus = len(data.guest_ns)
    found = [Track(f"vcpu {vcpu}", _vcpu(data, vcpu, rebuilds.get(vcpu, []))) for vcpu in range(vcpus)]
    mine = sorted(rebuilds.get(vcpus, []), key=lambda nest: nest[0].start_ns)
    found.append(Track("hypervisor", [each for nest in mine for each in nest]))
    return found + _windows(data)


def _rebuild(data: TraceData, row: Any) -> list[Slice]:
    """A rebuild, its wait for mmu_lock, and its steps."""
    order = data.orders[row["order"]]
    details = {
        "rebuild": int(row["number"]),
        "order": order.name,
        "ipa": f"{row['ipa']:#x}",
        "window faults": int(row["window_faults"]),
    }
    end = max(int(row["end_ns"]), int(row["unlocked_ns"]))
    found = [Slice("rebuild", min(int(row["requested_ns"]), int(row["start_ns"])), end, details)]
    if row["locked_ns"] > row["requested_ns"] and Step.LOCK not in order.steps:
        found.append(Slice("wait for mmu_lock", int(row["requested_ns"]), int(row["locked_ns"])))
    at = int(row["start_ns"])
    for step, duration in zip(order.steps, row["step_ns"], strict=False):
        found.append(Slice(str(step), at, at + int(duration)))
        at += int(duration)
    return found


def _fault(data: TraceData, row: Any) -> list[Slice]:
    """A fault, and its wait for mmu_lock."""
    start = int(row["time_ns"])
    end = start + int(row["stall_ns"])
    name = FAULT_CLASSES[row["fault_class"]]
    details = {
        "class": name,
        "ipa": f"{row['ipa']:#x}",
        "access": "write" if row["write"] else "read",
        "level": int(row["level"]),
    }
    if row["number"]:
        details["rebuild"] = int(row["number"])
    found = [Slice(f"fault: {name}", start, end, details)]
    if row["lock_wait_ns"]:
        asked = min(start + data.exit_ns, end)
        found.append(Slice("wait for mmu_lock", asked, min(asked + int(row["lock_wait_ns"]), end)))
    return found


def _vcpu(data: TraceData, vcpu: int, rebuilds: list[list[Slice]]) -> list[Slice]:
    """Guest and faults in turn; a rebuild lies inside the fault whose handler did it, if that was recorded."""
    faults = sorted(
        (_fault(data, row) for row in data.faults[data.faults["vcpu"] == vcpu]), key=lambda f: f[0].start_ns
    )
    rebuilds = sorted(rebuilds, key=lambda nest: nest[0].start_ns)
    nests: list[list[Slice]] = []
    for fault in faults:
        while rebuilds and rebuilds[0][0].start_ns < fault[0].start_ns:
            nests.append(rebuilds.pop(0))
        if rebuilds and rebuilds[0][0].end_ns <= fault[0].end_ns:
            fault = [fault[0], *rebuilds.pop(0)]  # the rebuild shows the same wait
        nests.append(fault)
    at = data.guest_ns[vcpu]
    found = []
    for nest in nests + rebuilds:
        if at and at < nest[0].start_ns:
            found.append(Slice("guest", at, nest[0].start_ns))
        found += nest
        at = max(at, nest[0].end_ns)
    if at and at < data.end_ns:
        found.append(Slice("guest", at, data.end_ns))
    return found


def _windows(data: TraceData) -> list[Track]:
    """Invalid windows; vCPUs that rebuild under a shared mmu_lock may have several open, on a track each."""
    lanes: list[list[Slice]] = [[]]
    rows = data.rebuilds[(data.rebuilds["invalid_ns"] != 0) & (data.rebuilds["valid_ns"] > data.rebuilds["invalid_ns"])]
    for row in sorted(rows, key=lambda row: int(row["invalid_ns"])):
        details = {"rebuild": int(row["number"]), "order": data.orders[row["order"]].name, "ipa": f"{row['ipa']:#x}"}
        window = Slice("invalid", int(row["invalid_ns"]), int(row["valid_ns"]), details)
        free = next((lane for lane in lanes if not lane or lane[-1].end_ns <= window.start_ns), None)
        if free is None:
            lanes.append(free := [])
        free.append(window)
    return [Track(f"invalid windows {i}" if i else "invalid windows", lane) for i, lane in enumerate(lanes)]
