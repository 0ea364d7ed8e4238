"""Actors that share words, as a system whose schedules can be explored.

An actor is a function that runs as a greenlet up to its next access to a shared word, and waits there until a scheduler
lets it go on. Store buffers are actors, too: each of their steps lets one store reach memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from greenlet import getcurrent, greenlet

from stress.verify.accesses import Accesses
from stress.verify.actors import Actor, Does
from stress.verify.regions import Region, part_of
from stress.verify.system import Access, Pending


class World(Accesses):
    """Memory, its actors and their buffers: a `System` for schedulers."""

    def __init__(self, *, tso: bool = True) -> None:
        super().__init__(tso=tso)
        self.size = 0
        self.names: list[tuple[int, str, tuple[int, ...]]] = []  # first word, region, shape
        self._image: dict[int, int] = {}
        self._at_reset: list[Callable[[], None]] = []
        self._greenlets: list[greenlet] = []
        self.last: int | None = None

    # What a world has.

    def region(self, name: str, shape: tuple[int, ...]) -> Region:
        """An array of new words, all 0."""
        region = part_of(self, self.size, shape)
        self.names.append((self.size, name, shape))
        count = 1
        for extent in shape:
            count *= extent
        self.size += max(count, 1)
        return region

    def word(self, name: str) -> int:
        """One new word that stands for a state of another kind."""
        self.names.append((self.size, name, ()))
        self.size += 1
        return self.size - 1

    def actor(self, name: str, work: Callable[[], object]) -> Actor:
        """Add an actor that does ``work``."""
        one = Actor(len(self.team), name, work)
        self.team.append(one)
        return one

    def at_reset(self, restore: Callable[[], None]) -> None:
        """Call ``restore`` at each reset, after memory is as it was."""
        self._at_reset.append(restore)

    def keep(self) -> None:
        """Let every schedule begin with memory as it is now."""
        self._image = dict(self.words)

    def about(self, at: int) -> tuple[str, tuple[int, ...]]:
        """(region, index in it) of a word."""
        name, base = "", 0
        shape: tuple[int, ...] = ()
        for first, its, extents in self.names:
            if first > at:
                break
            name, base, shape = its, first, extents
        index = []
        rest = at - base
        for extent in reversed(shape):
            index.append(rest % extent)
            rest //= extent
        return name, tuple(reversed(index))

    # The system that schedulers see.

    @property
    def actors(self) -> int:
        """Actors, and a buffer for each."""
        return 2 * len(self.team)

    def reset(self) -> None:
        """Begin anew: memory as it was kept, every actor at its first stop."""
        self.dispose()
        self._script = ()
        self._moot = []
        self.words = dict(self._image)
        self.place = 0
        self.last = None
        self._main = getcurrent()
        for restore in self._at_reset:
            restore()
        self._greenlets = []
        for one in self.team:
            one.begin_anew()
            self._greenlets.append(greenlet(self._body))
        for one, green in zip(self.team, self._greenlets, strict=True):
            self._set_current(one)
            green.switch(one)  # to its first stop
            self._set_current(None)

    def dispose(self) -> None:
        """End all actors where they stand."""
        self._set_current(None)
        for one, green in zip(self.team, self._greenlets, strict=False):
            if not green.dead:
                one.done = True
                green.throw()
        self._greenlets = []

    def _body(self, one: Actor) -> None:
        one.work()
        one.done = True

    def enabled(self) -> list[int]:
        """The actors that can go on: full buffers first, then actors within an attempt, then the one that went last."""
        count = len(self.team)
        buffers: list[int] = []
        within: list[int] = []
        others: list[int] = []
        for one in self.team:
            if one.buffer:
                buffers.append(count + one.number)
            if not one.done and self._can_go_on(one):
                its_kind = within if one.attempt else others
                its_kind.insert(0 if one.number == self.last else len(its_kind), one.number)
        return buffers + within + others

    def _can_go_on(self, one: Actor) -> bool:
        does = one.does
        if does >= Does.UPDATE:
            if one.buffer and does <= Does.ALONE:
                return False
            if does == Does.LOCK and any(self.words.get(word, 0) for word in (one.at, *one.reads)):
                return False
            if does == Does.WAIT and not one.ready():
                return False
            if does == Does.BARRIER_DONE and any(
                other.landed < stored for other, stored in zip(self.team, one.barrier, strict=True)
            ):
                return False
        return not one.waits or any(self._seen_part(one, part) != value for part, value in one.waits.items())

    def step(self, actor: int) -> Access:
        """Let an enabled actor take its step; returns what the step touched."""
        count = len(self.team)
        if actor >= count:
            self.begin_step(None)
            self._land(self.team[actor - count])
        else:
            one = self.team[actor]
            self.begin_step(one)
            self._set_current(one)
            self._greenlets[actor].switch()
            self._set_current(None)
            self.last = actor
        return self.end_step()

    def replay(self, choices: Sequence[int]) -> list[Access]:
        """Begin anew and take these steps again; returns what each touched."""
        self.reset()
        self._again = []
        self._script = choices
        while self.place < len(choices):
            self._again.append(self.step(choices[self.place]))
        self._script = ()
        self._moot = []
        return self._again

    def _land(self, one: Actor) -> None:
        """Let the oldest store in a buffer reach memory."""
        word, value, place = one.buffer.popleft()
        self.after.append(place)
        if self.watcher is not None:
            self.watcher(one.number, "lands", word, value)
        self._set(word, value)
        one.landed += 1
        one.landings.append(self.place)

    def blocked(self) -> list[Pending]:
        """The actors that have not ended and cannot go on."""
        return [
            Pending(one.number, self._to_come(one)) for one in self.team if not one.done and not self._can_go_on(one)
        ]

    def _to_come(self, one: Actor) -> Access:
        waits = tuple(one.waits)
        if one.does in (Does.LOAD, Does.STORE, Does.UPDATE, Does.LOCK):
            parts = self._parts(one.at, one.bits)
            reads = one.reads if one.does == Does.LOCK else ()
            return Access((*parts, *reads, *waits), () if one.does == Does.LOAD else parts)
        return Access((*one.reads, *waits), one.writes)
