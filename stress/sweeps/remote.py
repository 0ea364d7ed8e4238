"""What a Dask worker does for a sweep: starts a process that measures, and ends it when nobody waits any more.

A process, because a worker's tasks run in threads, where signals cannot be caught and whatever the worker has loaded
takes part in the measurement.
"""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from typing import Any, Final

from stress import __version__
from stress.errors import RunBroken
from stress.sweeps.measure import request

_POLL_S: Final = 0.2


def version_of_worker() -> str:
    """The version of stress that the worker has."""
    return __version__


def measure_on_worker(options: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """When the measurement of a point began, and the answer of `stress.sweeps.measure`; RunBroken if it has none."""
    started_at = datetime.now(UTC).isoformat(timespec="seconds")
    # Its standard input stays open as long as this process lives: it ends with it.
    with subprocess.Popen(
        [sys.executable, "-m", "stress.sweeps.measure"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        process.stdin.write(request(options))
        process.stdin.flush()
        while True:
            try:
                out, errors = _communicate(process)
                break
            except subprocess.TimeoutExpired:
                if _unwanted():
                    process.stdin.close()
    if not out:
        raise RunBroken(f"the measuring process ended with {process.returncode}: {errors[-200:]!r}", "")
    answer: dict[str, Any] = json.loads(out)
    return started_at, answer
