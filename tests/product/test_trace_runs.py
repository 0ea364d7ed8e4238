"""Traces of real runs: page-table changes that a checker accepts, and timelines that other tools read."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from casemate_grammar import read
from casemate_rules import judge
from live import live_run, run_json
from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import Trace, TrackEvent
from traces import traced_run

from stress.orders import NAMED_ORDERS

SMALL = ("--block-size", "2M", "--blocks", "3", "--dwell", "1ms", "--pattern", "uniform", "--no-pin")
FITTING = [order.name for order in NAMED_ORDERS.values() if order.bbm_level == 0]


class Event(NamedTuple):
    """A slice of a timeline that was read back."""

    name: str
    start_ns: int
    end_ns: int
    details: dict[str, Any]


Timeline = dict[str, list[Event]]


def chrome(path: Path) -> Timeline:
    """The tracks of a Chrome trace."""
    names: dict[int, str] = {}
    found: Timeline = {}
    for event in json.loads(path.read_bytes())["traceEvents"]:
        if event["name"] == "thread_name":
            names[event["tid"]] = event["args"]["name"]
            found[event["args"]["name"]] = []
        elif event["ph"] == "X":
            start = round(event["ts"] * 1000)
            end = start + round(event["dur"] * 1000)
            found[names[event["tid"]]].append(Event(event["name"], start, end, event.get("args", {})))
    return found


def pftrace(path: Path) -> Timeline:
    """The tracks of a Perfetto trace; every slice that was begun has ended, the innermost first."""
    trace = Trace()
    trace.ParseFromString(path.read_bytes())
    names: dict[int, str] = {}
    found: Timeline = {}
    open_slices: dict[int, list[tuple[int, Event]]] = {}
    for packet in trace.packet:
        if packet.HasField("track_descriptor"):
            if packet.track_descriptor.parent_uuid:
                names[packet.track_descriptor.uuid] = packet.track_descriptor.name
                found[packet.track_descriptor.name] = []
            continue
        event, track = packet.track_event, packet.track_event.track_uuid
        stack = open_slices.setdefault(track, [])
        if event.type == TrackEvent.TYPE_SLICE_BEGIN:
            details = {each.name: each.string_value or each.int_value for each in event.debug_annotations}
            stack.append((len(found[names[track]]), Event(event.name, packet.timestamp, -1, details)))
            found[names[track]].append(stack[-1][1])
        else:
            place, begun = stack.pop()
            found[names[track]][place] = begun._replace(end_ns=packet.timestamp)
    assert not any(open_slices.values())
    return found


def assert_nested(events: list[Event]) -> None:
    """Slices of a track are disjoint or lie in each other."""
    stack: list[Event] = []
    for event in events:
        assert event.start_ns <= event.end_ns
        while stack and stack[-1].end_ns <= event.start_ns:
            stack.pop()
        if stack:
            assert event.end_ns <= stack[-1].end_ns, (event, stack[-1])
            assert event.start_ns >= stack[-1].start_ns
        stack.append(event)


@pytest.mark.parametrize(
    ("arguments", "needed"),
    [
        (("compare", *FITTING, *SMALL, "-v", "2", "--populated", "0.5", "--rebuilds", "2"), "vmalls12e1is"),
        (("compare", *FITTING, *SMALL, "-v", "2", "--rebuilder", "vcpu", "--rebuilds", "2"), "vmalls12e1is"),
        (
            ("run", "--scenario", "migration", *SMALL, "-v", "2", "--duration", "200ms", "--trace-rebuilds", "9"),
            "ipas2e1is",
        ),
        (
            (
                "run",
                "--scenario",
                "migration",
                *SMALL,
                "--split-order",
                "break-first",
                "--eager-split",
                "--rebuilds",
                "2",
            ),
            "ipas2e1is",
        ),
        (("run", *SMALL, "--split-order", "invalidate,tlbi,build,link", "--rebuilds", "2"), "vmalls12e1is"),
        (("run", "--scenario", "thp", *SMALL, "-v", "2", "--duration", "60ms"), "ipas2e1is"),
        (("run", "--scenario", "kvm-page-table-test", "-b", "2M", "-s", "hugetlb-2m", "-v", "1"), "ipas2e1is"),
        (("run", "--scenario", "dirty-log-perf", "-b", "4M", "-s", "hugetlb-2m", "-v", "2", "-i", "2"), "ipas2e1is"),
    ],
    ids=[
        "hypervisor rebuilds",
        "vcpu rebuilds",
        "migration",
        "eager split",
        "split by VMID",
        "thp",
        "kvm-page-table-test",
        "dirty-log-perf",
    ],
)
def test_a_checker_accepts_every_correct_run(tmp_path: Path, arguments: tuple[str, ...], needed: str) -> None:
    path = tmp_path / "run.casemate"
    document = traced_run(path, *arguments)
    assert {"traced"} <= {warning["name"] for warning in document["warnings"]}
    with path.open() as lines:
        assert judge(lines) == ""
    with path.open() as lines:
        records = list(read(lines))
    # Something happened: by more than one process, with tables that came and went.
    assert len({record.tid for record in records}) > 1
    assert any(record.word == needed for record in records)
    assert {"lock", "unlock", "mem-init", "mem-free", "mem-write", "barrier", "hint"} <= {r.head for r in records}


def test_a_checker_rejects_a_run_with_a_wrong_order(tmp_path: Path) -> None:
    path = tmp_path / "run.casemate"
    order = "--order=invalidate,unmap,tlbi,clean,install"
    document = run_json("run", order, *SMALL, "-v", "1", "--rebuilds", "2", "--trace", str(path))
    assert document["exit"] == 1
    with path.open() as lines:
        wrong = judge(lines)
    assert wrong.startswith("unclean parent")
    [found] = [each for each in document["violations"] if each["kind"] == "table-use-after-free"]
    assert f"(record {found['evidence'][0]['record']}: " in wrong
    assert found["evidence"][0].keys() >= {"entry", "above", "stored_at"}


def test_a_checker_sees_a_missing_dsb_in_a_short_run(tmp_path: Path) -> None:
    path = tmp_path / "run.casemate"
    arguments = ("--scenario", "thp", *SMALL, "-v", "2", "--duration", "60ms", "--inject", "missing-dsb")
    assert run_json("run", *arguments, "--trace", str(path))["exit"] == 1
    with path.open() as lines:
        assert judge(lines) != ""


def test_a_trace_that_casemate_cannot_follow_is_written_with_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "run.casemate"
    arguments = ("--granule", "16K", "--blocks", "1", "-v", "4", "--no-pin", "--rebuilds", "1")
    document = traced_run(path, "run", *arguments)
    [detail] = [each["detail"] for each in document["warnings"] if each["name"] == "trace-beyond-checker"]
    assert detail == "a granule of 16K, not 4K; 4 vCPUs, more than 3"
    with path.open() as lines:
        assert judge(lines) == ""


@pytest.mark.parametrize(("suffix", "parse"), [("json", chrome), ("pftrace", pftrace)])
def test_timelines_tell_what_the_document_tells(tmp_path: Path, suffix: str, parse: Any) -> None:
    path = tmp_path / f"run.{suffix}"
    rebuilder = "vcpu" if suffix == "json" else "hypervisor"
    document = traced_run(
        path, "compare", "unmap-first", "clean-first-unlocked", *SMALL, "-v", "2", "--rebuilder", rebuilder,
        "--rebuilds", "12",
    )  # fmt: skip
    timeline: Timeline = parse(path)
    assert list(timeline) == ["vcpu 0", "vcpu 1", "hypervisor", "invalid windows"]
    for events in timeline.values():
        assert_nested(events)
    rebuilds = [event for events in timeline.values() for event in events if event.name == "rebuild"]
    assert len(rebuilds) == sum(order["rebuilds"] for order in document["orders"]) > 10
    assert bool([event for event in timeline["hypervisor"] if event.name == "rebuild"]) == (rebuilder == "hypervisor")
    for order in document["orders"]:
        windows = [e.end_ns - e.start_ns for e in timeline["invalid windows"] if e.details["order"] == order["order"]]
        assert len(windows) == order["rebuilds"]
        assert (max(windows), order["window_ns"]["count"]) == (order["window_ns"]["max"], len(windows))
        assert int(np.quantile(windows, 0.5, method="inverted_cdf")) == order["window_ns"]["p50"]
        steps = {event.name for events in timeline.values() for event in events} & set(order["steps"])
        assert steps == set(order["steps"])
    guests = [event for vcpu in ("vcpu 0", "vcpu 1") for event in timeline[vcpu]]
    assert {event.name for event in timeline["vcpu 0"]} & {event.name for event in timeline["vcpu 1"]} >= {"guest"}
    for kind in document["orders"][0]["faults"]:
        counted = sum(order["faults"][kind] for order in document["orders"])
        assert sum(event.name == f"fault: {kind}" for event in guests) == counted


def test_a_trace_ends_with_the_rebuild_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    traced_run(path, "run", *SMALL, "-v", "1", "--rebuilds", "9", "--trace-rebuilds", "4")
    timeline = chrome(path)
    assert [event.details["rebuild"] for event in timeline["hypervisor"] if event.name == "rebuild"] == [1, 2, 3, 4]


def test_an_interrupted_run_leaves_what_there_is(tmp_path: Path) -> None:
    path = tmp_path / "run.casemate"
    with live_run(
        "run", *SMALL, "-v", "1", "--trace", str(path), "--dwell", "30ms", "--trace-rebuilds", "10000"
    ) as run:
        run.wait_for_guest()
        run.process.send_signal(signal.SIGINT)
        code, _, err, _ = run.finish()
    assert (code, "Traceback" in err) == (130, False)
    with path.open() as lines:
        assert judge(lines) == ""
