"""Dirty logging as a VMM drives it: switch it on and off for all of memory, split eagerly, rebuild afterwards."""

from __future__ import annotations

from stress.kernels.dirty import set_logging
from stress.kernels.rebuild import rebuild
from stress.kernels.split import is_split, split
from stress.live.scenarios.base import Scenario

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
                hypervisor.check(split(self.machine, self.who, gfn, _ALL, 0, 0))
                hypervisor.count("blocks_split_eagerly", int(is_split(self.machine, gfn)) - int(was_split))

    def disable_logging(self) -> None:
        """From here on faults may map blocks again."""
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
        """Until every block is a block again, or nobody meets the tables that are left."""
        self.rebuild_blocks()
        for _ in range(_PATIENCE):
            self.hypervisor.dwell_around(self.plan.dwell_ns)
            if self.hypervisor.finishing or not self.tables_left():
                return
