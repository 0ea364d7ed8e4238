"""The ``rebuild`` scenario: batch after batch is split, populated, run on as pages, rebuilt, run on as blocks.

The hypervisor process rebuilds, or the first vCPU that writes to the block, as in KVM once dirty logging stopped.
"""

from __future__ import annotations

from functools import partial

from stress.kernels.rebuild import rebuild
from stress.kernels.split import is_split, populate, write_unmapped
from stress.live.scenarios.dirty_logging import LoggingScenario


class Rebuild(LoggingScenario):
    """One batch per cycle, in turn: a block, if not said otherwise."""

    def prepare(self) -> None:
        """Where vCPUs rebuild, map every block: dirty logging must not find one to be mapped as pages."""
        if self.plan.geo.vcpu_rebuilds:
            for gfn in self.whole_blocks():
                self.hypervisor.allocate(partial(populate, self.machine, self.who, gfn))

    def cycle(self, order: int, turn: int) -> None:
        """Split the blocks of a batch, dwell, rebuild them or let them be rebuilt, dwell."""
        machine, hypervisor, plan = self.machine, self.hypervisor, self.plan
        batches = self.batches()
        batch = batches[turn % len(batches)]
        for gfn in batch:
            self.split_as_logged(gfn)
            if not plan.geo.fwb:
                hypervisor.check(write_unmapped(machine, self.who, gfn))
        hypervisor.dwell_around(plan.dwell_ns)
        if plan.geo.vcpu_rebuilds:
            self.stop_logging_at(batch)
        else:
            hypervisor.check(rebuild(machine, self.who, batch[0]))
        hypervisor.dwell_around(plan.dwell_ns)
        if plan.geo.vcpu_rebuilds and plan.rounds is not None:  # the limit counts rebuilds, not cycles
            hypervisor.let_guests_run(lambda: not any(is_split(machine, gfn) for gfn in batch))
