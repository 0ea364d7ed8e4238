"""The command ``stress`` as a user runs it, watched from outside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stress.errors import RunBroken
from stress.shm.accounts import FIRST_ACCESS_NS
from stress.shm.layout import Geo, Machine, carve, segment_bytes
from stress.shm.stale import PREFIX

_STRESS = (sys.executable, "-m", "stress")
_SHM = Path("/dev/shm")
_TIMEOUT_S = 120


def _document(process: subprocess.Popen[str], arguments: Sequence[str]) -> dict[str, Any]:
    try:
        out, err = process.communicate(timeout=_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise RunBroken(f"stress {' '.join(arguments)} does not end", "try it by hand") from None
    if process.returncode != 0:
        last = (err.strip().splitlines() or ["no message"])[-1]
        raise RunBroken(f"stress {' '.join(arguments)}: exit code {process.returncode}: {last}", "try it by hand")
    document: dict[str, Any] = json.loads(out)
    return document


def _start(arguments: Sequence[str], settings: Mapping[str, str]) -> subprocess.Popen[str]:
    command = (*_STRESS, *arguments, "--json")
    environment = {**os.environ, **settings}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def stress(*arguments: str) -> dict[str, Any]:
    """The result document of a run; RunBroken if it fails in any way."""
    return _document(_start(arguments, {}), arguments)


@dataclass(frozen=True, slots=True)
class Started:
    """A finished run, and how it began."""

    document: dict[str, Any]
    first_access_s: float  # from the exec of the command to the first guest access of the last vCPU


def watched_start(geo: Geo, *arguments: str, **settings: str) -> Started:
    """Run the command, whose segment has ``geo`` and one order, with an eye on its first guest accesses.

    ``settings`` are environment variables.
    """
    launched_ns = time.monotonic_ns()
    process = _start(arguments, settings)
    machine = None
    while machine is None and process.poll() is None:
        time.sleep(0.002)
        machine = _peek(process.pid, geo)
    document = _document(process, arguments)
    if machine is None:
        raise RunBroken(f"stress {' '.join(arguments)}: its segment was not seen", "try it by hand")
    # The mapping lives on after the segment's removal. The vCPUs' clock is the one read above.
    first = machine.states[: geo.hypervisor, FIRST_ACCESS_NS]
    return Started(document, (int(first.max()) - launched_ns) / 1e9)


def _peek(creator: int, geo: Geo) -> Machine | None:
    """A private copy of the segment of process ``creator``, once it has its full size; None before."""
    for path in _SHM.glob(f"{PREFIX}{creator}-*"):
        if path.stat().st_size >= segment_bytes(geo, orders=1):
            return carve(np.memmap(path, np.uint8, "c"), geo, orders=1)
    return None
