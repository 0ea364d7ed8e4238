"""The hypervisor as a scenario drives it: dwell, audit at quiescent points, notice the end."""

from __future__ import annotations

import time

import numpy as np

from stress.kernels.audit import audit
from stress.run.plan import Plan
from stress.shm.layout import (
    FINISH,
    FIRST_ACCESS_NS,
    HEARTBEAT,
    PARK,
    PARKED,
    PHASE,
    STATE,
    STOP,
    Machine,
    State,
)

_POLL_S = 0.0005


class Stopped(Exception):  # noqa: N818 - not an error
    """The run stops: leave whatever is going on."""


class Hypervisor:
    """The hypervisor's view of the run."""

    def __init__(self, machine: Machine, plan: Plan) -> None:
        self.machine = machine
        self.plan = plan
        self.who = plan.geo.hypervisor
        self._seen = np.zeros(plan.geo.table_pages, np.int64)

    @property
    def finishing(self) -> bool:
        """Somebody asked the run to wind up."""
        return bool(self.machine.control[FINISH])

    def beat(self) -> None:
        """Show the watchdog that we get on; raises Stopped when the run is over."""
        self.machine.procs[self.who, HEARTBEAT] += 1
        if self.machine.control[STOP]:
            raise Stopped

    def state(self, state: State) -> None:
        """Note what we are doing."""
        self.machine.procs[self.who, STATE] = state

    def wait_for_guests(self) -> None:
        """Wait until every vCPU has made its first accesses."""
        while not self.machine.procs[: self.who, FIRST_ACCESS_NS].all():
            self.beat()
            time.sleep(_POLL_S)

    def dwell(self, duration_ns: int) -> None:
        """Let the guest run; ends early if the run winds up."""
        self.state(State.DWELL)
        end = time.monotonic_ns() + duration_ns
        while (left := end - time.monotonic_ns()) > 0 and not self.finishing:
            self.beat()
            time.sleep(min(left / 1e9, 0.05))

    def audit(self) -> None:
        """Park the vCPUs, audit the table, let them go on."""
        self.state(State.AUDIT)
        control = self.machine.control
        phase = int(control[PHASE])
        control[PHASE] = (phase & ~0xFF) | (self.machine.counters.shape[1] - 1)
        control[PARK] = 1
        while not self.machine.procs[: self.who, PARKED].all():
            self.beat()
            time.sleep(_POLL_S)
        audit(self.machine, self.who, self._seen)
        control[PHASE] = phase
        control[PARK] = 0
        # A vCPU that has not left its parking place yet must not be taken for parked by the next audit.
        while self.machine.procs[: self.who, PARKED].any():
            self.beat()
            time.sleep(_POLL_S)
