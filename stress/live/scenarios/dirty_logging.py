"""Dirty logging as a VMM drives it: switch it on and off for all of memory, split eagerly, rebuild afterwards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import groupby

from stress.kernels.dirty import set_logging, stop_logging_at
from stress.kernels.recover import recover
from stress.kernels.split import is_split, split, split_eagerly
from stress.live.scenarios.base import Scenario
from stress.shm.publish import publish
from stress.shm.words import HOST_SEQUENCE, SLOT_BASE, SLOT_LOGGING

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
            for chunk in self._in_chunks():
                were_split = self._tables(chunk)
                hypervisor.allocate(partial(split_eagerly, self.machine, self.who, *self._bounds(chunk)))
                hypervisor.count("blocks_split_eagerly", self._tables(chunk) - were_split)

    def split_as_logged(self, gfn: int) -> None:
        """Replace a block by a table. Where vCPUs rebuild, logging is on from here on, or a fault would rebuild it."""
        if self.plan.geo.vcpu_rebuilds:
            control = self.machine.control
            # Faults map pages, but nothing else is write-protected.
            publish(self.machine.memslots, (0, SLOT_LOGGING), 1)
            publish(control, HOST_SEQUENCE, int(control[HOST_SEQUENCE]) + 1)  # no other process writes it
        self.hypervisor.allocate(partial(split, self.machine, self.who, gfn, self.plan.share, 1, 1))

    def stop_logging_at(self, blocks: Sequence[int]) -> None:
        """End the logging of adjacent blocks: the guest's next write to them may map a block."""
        self.hypervisor.check(stop_logging_at(self.machine, self.who, blocks[0], blocks[-1] + self.block_pages))

    def disable_logging(self) -> None:
        """Switch logging off: from here on faults may map blocks again. Who does that may make blocks of all tables."""
        hypervisor = self.hypervisor
        hypervisor.begin_recovery()
        hypervisor.check(set_logging(self.machine, self.who, 0))
        hypervisor.count("logging_disabled")
        if self.plan.recovers:
            for chunk in self._in_chunks():
                hypervisor.check(recover(self.machine, self.who, *self._bounds(chunk)))
                hypervisor.maintain()

    def tables_left(self) -> bool:
        """Whether any block is still a table."""
        return self._tables(self.whole_blocks()) > 0

    def let_rebuild(self) -> None:
        """Let the guest run until every block is a block again, or it meets none of the tables that are left."""
        for _ in range(_PATIENCE):
            self.hypervisor.dwell_around(self.plan.dwell_ns)
            if self.hypervisor.finishing or not self.tables_left():
                return

    def _tables(self, blocks: list[int]) -> int:
        """How many of the blocks are tables."""
        return sum(is_split(self.machine, gfn) for gfn in blocks)

    def _in_chunks(self) -> Iterator[list[int]]:
        """The whole blocks, chunk by chunk of each memslot."""

        def chunk(gfn: int) -> tuple[int, int]:
            slot = self._slot_of(gfn)
            return slot, (gfn - int(self.machine.memslots[slot, SLOT_BASE])) // self.plan.chunk_pages

        for _, blocks in groupby(self.whole_blocks(), chunk):
            yield list(blocks)

    def _bounds(self, chunk: list[int]) -> tuple[int, int]:
        """First guest frame of a chunk, and the one behind its last."""
        return chunk[0], chunk[-1] + self.block_pages
