"""Schedules by chance, a given number of them: what does not end by itself ends a test at the same place everywhere."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from stress.verify.accesses import Livelock
from stress.verify.chance import Chance
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
