"""The ``dirty-log-perf`` scenario: the stages of KVM's ``dirty_log_perf_test`` (Linux 6.1), and one more.

Each vCPU works on a part of memory of its own, or all work on all of it. After logging was switched off they read and
write it once more, so that blocks are rebuilt. Manual protection (``KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2``) is in force,
as in the selftest, but without ``KVM_DIRTY_LOG_INITIALLY_SET``: once logging is on no block can be written.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np

from stress.kernels.dirty import clear_log, harvest
from stress.kernels.workload import Pattern
from stress.live.hypervisor import Hypervisor
from stress.live.scenarios.stages import StagedScenario
from stress.programs import ALWAYS, Program, own_part
from stress.shm.words import SLOT_FIRST, SLOT_PAGES


class DirtyLogPerf(StagedScenario):
    """Populate, enable, dirty, get and clear the log in iterations, disable, recover."""

    def __init__(self, hypervisor: Hypervisor) -> None:
        super().__init__(hypervisor)
        self._dirty = np.zeros_like(self.machine.dirty)

    def cycle(self, order: int, turn: int) -> None:
        """One pass."""
        chunk = self.plan.clear_pages
        self.begin_pass(order, turn)
        self.stage("populate", lambda vcpu: self._own(vcpu, ALWAYS))
        self.timed("enable", self.enable_logging)
        for iteration in range(1, self.plan.iterations + 1):
            self.stage("dirty", self._dirtying, iteration)
            if chunk is None:
                self.timed("get-dirty-log", self._harvest, iteration)
            else:
                self.timed("get-dirty-log", self._get, iteration)
                self.timed("clear-dirty-log", partial(self._clear, chunk), iteration)
        self.timed("disable", self.disable_logging)
        self.stage("recover", lambda vcpu: self._own(vcpu, self.plan.workload.write_below))

    def _dirtying(self, vcpu: int) -> Program:
        """As many accesses as the vCPU's part has pages, by the run's pattern."""
        work = self.plan.workload
        own = self._own(vcpu, work.write_below)
        return own if work.pattern == Pattern.SEQUENTIAL else replace(own, pattern=Pattern(work.pattern))

    def _own(self, vcpu: int, write_below: int) -> Program:
        return own_part(self.plan.geo.pages, self.who, vcpu, self.plan.overlap, write_below)

    def _harvest(self) -> None:
        """Get the log, which clears it."""
        self._harvested(self.hypervisor.check(harvest(self.machine, self.who, self._dirty)))

    def _get(self) -> None:
        """Copy the log and leave it as it is; bits that are set meanwhile may be in the copy or not."""
        np.copyto(self._dirty, self.machine.dirty)

    def _clear(self, chunk: int) -> None:
        """Clear the bits of the log that the copy has, ``chunk`` pages of a memslot at a time."""
        pages = 0
        for slot, row in enumerate(self.machine.memslots):
            end = int(row[SLOT_FIRST] + row[SLOT_PAGES])
            for first in range(int(row[SLOT_FIRST]), end, chunk):
                last = min(first + chunk, end)
                pages += self.hypervisor.check(clear_log(self.machine, self.who, self._dirty, slot, first, last))
        self._harvested(pages)

    def _harvested(self, pages: int) -> None:
        self.hypervisor.count("harvests")
        self.hypervisor.count("dirty_pages", pages)
