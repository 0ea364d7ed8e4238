"""The ``dirty-log-perf`` scenario: the stages of KVM's ``dirty_log_perf_test`` (Linux 6.1), and one more.

Each vCPU works on a part of memory of its own. After logging was switched off it reads and writes it once more, so
that blocks are rebuilt.
"""

from __future__ import annotations

import numpy as np

from stress.kernels.dirty import harvest
from stress.live.hypervisor import Hypervisor
from stress.live.scenarios.stages import ALWAYS, Program, StagedScenario


class DirtyLogPerf(StagedScenario):
    """Populate, enable, dirty and harvest in iterations, disable, recover."""

    def __init__(self, hypervisor: Hypervisor) -> None:
        super().__init__(hypervisor)
        self._dirty = np.zeros_like(self.machine.dirty)

    def cycle(self, order: int, turn: int) -> None:
        """One pass."""
        self.begin_pass(order, turn)
        self.stage("populate", lambda vcpu: self._own(vcpu, ALWAYS))
        self.timed("enable", self.enable_logging)
        for iteration in range(1, self.plan.iterations + 1):
            self.stage("dirty", lambda vcpu: self._own(vcpu, self.plan.workload.write_below), iteration)
            self.timed("get-dirty-log", self._harvest, iteration)
        self.timed("disable", self.disable_logging)
        self.stage("recover", lambda vcpu: self._own(vcpu, self.plan.workload.write_below))

    def _own(self, vcpu: int, write_below: int) -> Program:
        """Access every page of the vCPU's own part once, in turn."""
        pages, vcpus = self.plan.geo.pages, self.who
        first = pages * vcpu // vcpus
        return Program(pages * (vcpu + 1) // vcpus - first, first=first, run=1, write_below=write_below)

    def _harvest(self) -> None:
        pages = self.hypervisor.check(harvest(self.machine, self.who, self._dirty))
        self.hypervisor.count("harvests")
        self.hypervisor.count("dirty_pages", pages)
