"""The part of a Dask worker in a sweep: it starts a process that measures, and ends it when the task is not wanted.

It takes a process, because a worker's tasks run in threads: signals cannot be caught there, and all that the worker
has loaded takes part in the measurement.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final

from distributed import get_worker

from stress import __version__
from stress.errors import RunBroken
from stress.sweeps.trial import request

_POLL_S: Final = 0.2


def version_of_worker() -> str:
    """The version of stress that the worker has."""
    return __version__


def measure_on_worker(key: str, options: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The time at which the task ``key`` began, and the answer of `stress.sweeps.trial`; RunBroken without one."""
    started_at = datetime.now(UTC).isoformat(timespec="seconds")
    command = [sys.executable, "-m", "stress.sweeps.trial"]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
        # The process ends with its standard input, which stays open as long as this one lives.
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=out, stderr=errors, bufsize=0) as process:
            assert process.stdin is not None
            with suppress(BrokenPipeError):  # it died, and its exit code says more
                process.stdin.write(request(options))
            while process.poll() is None:
                time.sleep(_POLL_S)
                if _unwanted(key) and not process.stdin.closed:
                    process.stdin.close()
        out.seek(0)
        try:
            return started_at, json.loads(out.read())
        except ValueError:
            errors.seek(0)
            last = (errors.read().decode(errors="replace").strip().splitlines() or ["nothing said"])[-1]
            what = f"the process that measured ended with exit code {process.returncode}: {last}"
            raise RunBroken(what, "run the point on that host with stress run to see why") from None


def _unwanted(key: str) -> bool:
    """Whether a task is not wanted any more: the sweep was interrupted, or its process is gone."""
    task = get_worker().state.tasks.get(key)
    return task is None or task.state == "cancelled"
