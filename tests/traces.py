"""Traces of machines without processes, and of commands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from casemate_rules import judge
from live import run_json

from stress.live.trace_collector import TraceCollector
from stress.results.data import TraceData, TraceRequest
from stress.shm.layout import Machine
from stress.trace.casemate import encoded

#: Traces a small machine: ``small_machine(**TRACED)``.
TRACED: dict[str, Any] = {"trace_rows": 1 << 14, "trace_rebuilds": 1 << 30}


def trace_of(s: Machine) -> TraceData:
    """What was traced so far of a machine made with `TRACED`."""
    return TraceCollector(s, TraceRequest(s.geo.trace_rebuilds, changes=True)).result((), 0)


def lines_of(s: Machine) -> list[str]:
    """The lines of the casemate trace."""
    return b"".join(encoded(trace_of(s))).decode().splitlines()


def verdict(s: Machine) -> str:
    """What the checker says of a machine's trace; "" if nothing."""
    return judge(lines_of(s))


def traced_run(path: Path, *arguments: str) -> dict[str, Any]:
    """Run a command that writes its trace to ``path``; its document. There was no violation."""
    document = run_json(*arguments, "--trace", str(path))
    found = (document["exit"], document["violations"], document["complete"])
    assert found == (0, [], True), (found, document["failure"], document["untested"])
    return document
