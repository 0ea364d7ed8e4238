"""Helpers for tests that run the real command with real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

COMMAND = [sys.executable, "-m", "stress"]
# A first compilation may come before anything else.
START_TIMEOUT_S = 90.0


def segments_of(pid: int) -> list[str]:
    """Segments in /dev/shm that process ``pid`` created."""
    return sorted(path.name for path in Path("/dev/shm").glob(f"stress-{pid}-*"))


def wait_until(condition: Callable[[], Any], timeout_s: float, what: str) -> Any:
    """Poll until ``condition`` is true; fails the test after the timeout."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.01)
    raise AssertionError(f"{what} did not happen within {timeout_s:g} s")


class LiveRun:
    """A `stress` command that runs in a process group of its own."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.pid = self.process.pid

    def workers(self) -> list[psutil.Process]:
        """vCPU processes, then the hypervisor: the forkserver's children in the order they were started."""
        try:
            descendants = psutil.Process(self.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []
        found = []
        for process in descendants:
            try:
                if process.ppid() != self.pid:
                    found.append(process)
            except psutil.NoSuchProcess:
                continue
        return sorted(found, key=lambda process: (process.create_time(), process.pid))

    def wait_for_workers(self, count: int) -> list[psutil.Process]:
        """Wait until all workers run, and some rebuilds have been done."""
        wait_until(lambda: len(self.workers()) == count, START_TIMEOUT_S, f"{count} workers")
        time.sleep(0.5)
        return self.workers()

    def finish(self, timeout_s: float) -> tuple[int, str, str, float]:
        """Wait for the end; (exit code, stdout, stderr, seconds waited)."""
        start = time.monotonic()
        out, err = self.process.communicate(timeout=timeout_s)
        return self.process.returncode, out, err, time.monotonic() - start


@contextmanager
def live_run(*arguments: str) -> Iterator[LiveRun]:
    """A running command; afterwards no process and no segment of it may be left."""
    run = LiveRun(*arguments)
    try:
        yield run
    finally:
        if run.process.poll() is None:
            run.process.kill()
            os.killpg(run.pid, signal.SIGCONT)  # who was stopped cannot notice
            run.process.communicate()
    wait_until(lambda: not segments_of(run.pid), 5.0, "removal of the segment")
    wait_until(lambda: not group_members(run.pid), 5.0, "end of every process")


def group_members(group: int) -> list[int]:
    """Processes of the command's process group that still run (zombies do not)."""
    members = []
    for process in psutil.process_iter(["pid", "status"]):
        try:
            if os.getpgid(process.pid) == group and process.info["status"] != psutil.STATUS_ZOMBIE:
                members.append(process.pid)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return members


def run_json(*arguments: str, timeout_s: float = 150.0) -> dict[str, Any]:
    """Run a command with --json to its end; the document with its exit code under ``exit``."""
    with live_run(*arguments, "--json") as run:
        code, out, err, _ = run.finish(timeout_s)
    assert out, f"no document, exit code {code}: {err}"
    document: dict[str, Any] = json.loads(out)
    assert document["exit_code"] == code
    document["exit"] = code
    return document
