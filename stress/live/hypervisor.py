"""The hypervisor as a scenario drives it: cycles, dwells, audits at quiescent points, and the end."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from stress.kernels.audit import audit
from stress.kernels.codes import POOL_DRY, POOL_EXHAUSTED
from stress.kernels.records import close_cycle, close_records, open_cycle, settled
from stress.kernels.teardown import reap
from stress.live.plan import Plan
from stress.shm.accounts import (
    C_ACCESSES,
    C_FAULTS,
    CLOSED,
    COSTS_END_NS,
    FAULT_KINDS,
    FIRST_ACCESS_NS,
    HEARTBEAT,
    K_RECOVERY_FAULTS,
    K_RECOVERY_NS,
    LIFE_CYCLE,
    PHASE,
    PHASE_SLOT_MASK,
    R_CYCLE,
    R_END_NS,
    R_NUMBER,
    R_VOID,
    STATE,
    State,
)
from stress.shm.layout import Machine
from stress.shm.publish import publish
from stress.shm.words import CYCLE, FINISH, FINISH_EXHAUSTED, PARK, PARKED, POOL_HEAD, REBUILDS, SEQUENCE, STOP

_POLL_S = 0.0005
# Dwells and the platform's costs may go on this long after a run's time, so that the last cycle ends like the others.
_OVERTIME_NS = 2_000_000_000
# The platform's costs may add this much to the start, for every vCPU's first fault, one after the other.
_START_NS = 60_000_000_000


class Stopped(Exception):  # noqa: N818 - not an error
    """The run stops: the hypervisor leaves whatever it is doing."""


class Hypervisor:
    """The hypervisor's view of the run."""

    def __init__(self, machine: Machine, plan: Plan) -> None:
        self.machine = machine
        self.plan = plan
        self.who = plan.geo.hypervisor
        self.random = random.Random(plan.seed)
        self._audited_ns = time.monotonic_ns()
        self._end_ns: int | None = None
        self._seen = np.zeros(plan.geo.table_pages, np.int64)
        self._starts = np.zeros(plan.geo.table_pages, np.int64)
        #: Clock and the vCPUs' faults when dirty logging ended in the cycle under way; None: it did not.
        self._recovery: tuple[int, int] | None = None

    @property
    def finishing(self) -> bool:
        """Whether the run was asked to wind up."""
        return bool(self.machine.control[FINISH])

    def beat(self) -> None:
        """Show the watchdog that the hypervisor gets on; raises Stopped when the run is over."""
        self.machine.states[self.who, HEARTBEAT] += 1
        if self.machine.control[STOP]:
            raise Stopped

    def state(self, state: State) -> None:
        """Note what the hypervisor is doing."""
        publish(self.machine.states, (self.who, STATE), state)

    def count(self, what: str, number: int = 1) -> None:
        """Add to one of LIFE_CYCLE's counts."""
        self.machine.life[LIFE_CYCLE.index(what)] += number

    def check(self, status: int) -> int:
        """Pass on the status that a kernel returned; an exhausted table pool ends the run: something leaks."""
        if status == POOL_EXHAUSTED:
            publish(self.machine.control, FINISH, FINISH_EXHAUSTED)
            raise Finished
        self.beat()
        return status

    def allocate(self, operation: Callable[[], int]) -> int:
        """Do an operation that takes tables, again as long as tables wait to be freed; returns its checked status."""
        while (status := operation()) == POOL_DRY:
            self.beat()
            self.maintain()
            time.sleep(_POLL_S)
        return self.check(status)

    def start_guests(self) -> None:
        """Wait until every vCPU is ready, let all of them go, wait until each has made its first accesses."""
        vcpus = self.machine.states[: self.who]
        self.wait_until(lambda: bool((vcpus[:, STATE] != State.STARTING).all()))
        if self.plan.duration_ns is not None and not self.plan.staged:
            self.end_after(self.plan.duration_ns + _START_NS)
        self.state(State.DWELL)  # they wait until we are not starting any more
        self.wait_until(lambda: bool(vcpus[:, FIRST_ACCESS_NS].all()))
        self._audited_ns = time.monotonic_ns()  # the first audit is due an interval from here

    def end_after(self, duration_ns: int) -> None:
        """From now on the run has ``duration_ns``: neither a dwell nor a platform's costs prolong it by much."""
        self._end_ns = time.monotonic_ns() + duration_ns + _OVERTIME_NS
        publish(self.machine.tally, COSTS_END_NS, self._end_ns)

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Sleep until ``condition`` holds."""
        while not condition():
            self.beat()
            self.maintain()
            time.sleep(_POLL_S)

    def maintain(self) -> None:
        """Free detached tables after their grace period, and close records before their ring is full."""
        reap(self.machine, self.who)
        last = int(self.machine.control[REBUILDS])
        if last - self.machine.tally[CLOSED] > self.machine.geo.record_rows // 8:
            close_records(self.machine, settled(self.machine, last))

    def dwell(self, duration_ns: int) -> None:
        """Let the guest run for a time, or until the run winds up or has no time left."""
        self.state(State.DWELL)
        end = time.monotonic_ns() + duration_ns
        if self._end_ns is not None:
            end = min(end, self._end_ns)
        while (left := end - time.monotonic_ns()) > 0 and not self.finishing:
            self.beat()
            self.maintain()
            time.sleep(min(left / 1e9, 0.05))

    def dwell_around(self, duration_ns: int) -> None:
        """Dwell between a half and one and a half of ``duration_ns``.

        With a fixed dwell rebuilds fall in step with a guest that sweeps through its memory: every rebuild then meets
        it at the same place, and the share of rebuilds hit says nothing.
        """
        self.dwell(int(duration_ns * self.random.uniform(0.5, 1.5)))

    @contextmanager
    def cycle(self, order: int) -> Iterator[None]:
        """One cycle of an order: rebuilds and accesses that begin inside are charged to the order."""
        machine, control = self.machine, self.machine.control
        open_cycle(machine, order)
        self._recovery = None
        before = self._reading()
        self.beat()
        try:
            yield
        finally:
            last = int(control[REBUILDS])
            while settled(machine, last) < last:
                self.beat()
                time.sleep(_POLL_S / 10)
            reap(machine, self.who)
            grown = (after - start for after, start in zip(self._reading(), before, strict=True))
            self._attribute_to_nobody()  # accesses before the next cycle do not count, as their time does not
            self._note_recovery(last)
            close_records(machine, last)
            close_cycle(machine, *grown)

    def begin_recovery(self) -> None:
        """Dirty logging ends now."""
        self._recovery = time.monotonic_ns(), self._faults()

    def _note_recovery(self, last: int) -> None:
        """Write into the cycle's row how long after dirty logging the last rebuild up to number ``last`` ended."""
        machine = self.machine
        number = int(machine.control[CYCLE])
        row = machine.cycles[number % machine.geo.cycle_rows]
        row[[K_RECOVERY_NS, K_RECOVERY_FAULTS]] = 0
        if self._recovery is None:
            return
        began_ns, faults = self._recovery
        cycle, rebuild, void = machine.records[:, [R_CYCLE, R_NUMBER, R_VOID]].T
        records = machine.records[(cycle == number) & (rebuild <= last) & (void == 0)]
        if len(records) and (end_ns := int(records[:, R_END_NS].max())) > began_ns:
            row[K_RECOVERY_NS] = end_ns - began_ns
            row[K_RECOVERY_FAULTS] = self._faults() - faults

    def _faults(self) -> int:
        """Faults of all vCPUs so far."""
        return int(self.machine.counters[:, :, C_FAULTS : C_FAULTS + FAULT_KINDS].sum())

    def let_guests_see(self) -> None:
        """Wait until every vCPU has run on the table as it is now: the last change is tested like the first."""
        self._attribute_to_nobody()
        self.let_guests_run(lambda: False)

    def let_guests_run(self, enough: Callable[[], bool]) -> None:
        """Wait until every vCPU has run on the table as it is now, or there is ``enough``.

        Of the next two chunks of accesses that a vCPU completes, the second has begun after this call.
        """
        accesses = self.machine.counters[:, :, C_ACCESSES]
        for _ in range(2):
            before = accesses.sum(axis=1)
            self.wait_until(
                lambda before=before: self.finishing or enough() or bool((accesses.sum(axis=1) > before).all())  # type: ignore[misc]
            )

    def _attribute_to_nobody(self) -> None:
        """Charge the vCPUs' accesses and faults from here on to no order."""
        tally = self.machine.tally
        publish(tally, PHASE, (int(tally[PHASE]) & ~PHASE_SLOT_MASK) | (self.machine.counters.shape[1] - 1))

    @contextmanager
    def parked(self) -> Iterator[None]:
        """Hold every vCPU at a quiescent point, between two accesses."""
        machine = self.machine
        phase = int(machine.tally[PHASE])
        self._attribute_to_nobody()
        publish(machine.control, PARK, 1)
        self.wait_until(lambda: bool(self.machine.procs[: self.who, PARKED].all()))
        reap(self.machine, self.who)
        yield
        publish(machine.tally, PHASE, phase)
        publish(machine.control, PARK, 0)
        # A vCPU that has not left its parking place yet must not be taken for parked by the next audit.
        self.wait_until(lambda: not self.machine.procs[: self.who, PARKED].any())

    def audit(self) -> None:
        """Audit the table while the vCPUs are parked."""
        self.state(State.AUDIT)
        with self.parked():
            audit(self.machine, self.who, self._seen, self._starts)
        self._audited_ns = time.monotonic_ns()

    def audit_if_due(self) -> None:
        """Audit if the last audit is an interval ago; called between cycles, and between the stages of a long one."""
        if time.monotonic_ns() - self._audited_ns >= self.plan.audit_interval_ns:
            self.audit()

    def _reading(self) -> tuple[int, int, int, int]:
        """(clock in ns, committed accesses of all vCPUs, TLBIs published, table pages ever allocated)."""
        machine = self.machine
        return (
            time.monotonic_ns(),
            int(machine.counters[:, :, C_ACCESSES].sum()),
            int(machine.control[SEQUENCE]),
            int(machine.control[POOL_HEAD]),
        )


class Finished(Exception):  # noqa: N818 - not an error
    """The scenario is over before its time: audit, then stop."""
