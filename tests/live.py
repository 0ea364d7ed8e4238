"""Helpers for tests that run the real command with real processes."""

from __future__ import annotations

import json
import mmap
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from stress.shm import accounts, words
from stress.shm.layout import DIRECTORY, DIRECTORY_ENTRY, REGIONS, Geo, Machine
from stress.shm.stale import SHM

COMMAND = (sys.executable, "-m", "stress")
# How long to wait for what must come to pass: on one core beside other work, far longer than it takes.
PATIENCE_S = 90.0
#: A run long enough for whatever is done to it.
RUN = ("run", "--vcpus", "2", "--blocks", "2", "--dwell", "1ms", "--duration", "60s")


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


def launch_of(pid: int) -> psutil.Process | None:
    """The launch that ``stress bench`` in process ``pid`` makes now."""
    for process in psutil.Process(pid).children():
        try:
            if "stress.bench.launch" in process.cmdline():
                return process
        except psutil.Error:
            continue
    return None


def _views(mapped: mmap.mmap) -> Machine:
    """The machine in a segment, found by its directory: a test does not know the plan."""
    found = np.frombuffer(mapped, np.int64)
    views = {}
    for place, (name, inner) in enumerate(REGIONS.items()):
        at, *shape = map(int, found[DIRECTORY + place * DIRECTORY_ENTRY :][: 2 + len(inner)])
        views[name] = found[at : at + int(np.prod(shape))].reshape(shape)
    geo = found[DIRECTORY + len(REGIONS) * DIRECTORY_ENTRY :][: len(Geo._fields)]
    return Machine(**views, geo=Geo(*map(int, geo)))


def kept_waiting_s(pid: int) -> float:
    """How long the main thread of ``pid`` was runnable without a processor so far; 0 if the kernel does not tell."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError):
        return 0.0


class LiveRun:
    """A `stress` command that runs in a process group of its own."""

    def __init__(self, *arguments: str, command: Sequence[str] = COMMAND) -> None:
        self.process = subprocess.Popen(
            [*command, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.pid = self.process.pid

    def _descendants(self) -> list[psutil.Process]:
        try:
            return psutil.Process(self.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def workers(self) -> list[psutil.Process]:
        """vCPU processes, then the hypervisor: the forkserver's children in the order they were started."""
        found = []
        for process in self._descendants():
            try:
                if process.ppid() != self.pid:
                    found.append(process)
            except psutil.NoSuchProcess:
                continue
        return sorted(found, key=lambda process: (process.create_time(), process.pid))

    def server(self) -> psutil.Process | None:
        """The forkserver, from its first instruction on."""
        for process in self._descendants():
            try:
                if "forkserver" in process.cmdline()[-1] and process.ppid() == self.pid:
                    return process
            except (psutil.Error, IndexError):
                continue
        return None

    def machine(self) -> Machine | None:
        """The views of the run's segment, to be read only; None before it is whole, and once it is gone."""
        for name in segments_of(self.pid):
            try:
                with (SHM / name).open("rb") as file:
                    mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
            except (FileNotFoundError, ValueError):
                continue
            if int.from_bytes(mapped[:8], "little") == words.MAGIC:
                return _views(mapped)
        return None

    def wait_for_workers(self, count: int) -> list[psutil.Process]:
        """Wait until so many workers exist, whatever they do."""
        wait_until(lambda: len(self.workers()) == count, PATIENCE_S, f"start of {count} workers")
        return self.workers()

    def wait_for_guest(self) -> Machine:
        """Wait until every vCPU has made accesses, and rebuilds of every order are counted."""
        machine: Machine = wait_until(self.machine, PATIENCE_S, "creation of the segment")
        vcpus = machine.geo.hypervisor

        def under_way() -> bool:
            assert self.process.poll() is None, "the run is over already"
            rebuilds = machine.totals[:, accounts.T_REBUILDS]
            return bool(machine.states[:vcpus, accounts.FIRST_ACCESS_NS].all() and rebuilds.all())

        wait_until(under_way, PATIENCE_S, "first rebuild")
        return machine

    def finish(self, timeout_s: float = PATIENCE_S) -> tuple[int, str, str, float]:
        """Wait for the end; (exit code, stdout, stderr, seconds it took).

        Not among these: how long the command was kept from a processor that others had.
        """
        start, before = time.monotonic(), kept_waiting_s(self.pid)
        kept = before
        over = threading.Event()

        def follow() -> None:
            nonlocal kept
            while not over.wait(0.01):
                kept = max(kept, kept_waiting_s(self.pid))

        follower = threading.Thread(target=follow)
        follower.start()
        try:
            out, err = self.process.communicate(timeout=timeout_s)
        finally:
            took = time.monotonic() - start
            over.set()
            follower.join()
        return self.process.returncode, out, err, took - (kept - before)


@contextmanager
def live_run(*arguments: str, command: Sequence[str] = COMMAND) -> Iterator[LiveRun]:
    """A running command; afterwards no process and no segment of it may be left."""
    run = LiveRun(*arguments, command=command)
    try:
        yield run
    finally:
        if run.process.poll() is None:
            run.process.kill()
            run.process.communicate()
    wait_until(lambda: not segments_of(run.pid), PATIENCE_S, "removal of the segment")
    wait_until(lambda: not group_members(run.pid), PATIENCE_S, "end of every process")


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


def partial(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_text())
    assert document["complete"] is False
    assert any(warning["name"] == "incomplete" for warning in document["warnings"])
    return document


def interrupt(run: LiveRun) -> None:
    os.killpg(run.pid, signal.SIGINT)  # as a terminal does: the whole foreground group
