"""The ``thp`` scenario: the host breaks huge pages up and collapses small ones, and moves the memslot, under the guest.

Each time the MMU notifier unmaps the range and the frames move elsewhere. After a collapse the next fault installs a
block directly: no table is left to rebuild. For an order with steps before `lock`, or with `--yield-every`, dirty
logging comes and goes in between and leaves a table to the vCPUs, so that frames move while one of them rebuilds.
"""

from __future__ import annotations

from stress.kernels.notifier import invalidate_end, invalidate_start, move_frames, move_memslots
from stress.live.hypervisor import Hypervisor
from stress.live.scenarios.dirty_logging import LoggingScenario
from stress.orders import Step
from stress.programs import MOVE_EVERY
from stress.shm.words import SLOT_BASE

#: Scatters the frames of a range whose pages are small: page i lies at i ^ _MIX.
_MIX = 0x155


class Thp(LoggingScenario):
    """One block per cycle: broken up, then collapsed."""

    def __init__(self, hypervisor: Hypervisor) -> None:
        super().__init__(hypervisor)
        geo = self.plan.geo
        self._chunks = [block * self.block_pages for block in range(geo.blocks)]  # first frame of each block
        self._spare = geo.blocks * self.block_pages
        self._mix = [0] * geo.blocks
        room = 1 << 48 - geo.granule_shift
        limit = min(room, geo.root_pages << geo.index_bits * (4 - geo.start_level))
        # The two places share no page: in a shared one, a guest on its way would meet another page of its own.
        elsewhere = [geo.base_gfn + self._spare, geo.base_gfn - self._spare]
        possible = [base for base in elsewhere if 0 <= base <= limit - geo.pages]
        self._bases = [geo.base_gfn, *possible, geo.base_gfn][:2]

    def cycle(self, order: int, turn: int) -> None:
        """Break a huge page up, dwell, collapse it, dwell; now and then move the memslot."""
        hypervisor = self.hypervisor
        block = turn % self.plan.geo.blocks
        if self._mix[block] == 0:
            self._move(block, _MIX, "breakups")
            hypervisor.dwell_around(self.plan.dwell_ns)
        self._move(block, 0, "collapses")
        yields = self.plan.geo.yield_every > 0
        if self.plan.geo.vcpu_rebuilds and (yields or self.plan.orders[order][0] != Step.LOCK.code):
            self.split_as_logged(self.block_gfn(block))
            self.stop_logging_at([self.block_gfn(block)])
        hypervisor.dwell_around(self.plan.dwell_ns)
        if turn % MOVE_EVERY == MOVE_EVERY - 1 and self._bases[0] != self._bases[1]:
            other = self._bases[self._bases[0] == int(self.machine.memslots[0, SLOT_BASE])]
            hypervisor.check(move_memslots(self.machine, self.who, other))
            hypervisor.count("slot_moves")

    def _move(self, block: int, mix: int, what: str) -> None:
        """Move the frames of a block to the spare ones: scattered, or as a huge page."""
        machine, hypervisor, pages = self.machine, self.hypervisor, self.block_pages
        old, new, first = self._chunks[block], self._spare, block * pages
        hypervisor.check(invalidate_start(machine, self.who, self.block_gfn(block), first, pages))
        moved = move_frames(machine, old, self._mix[block], new, mix, pages)
        hypervisor.check(invalidate_end(machine, self.who, first, pages, new, mix, int(mix == 0)))
        self._chunks[block], self._spare, self._mix[block] = new, old, mix
        hypervisor.count("frames_moved", moved)
        hypervisor.count(what)
