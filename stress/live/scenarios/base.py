"""The base of all scenarios: rounds over the orders, the limits of a run, and blocks as guest frames."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod

from stress.live.hypervisor import Finished, Hypervisor
from stress.shm.words import SLOT_BASE


class Scenario(ABC):
    """A script for the hypervisor process."""

    #: Whether a cycle is a pass over stages: one under each order is played to its end, however long it takes.
    in_passes = False

    def __init__(self, hypervisor: Hypervisor) -> None:
        self.hypervisor = hypervisor
        self.machine = hypervisor.machine
        self.plan = hypervisor.plan
        self.who = hypervisor.who
        geo = self.plan.geo
        self.block_pages = 1 << (3 - geo.block_level) * geo.index_bits

    def prepare(self) -> None:
        """Prepare memory before the first cycle; the vCPUs run already."""
        return

    @abstractmethod
    def cycle(self, order: int, turn: int) -> None:
        """One cycle under an order; ``turn`` counts rounds from 0."""

    def block_gfn(self, block: int) -> int:
        """First guest frame of a block."""
        return int(self.machine.memslots[0, SLOT_BASE]) + block * self.block_pages

    def _slot_of(self, gfn: int) -> int:
        """Number of the memslot that holds a guest frame."""
        return int((self.machine.memslots[:, SLOT_BASE] <= gfn).sum()) - 1

    def batches(self) -> list[list[int]]:
        """First guest frames of the blocks that lie inside one memslot and are aligned there, batch by batch."""
        size, found = self.plan.geo.batch, []
        for first in range(0, self.plan.geo.blocks, size):
            some = map(self.block_gfn, range(first, min(first + size, self.plan.geo.blocks)))
            if whole := [gfn for gfn in some if self._is_whole(gfn)]:
                found.append(whole)
        return found

    def whole_blocks(self) -> list[int]:
        """The same in one list."""
        return [gfn for batch in self.batches() for gfn in batch]

    def _is_whole(self, gfn: int) -> bool:
        return gfn % self.block_pages == 0 and self._slot_of(gfn) == self._slot_of(gfn + self.block_pages - 1)


def play(scenario: Scenario) -> None:
    """Play cycles until the time is up, the rebuilds or passes are done, or the run winds up.

    With several orders each round takes every order once, in an order drawn anew per round, so that noise and the
    state of the caches hit all of them alike. The first round is played to its end once it has begun: on a machine
    that is too slow for the time given there would be no verdict.
    """
    plan, hypervisor = scenario.plan, scenario.hypervisor
    try:
        scenario.prepare()
        if plan.duration_ns is not None and not scenario.in_passes:
            hypervisor.end_after(plan.duration_ns)
        start = time.monotonic_ns()
        rounds = 0
        turns = list(range(len(plan.orders)))
        while plan.rounds is None or rounds < plan.rounds:
            hypervisor.random.shuffle(turns)
            for turn, order in enumerate(turns):
                now = time.monotonic_ns()
                over = plan.duration_ns is not None and now - start >= plan.duration_ns
                begun = turn or scenario.in_passes
                if hypervisor.finishing or (over and (rounds or not begun)):
                    return
                hypervisor.audit_if_due()
                with hypervisor.cycle(order):
                    scenario.cycle(order, rounds)
            rounds += 1
    except Finished:
        return
