"""Schedules by chance: each step by any actor that can go on. They prove nothing, and find most bugs soon."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random

from stress.verify.system import Schedule, System


class Chance:
    """Plays schedules for as long as its caller asks for more."""

    def __init__(self, system: System, seed: int) -> None:
        self._system = system
        self._random = Random(seed)
        self._choices: list[int] = []

    def schedules(self) -> Iterator[Schedule]:
        """Yield after each schedule that was played to its end; the system is still as that left it."""
        schedule = Schedule(self._system.actors)
        while True:
            self._system.reset()
            schedule.cut(0)
            self._choices = []
            while enabled := self._system.enabled():
                actor = self.choose(enabled)
                schedule.add(actor, self._system.step(actor))
                self._choices.append(actor)
            yield schedule

    def choices(self) -> list[int]:
        """The actors chosen in the schedule just played."""
        return self._choices

    def choose(self, enabled: Sequence[int]) -> int:
        """The number of the actor whose step is next."""
        return self._random.choice(enabled)
