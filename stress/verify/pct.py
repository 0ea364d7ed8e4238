"""Probabilistic concurrency testing: priorities by chance, changed at a few places.

Burckhardt, Kothari, Musuvathi, Nagarakatte (ASPLOS 2010): the actor with the highest priority goes on. At d - 1 steps,
chosen before, the one that would go on gets the lowest priority. A bug that d events in one order bring about, in a
schedule of k steps of n actors, is found with a probability of at least 1 / (n * k ** (d - 1)).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random

from stress.verify.chance import Chance
from stress.verify.system import Schedule, System

_DEPTH = 3
_LENGTH = 150  # about as many steps as a schedule has


class Pct(Chance):
    """Plays schedules for as long as its caller asks for more."""

    def __init__(self, system: System, seed: int) -> None:
        super().__init__(system, seed)
        self._begin(Random(seed))

    def schedules(self) -> Iterator[Schedule]:
        """Yield after each schedule that was played to its end; the system is still as that left it."""
        for schedule in super().schedules():
            yield schedule
            self._begin(self._random)

    def choose(self, enabled: Sequence[int]) -> int:
        """The number of the actor whose step is next: the one with the highest priority."""
        self._step += 1
        if self._step in self._changes:
            lowest = min(self._priorities)
            self._priorities[max(enabled, key=self._priorities.__getitem__)] = lowest - 1
        return max(enabled, key=self._priorities.__getitem__)

    def _begin(self, random: Random) -> None:
        self._priorities = random.sample(range(self._system.actors), self._system.actors)
        self._changes = set(random.sample(range(_LENGTH), _DEPTH - 1))
        self._step = 0
