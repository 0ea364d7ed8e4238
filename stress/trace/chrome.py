"""Chrome's trace event format (JSON): complete events, one thread per track. ui.perfetto.dev and Chrome open it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from stress import __version__
from stress.results.data import TraceData
from stress.trace.slices import tracks

_PROCESS = 1


def encoded(data: TraceData) -> Iterator[bytes]:
    """The JSON document. Times are microseconds with three decimals: what that format has for nanoseconds."""
    yield b'{"displayTimeUnit":"ns","otherData":'
    yield _json({"made by": f"stress {__version__}", "cut": data.cut})
    yield b',"traceEvents":[\n'
    yield _json(_named("process_name", 0, "stress"))
    for thread, track in enumerate(tracks(data), start=1):
        yield b",\n" + _json(_named("thread_name", thread, track.name))
        yield b",\n" + _json(_metadata("thread_sort_index", thread, {"sort_index": thread}))
        for each in track.slices:
            event = {
                "ph": "X",
                "pid": _PROCESS,
                "tid": thread,
                "name": each.name,
                "ts": each.start_ns / 1000,
                "dur": (each.end_ns - each.start_ns) / 1000,
            }
            yield b",\n" + _json(event | ({"args": each.details} if each.details else {}))
    yield b"\n]}\n"


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()


def _metadata(name: str, thread: int, arguments: dict[str, Any]) -> dict[str, Any]:
    return {"ph": "M", "pid": _PROCESS, "tid": thread, "name": name, "args": arguments}


def _named(what: str, thread: int, name: str) -> dict[str, Any]:
    return _metadata(what, thread, {"name": name})
