"""A scheduler's view of a machine whose schedules it explores, and the happens-before relation of one schedule.

A system is a set of actors, numbered from 0. Each stands before its next step, which reads and writes words; no other
actor can act in the midst of a step. Two steps of different actors are dependent if one writes what the other reads or
writes. A scheduler needs to know nothing else.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

Words = tuple[int, ...]


class Changed(Exception):  # noqa: N818 - tells what was found
    """The system has more steps than was known: its exploration must begin anew."""


class Access(NamedTuple):
    """The words that a step touches."""

    reads: Words
    writes: Words
    #: Places of other actors' steps without which this one could never be taken: of a store that leaves a buffer, of
    #: all that left a buffer before a fence.
    after: tuple[int, ...] = ()


class Pending(NamedTuple):
    """An actor that cannot go on, and what its next step would touch; among the reads are the words it waits for."""

    actor: int
    access: Access


class System(Protocol):
    """A machine that can be played again and again. The same choices always lead to the same steps."""

    @property
    def actors(self) -> int:
        """How many actors there are."""

    def reset(self) -> None:
        """Begin anew."""

    def enabled(self) -> Sequence[int]:
        """The actors that can go on; the first is the one whose turn is the most natural."""

    def step(self, actor: int) -> Access:
        """Let an enabled actor take its step; what it touched."""

    def replay(self, choices: Sequence[int]) -> Sequence[Access]:
        """Begin anew and take these steps again; what each touched."""

    def moot(self) -> Sequence[tuple[int, Words]]:
        """The reads on which nothing depends, found since the last call: (place of the step, the words it read)."""

    def blocked(self) -> Iterable[Pending]:
        """The actors that have not ended and cannot go on."""


def dependent(one: Access, other: Access) -> bool:
    """Whether the order of two steps of different actors can matter."""
    if one.writes:
        for word in one.writes:
            if word in other.reads or word in other.writes:
                return True
    if other.writes:
        for word in other.writes:
            if word in one.reads:
                return True
    return False


@dataclass(slots=True)
class Event:
    """A step of a schedule: the first ``clock[a]`` steps of each actor ``a`` happen before it, or are it."""

    actor: int
    access: Access
    words: Collection[int]  # the words that it touched, each once
    before: list[int]  # the clock without the order that its own words impose
    clock: list[int]


class Schedule:
    """The steps taken so far, and their happens-before relation as vector clocks."""

    def __init__(self, actors: int) -> None:
        self._actors = actors
        self.events: list[Event] = []
        self._last: list[list[list[int]]] = [[[0] * actors] for _ in range(actors)]  # clocks of each actor's steps
        #: Word -> places of the steps that touched it, with whether they wrote it, oldest first; and of its writes.
        self.history: defaultdict[int, list[tuple[int, bool]]] = defaultdict(list)
        self.written: defaultdict[int, list[int]] = defaultdict(list)

    def cut(self, length: int) -> None:
        """Forget all steps but the first ``length``."""
        while len(self.events) > length:
            event = self.events.pop()
            self._last[event.actor].pop()
            for word in event.words:
                if self.history[word].pop()[1]:
                    self.written[word].pop()

    def before(self, actor: int, access: Access) -> list[int]:
        """The clock of what must happen before a step of an actor, whatever the schedule."""
        clock = self._last[actor][-1]
        for place in access.after:
            clock = list(map(max, clock, self.events[place].clock))
        return clock

    def add(self, actor: int, access: Access) -> Event:
        """Append a step that was taken."""
        before = self.before(actor, access)
        clock = before.copy()
        place = len(self.events)
        events = self.events
        words = access.reads if len(access.reads) <= 1 and not access.writes else {*access.reads, *access.writes}
        for word in words:
            writes = word in access.writes
            history, written = self.history[word], self.written[word]
            # What is older than the last write happens before it.
            for earlier, wrote in reversed(history) if writes else [(last, True) for last in written[-1:]]:
                event = events[earlier]
                if clock[event.actor] < event.clock[event.actor]:
                    clock = list(map(max, clock, event.clock))
                if wrote:
                    break
            history.append((place, writes))
            if writes:
                written.append(place)
        clock[actor] += 1
        event = Event(actor, access, words, before, clock)
        events.append(event)
        self._last[actor].append(clock)
        return event

    def happens_before(self, earlier: Event, clock: list[int]) -> bool:
        """Whether a step is in what a clock covers."""
        return clock[earlier.actor] >= earlier.clock[earlier.actor]
