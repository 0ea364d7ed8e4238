"""Stages: all vCPUs run a program of their own at the same time, and the hypervisor times it.

The time of a stage runs from its release to the end of its slowest vCPU, as in the KVM selftests. All are ready by
then and spin, so that no wake-up of a sleeper is part of it: the selftests have one, and stages of many seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from stress.kernels.notifier import unmap_memslots
from stress.kernels.workload import Pattern
from stress.live.hypervisor import Finished
from stress.live.scenarios.dirty_logging import LoggingScenario
from stress.programs import NO_HEAD, Program
from stress.shm.accounts import (
    COUNTER_WORDS,
    G_COUNTERS,
    G_DURATION_NS,
    G_ITERATION,
    G_ORDER,
    G_REBUILDS,
    G_REPEAT,
    G_WHAT,
    STAGE_END_NS,
    STAGE_NAMES,
    STAGES_HEAD,
    STAGES_TAIL,
    VOIDED,
)
from stress.shm.publish import fence, publish
from stress.shm.words import (
    P_ACCESSES,
    P_FIRST,
    P_GROUP,
    P_HEAD,
    P_PATTERN,
    P_RUN,
    P_SKIP,
    P_WRITE_BELOW,
    REBUILDS,
    STAGE,
    STAGE_BEGINS_NS,
    STAGE_DONE,
    STAGE_READY,
)

#: From when a stage's beginning is told to it: by then the hypervisor sleeps, and leaves its processor to a vCPU.
_NOTICE_NS = 100_000


class StagedScenario(LoggingScenario):
    """A scenario made of stages."""

    in_passes = True

    def begin_pass(self, order: int, turn: int) -> None:
        """Start with nothing mapped, as the selftest's new VM does."""
        self._order = order
        self._pass = turn
        self.hypervisor.check(unmap_memslots(self.machine, self.who))

    def stage(self, name: str, program: Callable[[int], Program], iteration: int = 0) -> None:
        """Let every vCPU run its program, and record how long that took."""
        machine = self.machine
        for vcpu in range(self.who):
            its = program(vcpu)
            row = machine.programs[vcpu]
            row[P_FIRST], row[P_GROUP], row[P_HEAD] = its.first, its.group, its.head
            row[P_SKIP], row[P_RUN], row[P_WRITE_BELOW] = its.skip, its.run, its.write_below
            row[P_ACCESSES] = its.groups * (its.run + (its.head != NO_HEAD))
            row[P_PATTERN] = Pattern.PROGRAM if its.pattern is None else its.pattern
        number = int(machine.control[STAGE]) + 1

        def run() -> int:
            publish(machine.control, STAGE_BEGINS_NS, 0)
            publish(machine.control, STAGE, number)
            self._wait_for_all(STAGE_READY, number)
            start = time.monotonic_ns() + _NOTICE_NS
            publish(machine.control, STAGE_BEGINS_NS, start)
            self._wait_for_all(STAGE_DONE, number)
            fence()  # each vCPU wrote its end before it said that it is done
            return int(machine.states[: self.who, STAGE_END_NS].max()) - start

        self._record(name, iteration, run)

    def _wait_for_all(self, word: int, stage: int) -> None:
        """Sleep until every vCPU has a stage's number in a word of its row; Finished if the run winds up first."""
        numbers = self.machine.procs[: self.who, word]
        self.hypervisor.wait_until(lambda: self.hypervisor.finishing or bool((numbers == stage).all()))
        if not (numbers == stage).all():
            raise Finished

    def timed(self, name: str, work: Callable[[], None], iteration: int = 0) -> None:
        """Do the hypervisor's own ``work``, and record how long it took."""

        def run() -> int:
            start = time.monotonic_ns()
            work()
            return time.monotonic_ns() - start

        self._record(name, iteration, run)

    def _record(self, name: str, iteration: int, run: Callable[[], int]) -> None:
        machine = self.machine
        self.hypervisor.audit_if_due()
        counters = machine.counters.sum(axis=(0, 1))
        rebuilds = int(machine.control[REBUILDS] - machine.tally[VOIDED])
        duration_ns = run()
        head = int(machine.tally[STAGES_HEAD])
        self.hypervisor.wait_until(lambda: bool(head - machine.tally[STAGES_TAIL] < machine.geo.stage_rows))
        row = machine.stages[head % machine.geo.stage_rows]
        row[G_WHAT] = STAGE_NAMES.index(name)
        row[G_ITERATION] = iteration
        row[G_REPEAT] = self._pass
        row[G_DURATION_NS] = duration_ns
        row[G_ORDER] = self._order
        row[G_REBUILDS] = int(machine.control[REBUILDS] - machine.tally[VOIDED]) - rebuilds
        row[G_COUNTERS : G_COUNTERS + COUNTER_WORDS] = machine.counters.sum(axis=(0, 1)) - counters
        publish(machine.tally, STAGES_HEAD, head + 1)
