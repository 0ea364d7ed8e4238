"""Schedules by chance: each step by any actor that can go on. They prove nothing, and find much soon."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random

from stress.verify.system import Schedule, System


class Chance:
    """Plays schedules as long as it is asked for more."""

    def __init__(self, system: System, seed: int) -> None:
        self._system = system
        self._random = Random(seed)
        self._choices: list[int] = []

    def schedules(self) -> Iterator[Schedule]:
        """Yield each schedule when it was played to its end, with the system still there."""
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
        """Whose turn it is."""
        return self._random.choice(enabled)
