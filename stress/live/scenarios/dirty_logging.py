"""Dirty logging as a VMM drives it: switch it on and off for all of memory, split eagerly, rebuild afterwards."""

from __future__ import annotations

from functools import partial

from stress.kernels.dirty import set_logging, stop_logging_at
from stress.kernels.rebuild import rebuild
from stress.kernels.split import is_split, split
from stress.live.scenarios.base import Scenario
from stress.shm.publish import publish
from stress.shm.words import HOST_SEQUENCE, SLOT_LOGGING

_ALL = 1 << 20
#: How many dwells guests get to meet, and so rebuild, every block.
_PATIENCE = 20


class LoggingScenario(Scenario):
    """A scenario that switches dirty logging."""

    def enable_logging(self) -> None:
        """Write-protect all memory; with eager splitting blocks become pages now."""
        hypervisor = self.hypervisor
        hypervisor.check(set_logging(self.machine, self.who, 1))
        hypervisor.count("logging_enabled")
        if self.plan.eager_split:
            for gfn in self.whole_blocks():
                was_split = is_split(self.machine, gfn)
                hypervisor.allocate(partial(split, self.machine, self.who, gfn, _ALL, 0, 0))
                hypervisor.count("blocks_split_eagerly", int(is_split(self.machine, gfn)) - int(was_split))

    def split_as_logged(self, gfn: int) -> None:
        """Replace a block by a table. Where vCPUs rebuild, logging is on from here on, or a fault would rebuild it."""
        if self.plan.geo.vcpu_rebuilds:
            control = self.machine.control
            # Faults map pages, but nothing else is write-protected.
            publish(self.machine.memslots, (0, SLOT_LOGGING), 1)
            publish(control, HOST_SEQUENCE, int(control[HOST_SEQUENCE]) + 1)  # no other process writes it
        self.hypervisor.allocate(partial(split, self.machine, self.who, gfn, self.plan.share, 1, 1))

    def stop_logging_at(self, gfn: int) -> None:
        """End the logging of one block: the guest's next write to it may map a block."""
        self.hypervisor.check(stop_logging_at(self.machine, self.who, gfn, gfn + self.block_pages))

    def disable_logging(self) -> None:
        """Switch logging off: from here on faults may map blocks again."""
        self.hypervisor.check(set_logging(self.machine, self.who, 0))
        self.hypervisor.count("logging_disabled")

    def tables_left(self) -> bool:
        """Whether any block is still a table."""
        return any(is_split(self.machine, gfn) for gfn in self.whole_blocks())

    def rebuild_blocks(self) -> None:
        """Rebuild each block, if that is the hypervisor's task."""
        if not self.plan.geo.vcpu_rebuilds:
            for gfn in self.whole_blocks():
                self.hypervisor.check(rebuild(self.machine, self.who, gfn))
                self.hypervisor.maintain()

    def let_rebuild(self) -> None:
        """Let the guest run until every block is a block again, or it meets none of the tables that are left."""
        self.rebuild_blocks()
        for _ in range(_PATIENCE):
            self.hypervisor.dwell_around(self.plan.dwell_ns)
            if self.hypervisor.finishing or not self.tables_left():
                return
