"""The worker processes as the supervisor sees them: start, watch, stop."""

from __future__ import annotations

import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import wait
from typing import Any

import psutil

from stress.live import server
from stress.live.plan import Plan
from stress.live.worker import hypervisor_main, vcpu_main
from stress.orders import STEPS
from stress.shm import words
from stress.shm.layout import (
    Machine,
)
from stress.shm.words import (
    State,
)

#: Time for workers to leave after a normal end: as long as many of them on few cores need.
GRACE_S = 10.0
#: The same after Ctrl-C or a death.
SHORT_GRACE_S = 0.5
# How often to look whether the workers have started.
_LOOK_S = 0.02


class Workers:
    """N vCPU processes and the hypervisor, forked from a server that has the kernels loaded."""

    def __init__(self, plan: Plan, machine: Machine) -> None:
        self._plan = plan
        self._machine = machine
        self._processes: list[Any] = []
        self._beats: list[tuple[int, float]] = []

    def start(self, name: str, interrupted: threading.Event) -> bool:
        """Start all of them on segment ``name``; False if an interrupt came while the forkserver loaded its kernels."""
        server.ensure_running()
        with ThreadPoolExecutor(1) as starter:
            starting = starter.submit(self._start, name, interrupted)
            while not starting.done():
                if interrupted.wait(_LOOK_S):
                    server.kill()
                    return False
            starting.result()
        return True

    def _start(self, name: str, interrupted: threading.Event) -> None:
        vcpus = self._plan.geo.hypervisor
        for vcpu in range(vcpus):
            if interrupted.is_set():
                return
            self._launch(server.Process(target=vcpu_main, args=(name, self._plan, vcpu), name=f"vcpu {vcpu}"))
        self._launch(server.Process(target=hypervisor_main, args=(name, self._plan), name="hypervisor"))
        now = time.monotonic()
        self._beats = [(-1, now)] * len(self._processes)

    def _launch(self, process: Any) -> None:
        process.daemon = True
        process.start()
        self._processes.append(process)

    @property
    def pids(self) -> dict[str, int]:
        """Process names and ids."""
        return {process.name: process.pid for process in self._processes}

    def wait(self, timeout_s: float) -> bool:
        """Sleep until a worker ends or the time is over; True while all of them run."""
        return not wait([process.sentinel for process in self._processes], timeout_s)

    def all_gone(self) -> bool:
        """Whether every worker has ended."""
        return not any(process.is_alive() for process in self._processes)

    def casualty(self) -> dict[str, Any] | None:
        """Who died other than in order, how, and in which state; None if nobody did."""
        for who, process in enumerate(self._processes):
            if not process.is_alive() and (process.exitcode != 0 or self._state(who) is not State.DONE):
                code = process.exitcode
                how = f"killed by {signal.Signals(-code).name}" if code and code < 0 else f"exit code {code}"
                return self._describe(who, "died", how)
        return None

    def hung(self, limit_s: float) -> dict[str, Any] | None:
        """Who has made no progress for ``limit_s``; whoever holds mmu_lock before those who wait for it."""
        now = time.monotonic()
        late = []
        for who in range(len(self._processes)):
            beat = int(self._machine.procs[who, words.HEARTBEAT])
            if beat != self._beats[who][0]:
                self._beats[who] = (beat, now)
            elif now - self._beats[who][1] > limit_s and self._state(who) is not State.DONE:
                late.append(who)
        # Who waits for mmu_lock has to wait as long as others use it, and get on.
        busy = {who for who in range(len(self._processes)) if self._state(who) is State.LOCK_HELD}
        if busy - set(late) or not self._machine.control[words.LOCK]:
            late = [who for who in late if self._state(who) is not State.LOCK_WAIT]
        if not late:
            return None
        owner = self._owner()
        return self._describe(owner if owner in late else late[0], "hung", f"no progress for {limit_s:g} s")

    def stop(self, grace_s: float) -> bool:
        """Wait for workers that were told to stop, then end the others; whether all of them left by themselves."""
        deadline = time.monotonic() + grace_s
        for process in self._processes:
            process.join(max(0.0, deadline - time.monotonic()))
        for process in self._processes:
            if process.is_alive():
                process.kill()
        for process in self._processes:
            process.join()
        return all(process.exitcode == 0 for process in self._processes)

    def unique_bytes(self) -> dict[str, int]:
        """Memory that only this process has (USS), by name; the mapped part of the segment is shared."""
        found = {}
        for name, pid in {"supervisor": None, **self.pids}.items():
            try:
                found[name] = int(psutil.Process(pid).memory_full_info().uss)
            except psutil.Error:
                continue
        return found

    def _state(self, who: int) -> State:
        return State(int(self._machine.procs[who, words.STATE]))

    def _owner(self) -> int:
        """Process that holds mmu_lock alone, or -1."""
        return max(0, int(self._machine.control[words.LOCK])) - 1

    def _describe(self, who: int, what: str, how: str) -> dict[str, Any]:
        state = self._state(who)
        step = int(self._machine.procs[who, words.AT_STEP])
        return {
            "process": self._processes[who].name,
            "pid": self._processes[who].pid,
            "what": what,
            "how": how,
            "state": state.name.lower().replace("_", "-"),
            "step": STEPS[step].value if step >= 0 else None,
            "ipa": f"{int(self._machine.procs[who, words.AT_GFN]) << self._plan.geo.granule_shift:#x}",
            "held_mmu_lock": self._owner() == who or state is State.LOCK_HELD,
        }
