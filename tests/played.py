"""Schedules of a world for tests: all that can differ, or a given number by chance, the same ones everywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice

from stress.shm.processor import use
from stress.verify.accesses import Livelock
from stress.verify.chance import Chance
from stress.verify.dpor import explore
from stress.verify.hooks import Stopping
from stress.verify.pct import Pct
from stress.verify.system import Changed, Schedule
from stress.verify.world import World


def played(world: World, count: int) -> Iterator[Schedule]:
    """Play ``count`` schedules with every choice by chance, then as many by priorities that change by chance."""
    for explorer in (Chance, Pct):
        left = count
        while left:
            try:
                for schedule in islice(explorer(world, left).schedules(), left):
                    yield schedule
                    left -= 1
            except Changed:  # a word is found shared: that schedule is none
                continue
            except Livelock:
                if explorer is Chance:
                    raise
                left -= 1  # priorities are not fair


def explored(world: World, judge: Callable[[], None]) -> int:
    """Judge what every schedule led to; how many there were."""

    def at_end(_: Schedule) -> None:
        assert all(one.done for one in world.team), "a deadlock"
        judge()

    with use(Stopping(world)):
        return explore(world, at_end)
