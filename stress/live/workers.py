"""The worker processes as the supervisor sees them: start, watch, stop."""

from __future__ import annotations

import errno
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import wait
from typing import Any

import psutil

from stress.errors import MachineError
from stress.live import server
from stress.live.duties import hypervisor_main, vcpu_main
from stress.live.plan import Plan
from stress.live.pulse import Watch, pulse
from stress.orders import STEPS
from stress.shm import accounts, words
from stress.shm.accounts import State
from stress.shm.layout import Machine

#: Time for workers to leave after a normal end: as long as many of them on few cores need.
GRACE_S = 10.0
#: Time for workers to leave after Ctrl-C or a death.
SHORT_GRACE_S = 0.5
# A worker that gets no processor may need this many times as long.
_STARVED = 6
# How often to look whether the workers have started.
_LOOK_S = 0.02


class StartFailed(Exception):  # noqa: N818 - an event
    """The workers cannot be started; ``failure`` says which process is to blame, as in a result."""

    def __init__(self, failure: dict[str, Any]) -> None:
        super().__init__(failure)
        self.failure = failure


class Workers:
    """N vCPU processes and the hypervisor, forked from a server that has the kernels loaded."""

    def __init__(self, plan: Plan, machine: Machine, patience_s: float) -> None:
        self._plan = plan
        self._machine = machine
        self._patience_s = patience_s  # a process without progress for longer hangs
        self._processes: list[server.Process] = []
        self._beats = [Watch() for _ in range(plan.geo.hypervisor + 1)]
        self._server_beat = Watch()

    def start(self, name: str, interrupted: threading.Event, look: Callable[[], None]) -> bool:
        """Start all workers on segment ``name``; False if an interrupt came while the forkserver loaded its kernels.

        Takes a ``look`` again and again until all are forked.

        Raises StartFailed, and MachineError if the machine allows no more processes or open files.
        """
        try:
            server.ensure_running()
            with ThreadPoolExecutor(1) as starter:
                starting = starter.submit(self._start, name, interrupted)
                hung = None
                while not (starting.done() or hung or interrupted.wait(_LOOK_S)):
                    hung = self._server_hung(may_sleep=False)
                    look()
                in_time = starting.done()
                if not in_time:
                    server.kill()
            if in_time:
                starting.result()
                return True
        except server.ServerDied as death:
            self._stop_at_once()
            raise StartFailed(_forkserver("died", _ending(death.exit_code))) from None
        except OSError as error:
            raise _too_many(self._plan.geo.hypervisor, error) from error
        self._stop_at_once()  # the workers went with the server
        if hung:
            raise StartFailed(hung)
        return False

    def _start(self, name: str, interrupted: threading.Event) -> None:
        for vcpu in range(self._plan.geo.hypervisor):
            if interrupted.is_set():
                return
            self._processes.append(server.Process(f"vcpu {vcpu}", vcpu_main, name, self._plan, vcpu))
        self._processes.append(server.Process("hypervisor", hypervisor_main, name, self._plan))

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
        """The first worker that died other than in order, with how and in which state; None if none did."""
        for who, process in enumerate(self._processes):
            if process.is_alive() or (process.exitcode == 0 and self._state(who) is State.DONE):
                continue
            if process.exitcode is None:  # the worker went with the server
                return _forkserver("died", _ending(server.last_exit_code()))
            return self._describe(who, "died", _ending(process.exitcode))
        return None

    def hung(self) -> dict[str, Any] | None:
        """A worker that has made no progress for too long, one that holds mmu_lock first; None if there is none."""
        late = [
            who
            for who, process in enumerate(self._processes)
            if self._beats[who].unchanged_s(self._beat(who, process), process.pid) > self._patience_s
            and self._state(who) is not State.DONE
        ]
        # A worker has to wait for mmu_lock as long as others use it, and get on.
        busy = {who for who in range(len(self._processes)) if self._state(who) is State.LOCK_HELD}
        if busy - set(late) or not self._machine.control[words.LOCK]:
            late = [who for who in late if self._state(who) is not State.LOCK_WAIT]
        if not late:
            return self._server_hung(may_sleep=True)
        owner = self._owner()
        return self._describe(owner if owner in late else late[0], "hung", self._no_progress())

    def _beat(self, who: int, process: server.Process) -> tuple[int, float]:
        """A value that changes as long as process ``who`` gets on."""
        starting = self._state(who) is State.STARTING  # it has no heartbeat yet
        return int(self._machine.states[who, accounts.HEARTBEAT]), pulse(process.pid) if starting else 0.0

    def _server_hung(self, may_sleep: bool) -> dict[str, Any] | None:
        """The failure of a forkserver that was stopped or, unless it ``may_sleep``, is asleep; None if it gets on."""
        pid = server.pid()
        if pid is None:
            return None
        beat = (pulse(pid, may_sleep), len(self._processes))
        if self._server_beat.unchanged_s(beat) <= self._patience_s:
            return None
        return _forkserver("hung", self._no_progress())

    def _no_progress(self) -> str:
        return f"no progress for {self._patience_s:g} s"

    def stop(self, grace_s: float) -> dict[str, Any] | None:
        """Wait for workers that were told to stop, then end the others; returns the failure of one that did not leave.

        When a run ends by itself each worker has ``grace_s`` of its own, and `_STARVED` times as long if the machine
        keeps it from a processor.
        """
        control = self._machine.control
        by_itself = control[words.STOP] == words.STOP_DONE and not control[words.FINISH]
        deadline = time.monotonic() + (_STARVED * grace_s if by_itself else grace_s)
        for process in self._processes:
            leaving = Watch()
            while process.join(_LOOK_S) and time.monotonic() < deadline:
                if by_itself and leaving.unchanged_s(True, process.pid) >= grace_s:
                    break
            if process.is_alive():
                break  # the others are not waited for either
        failure = self.casualty()
        for who, process in enumerate(self._processes):
            if process.is_alive():
                failure = failure or self._describe(who, "hung", f"did not leave within {grace_s:g} s")
        self._stop_at_once()
        return failure

    def _stop_at_once(self) -> None:
        """Kill the workers that still run, and forget all."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            while process.join(_LOOK_S):
                if self._server_hung(may_sleep=True):  # the server cannot tell any more how workers end
                    server.kill()
            process.close()
        self._processes = []

    def unique_bytes(self) -> dict[str, int]:
        """Memory in bytes that a process has alone (USS), by name; the mapped part of the segment is shared."""
        found = {}
        for name, pid in {"supervisor": None, **self.pids}.items():
            try:
                found[name] = int(psutil.Process(pid).memory_full_info().uss)
            except (psutil.Error, OSError):
                continue
        return found

    def _state(self, who: int) -> State:
        return State(int(self._machine.states[who, accounts.STATE]))

    def _owner(self) -> int:
        """Process that holds mmu_lock alone, or -1."""
        return max(0, int(self._machine.control[words.LOCK])) - 1

    def _describe(self, who: int, what: str, how: str) -> dict[str, Any]:
        state = self._state(who)
        step = int(self._machine.states[who, accounts.AT_STEP])
        return {
            "process": self._processes[who].name,
            "pid": self._processes[who].pid,
            "what": what,
            "how": how,
            "state": state.name.lower().replace("_", "-"),
            "step": STEPS[step].value if step >= 0 else None,
            "ipa": f"{int(self._machine.states[who, accounts.AT_GFN]) << self._plan.geo.granule_shift:#x}",
            "held_mmu_lock": self._owner() == who or state is State.LOCK_HELD,
        }


def _ending(exit_code: int) -> str:
    return f"killed by {signal.Signals(-exit_code).name}" if exit_code < 0 else f"exit code {exit_code}"


def _forkserver(what: str, how: str) -> dict[str, Any]:
    return {"process": "forkserver", "what": what, "how": how}


def _too_many(vcpus: int, error: OSError) -> MachineError:
    """The error of a machine that does not allow a run with so many vCPUs."""
    limit = {errno.EMFILE: "`ulimit -n`", errno.EAGAIN: "`ulimit -u`"}.get(error.errno or 0, "the machine's limits")
    return MachineError(
        f"cannot start {vcpus} vCPUs and the hypervisor: {error.strerror}", f"use fewer vCPUs, or raise {limit}"
    )
