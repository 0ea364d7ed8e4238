"""Dynamic partial-order reduction: every schedule that can differ, once.

Flanagan and Godefroid (POPL 2005) with sleep sets, and with source sets (Abdulla, Aronsson, Jonsson, Sagonas, POPL
2014) as the choice of what to try. When a schedule has been played to its end, two of its steps are a race if they are
dependent and nothing else orders them: before the earlier one an actor is to be tried that lets the later one come
first. Steps can block: if the later step could not have been taken at the earlier one's place the two are no race, and
the steps before are looked at instead. An actor that is blocked at the end races with the steps that it waits for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from stress.verify.system import Access, Changed, Schedule, System, Words, dependent


class Diverged(Exception):  # noqa: N818 - tells what happened
    """The same choices led to other steps: the system is not deterministic, so nothing is proved."""


_NOTHING: Final = Access((), ())


class _Node:
    """A state on the way to the end of the schedule under way."""

    __slots__ = ("access", "backtrack", "chosen", "done", "enabled", "moot", "sleep")

    def __init__(self, enabled: tuple[int, ...], sleep: dict[int, Access], chosen: int) -> None:
        self.enabled = enabled
        self.sleep = sleep  # actors that need not be tried: their outcome was seen
        self.backtrack = {chosen}  # actors that are to be tried
        self.done: set[int] = set()
        self.chosen = chosen
        self.access = _NOTHING
        self.moot: Words = ()  # words that the step read although nothing depends on them

    def matters(self) -> Access:
        """The words of the step that count for races."""
        if not self.moot:
            return self.access
        reads, writes, after = self.access
        return Access(tuple(word for word in reads if word not in self.moot), writes, after)


class Dpor:
    """Explores a system; each call of `schedules` begins anew."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._schedule = Schedule(system.actors)
        self._nodes: list[_Node] = []
        self._moot: list[
            tuple[int, list[int]]
        ] = []  # the place of a step that showed which reads are moot, and the places of these
        self.cut = 0  # schedules given up because all their continuations were seen elsewhere

    def schedules(self) -> Iterator[Schedule]:
        """Yield after each schedule that was played to its end; the system is still as that left it."""
        self._nodes = []
        self._schedule.cut(0)
        self._moot = []
        self.cut = 0
        while True:
            kept = self._reopen(max(len(self._nodes) - 1, 0))
            whole = self._play()
            self._find_races(self._set_clocks(kept))
            if whole:
                yield self._schedule
            else:
                self.cut += 1
            if not self._next():
                return

    def choices(self) -> list[int]:
        """The actors chosen in the schedule just played."""
        return [node.chosen for node in self._nodes]

    def _play(self) -> bool:
        """Play the choices made, then go on to the end; False if that was cut short."""
        system, nodes = self._system, self._nodes
        choices = self.choices()
        again = system.replay(choices[:-1])
        for place, (node, access) in enumerate(zip(nodes, again, strict=False)):
            if access != node.access:
                raise Diverged(f"step {place} of actor {node.chosen}: {node.access}, now {access}")
        if nodes:
            self._step(nodes[-1])
        while True:
            enabled = tuple(system.enabled())
            if not enabled:
                return True
            sleep = self._inherited()
            awake = next((actor for actor in enabled if actor not in sleep), None) if sleep else enabled[0]
            if awake is None:
                return False
            nodes.append(_Node(enabled, sleep, awake))
            self._step(nodes[-1])

    def _step(self, node: _Node) -> None:
        node.access = self._system.step(node.chosen)
        node.moot = ()
        moot = self._system.moot()
        if moot:
            self._moot.append((len(self._nodes) - 1, [place for place, _ in moot]))
            for place, reads in moot:
                self._nodes[place].moot = reads

    def _reopen(self, kept: int) -> int:
        """Forget what steps behind the first ``kept`` have shown; returns how many steps are as they were."""
        first = kept
        while self._moot and self._moot[-1][0] >= kept:
            _, places = self._moot.pop()
            first = min(first, places[0])
            for node in (self._nodes[place] for place in places if place < kept):
                node.moot = ()
        return first

    def _set_clocks(self, kept: int) -> int:
        """Bring the schedule up to date from place ``kept`` on, or an earlier one that is now moot; returns where."""
        for shown, places in reversed(self._moot):
            if shown < kept:
                break
            kept = min(kept, places[0])
        self._schedule.cut(kept)
        for node in self._nodes[kept:]:
            self._schedule.add(node.chosen, node.matters())
        return kept

    def _inherited(self) -> dict[int, Access]:
        """The sleeping actors, with their steps, in the state that the last node leads to."""
        if not self._nodes or not self._nodes[-1].sleep:
            return {}
        node = self._nodes[-1]
        return {actor: access for actor, access in node.sleep.items() if not dependent(access, node.access)}

    def _next(self) -> bool:
        """Choose what to try next, deepest first; False if nothing is left."""
        while self._nodes:
            node = self._nodes[-1]
            node.done.add(node.chosen)
            node.sleep[node.chosen] = node.access
            if len(node.backtrack) > len(node.done):
                left = [actor for actor in node.enabled if actor in node.backtrack and actor not in node.sleep]
                if left:
                    node.chosen = left[0]
                    return True
            self._nodes.pop()
        return False

    def _find_races(self, fresh: int) -> None:
        """Look for the races of the steps from place ``fresh`` on, and of those that were not taken."""
        schedule = self._schedule
        for place in range(fresh, len(schedule.events)):
            event = schedule.events[place]
            self._race(place, event.actor, event.access, event.before)
        for pending in self._system.blocked():
            before = schedule.before(pending.actor, pending.access)
            self._race(len(schedule.events), pending.actor, pending.access, before)

    def _race(self, place: int, actor: int, access: Access, before: list[int]) -> None:
        for word in access.reads:
            if word not in access.writes:
                self._race_for(word, False, place, actor, before)
        for word in access.writes:
            self._race_for(word, True, place, actor, before)

    def _race_for(self, word: int, writes: bool, place: int, actor: int, before: list[int]) -> None:
        """The races for one word between the step at ``place`` and earlier ones, the latest first."""
        events, schedule = self._schedule.events, self._schedule
        history = schedule.history[word] if writes else [(earlier, True) for earlier in schedule.written[word]]
        for earlier, wrote in reversed(history):
            if earlier >= place:
                continue
            other = events[earlier]
            if other.actor == actor or self._schedule.happens_before(other, before):
                if wrote:
                    return  # older steps happen before that one
            elif self._reverse(earlier, place, actor, before) and wrote:
                return

    def _reverse(self, earlier: int, place: int, actor: int, before: list[int]) -> bool:
        """Let the step at ``place`` be tried before that at ``earlier``; False if that is impossible."""
        events, node = self._schedule.events, self._nodes[earlier]
        first = events[earlier]
        own = first.clock[first.actor]
        # Of the actors of the later step, and of the steps between that do not depend on the earlier one: which can
        # begin? For each, its first step there, with nothing of the others before it.
        begins: dict[int, tuple[int, list[int]]] = {}
        for event in events[earlier + 1 : place]:
            if event.actor not in begins and event.clock[first.actor] < own:
                begins[event.actor] = (event.clock[event.actor], event.clock)
        if actor not in begins:
            # The clock of its step, as far as the steps between can tell.
            clock = list(before)
            begins[actor] = (clock[actor] + 1, self._clock_without(earlier, place, actor, before))
        initials = {
            one
            for one, (_, clock) in begins.items()
            if not any(clock[two] >= its for two, (its, _) in begins.items() if two != one)
        }
        if actor in initials and actor not in node.enabled:
            return False  # the earlier step, or one before it, lets this actor go on
        if initials & node.backtrack:
            return True
        able = [one for one in node.enabled if one in initials]
        if able:
            node.backtrack.add(actor if actor in able else able[0])
        else:
            node.backtrack.update(node.enabled)
        return True

    def _clock_without(self, earlier: int, place: int, actor: int, before: list[int]) -> list[int]:
        """The clock that the step at ``place`` would have without the steps that depend on ``earlier``."""
        events = self._schedule.events
        first = events[earlier]
        own = first.clock[first.actor]
        access = self._access_at(place, actor)
        clock = list(before)
        for event in events[earlier + 1 : place]:
            if event.clock[first.actor] < own and dependent(event.access, access):
                clock = list(map(max, clock, event.clock))
        return clock

    def _access_at(self, place: int, actor: int) -> Access:
        if place < len(self._schedule.events):
            return self._schedule.events[place].access
        return next(pending.access for pending in self._system.blocked() if pending.actor == actor)


def explore(system: System, at_end: Callable[[Schedule], None]) -> int:
    """Play every schedule that can differ; returns how many. ``at_end`` may look at the system as each left it.

    ``at_end`` is called again for schedules seen before if the exploration has to begin anew.
    """
    while True:
        played = 0
        try:
            for schedule in Dpor(system).schedules():
                at_end(schedule)
                played += 1
            return played
        except Changed:
            continue
