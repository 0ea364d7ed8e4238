"""The ``rebuild`` scenario: block after block is split, populated, run on as pages, rebuilt, run on as a block.

With several orders each round takes every order once, on the same block, in an order drawn anew per round, so that
noise and the state of the caches hit all of them alike.
"""

from __future__ import annotations

import random
import time

import numpy as np

from stress.kernels import rebuild as kernel
from stress.kernels.fault import POOL_EXHAUSTED
from stress.kernels.split import split, write_unmapped
from stress.run.hypervisor import Hypervisor
from stress.shm.layout import C_ACCESSES, FINISH, FINISH_EXHAUSTED, PHASE, POOL_HEAD, SEQUENCE


class Rebuild:
    """Cycles until the time is up, the rebuilds are done, or the run winds up."""

    def __init__(self, hypervisor: Hypervisor) -> None:
        self._hypervisor = hypervisor
        self._machine = hypervisor.machine
        self._plan = hypervisor.plan
        self._steps = [np.array(codes, np.int64) for codes in self._plan.orders]
        self._random = random.Random(self._plan.seed)
        self._number = 0

    def play(self) -> None:
        """Run the scenario."""
        plan, hypervisor = self._plan, self._hypervisor
        start = time.monotonic_ns()
        audited = start
        rounds = 0
        turns = list(range(len(self._steps)))
        while plan.rebuilds is None or rounds < plan.rebuilds:
            self._random.shuffle(turns)
            for order in turns:
                now = time.monotonic_ns()
                if hypervisor.finishing or (plan.duration_ns is not None and now - start >= plan.duration_ns):
                    return
                if now - audited >= plan.audit_interval_ns:
                    hypervisor.audit()
                    audited = time.monotonic_ns()
                if not self._cycle(order, rounds % plan.geo.blocks):
                    return
            rounds += 1

    def _cycle(self, order: int, block: int) -> bool:
        """One cycle of one order on one block; False if the table pool is exhausted (a leak)."""
        machine, hypervisor, who = self._machine, self._hypervisor, self._hypervisor.who
        number = self._number + 1
        machine.control[PHASE] = number << 8 | 2 * order
        before = self._reading()
        hypervisor.beat()
        if split(machine, who, block, self._plan.share) == POOL_EXHAUSTED:
            machine.control[FINISH] = FINISH_EXHAUSTED
            return False
        if not machine.geo.fwb:
            write_unmapped(machine, who, block)
        hypervisor.dwell(self._dwell_ns())
        hypervisor.beat()
        done = kernel.rebuild(machine, who, order, self._steps[order], block, number) == kernel.DONE
        hypervisor.dwell(self._dwell_ns())
        if done:
            grown = (after - start for after, start in zip(self._reading(), before, strict=True))
            kernel.complete(machine, order, number, *grown)
            self._number = number
        return True

    def _dwell_ns(self) -> int:
        """Between a half and one and a half of the dwell asked for.

        With a fixed one, rebuilds fall in step with a guest that sweeps through its memory: every rebuild then meets
        it at the same place, and the share of rebuilds hit says nothing.
        """
        return int(self._plan.dwell_ns * self._random.uniform(0.5, 1.5))

    def _reading(self) -> tuple[int, int, int, int]:
        """(clock in ns, committed accesses of all vCPUs, TLBIs published, table pages ever allocated)."""
        machine = self._machine
        return (
            time.monotonic_ns(),
            int(machine.counters[:, :, C_ACCESSES].sum()),
            int(machine.control[SEQUENCE]),
            int(machine.control[POOL_HEAD]),
        )
