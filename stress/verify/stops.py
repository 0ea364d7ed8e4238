"""Memory whose words actors share, in steps: where an actor must stop, and what each step touched.

The exploration itself finds out which words are shared. A word that only one actor was ever seen to use is that actor's
own, and is accessed without a stop. When a second actor uses it, the exploration begins anew.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Final

from greenlet import getcurrent, greenlet

from stress.verify.actors import ALL, LOW, Actor, word_of
from stress.verify.system import Access, Changed, Words

#: Every word there is.
EVERY: Final = range(1 << 32)


class Shared(Changed):
    """A word that was taken for one actor's own turned out to be shared: the exploration must begin anew."""


class Stops:
    """Memory, the actors that use it, and the step under way."""

    def __init__(self, *, tso: bool) -> None:
        self.tso = tso
        self.words: dict[int, int] = {}
        self.visible: set[int] = set()  # words that more than one actor uses, one of them storing
        self._users: dict[int, int] = {}
        self._writers: dict[int, int] = {}
        self.current: Actor | None = None
        #: Words that the current actor alone uses, as far as is known: it loads, and stores to, these without a stop.
        self.own_loads: Collection[int] = EVERY
        self.own_stores: Collection[int] = EVERY
        self.team: list[Actor] = []
        self.place = 0  # how many steps of the schedule are over
        self.touched_reads: list[int] = []
        self.touched_writes: list[int] = []
        self.after: list[int] = []
        self._moot: list[tuple[int, Words]] = []
        #: The words that have two parts, and the mask of the low part. Each part is like a word of its own to an access
        #: that concerns no bits of the other. An attempt ignores the low part, unless it goes on to update it.
        self.split: tuple[range, int] = range(0), 0
        self._script: Sequence[int] = ()  # the actors of the schedule that is being replayed
        self._again: list[Access] = []  # what each step of the replay touched
        self._main: greenlet = getcurrent()
        #: Called at each access with the actor's number, a verb, the word and its value.
        self.watcher: Callable[[int, str, int, int], None] | None = None
        #: Called with an actor's number and the name of what it begins to do.
        self.listener: Callable[[int, str], None] | None = None

    def _set_current(self, one: Actor | None) -> None:
        self.current = one
        if one is None:  # whoever sets the machine up, or judges it
            self.own_loads = self.own_stores = EVERY
        elif one.atomic:
            self.own_loads = self.own_stores = ()
        else:
            self.own_loads, self.own_stores = one.used, one.stored_to

    def _seen_by(self, one: Actor, word: int) -> int:
        if one.buffer:
            for stored, value, _ in reversed(one.buffer):
                if stored == word:
                    return value
        return self.words.get(word, 0)

    def _stop(self, one: Actor, does: int, at: int) -> None:
        one.does = does
        one.at = at
        following = self.place + 1
        if following < len(self._script) and self._script[following] == one.number:
            self._again.append(self.end_step())  # no need to ask whose turn it is
            self.begin_step(one)
        else:
            self._main.switch()

    def begin_step(self, one: Actor | None) -> None:
        """Begin a step of an actor, or of a buffer (None). The words that the actor waited for count as read by it."""
        self.touched_reads, self.touched_writes, self.after = [], [], []
        if one is not None and one.waits:
            self.touched_reads.extend(one.waits)
            one.waits = {}

    def end_step(self) -> Access:
        """End the step, and return what it touched."""
        self.place += 1
        touched = tuple(self.touched_reads), tuple(self.touched_writes), tuple(self.after)
        return tuple.__new__(Access, touched)  # as Access(*touched) does, in half the time

    def moot(self) -> list[tuple[int, Words]]:
        """The reads on which nothing depends, found since the last call: (place of the step, the words it read)."""
        found, self._moot = self._moot, []
        return found

    def shared(self, one: Actor, at: int, write: bool) -> bool:
        """Whether an access needs a stop. It records who uses the word; raises `Shared` if the word becomes shared."""
        if at in self.visible:
            if write:
                self._writers[at] = self._writers.get(at, 0) | 1 << one.number
            return True
        if at in (one.stored_to if write else one.used):
            return False
        (one.stored_to if write else one.used).add(at)
        users = self._users.get(at, 0) | 1 << one.number
        self._users[at] = users
        if write:
            self._writers[at] = self._writers.get(at, 0) | 1 << one.number
        if users & (users - 1) and at in self._writers and not self.accounts(at):
            self.visible.add(at)
            for other in self.team:
                other.used.discard(at)
                other.stored_to.discard(at)
            raise Shared(at)
        return False

    def accounts(self, at: int) -> bool:
        """Whether a word only records what happens, so that nothing an actor does depends on it."""
        return False

    def _parts(self, at: int, bits: int = ALL) -> Words:
        """The parts of a word that have any of ``bits``."""
        words, low = self.split
        if at not in words or not bits & low:
            return (at,)
        return (at, at + LOW) if bits & ~low else (at + LOW,)

    def _part_of(self, value: int, part: int) -> int:
        """What a part has of the value of its word."""
        words, low = self.split
        if part >= LOW:
            return value & low
        return value & ~low if part in words else value

    def _seen_part(self, one: Actor, part: int) -> int:
        return self._part_of(self._seen_by(one, word_of(part)), part)

    def _remember(self, one: Actor, parts: Words, value: int) -> None:
        for part in parts:
            its = self._part_of(value, part)
            one.read_since[part] = its
            if part not in one.locks:
                one.turn.append((part, its))

    def _set(self, at: int, value: int, bits: int = ALL) -> None:
        """Change memory. Storing the value that a word already has counts as a load: no other actor can tell."""
        changed = self.words.get(at, 0) ^ value
        self.words[at] = value
        if at not in self.split[0]:
            (self.touched_writes if changed else self.touched_reads).append(at)
            return
        asked = self._parts(at, bits)
        for part in self._parts(at):
            if self._part_of(changed, part):
                self.touched_writes.append(part)
            elif part in asked:
                self.touched_reads.append(part)

    def _reads(self, one: Actor, words: Words) -> None:
        """Note the words of a step that only reads.

        Within an attempt they count as the attempt says, unless the actor waited for them: then they always matter.
        """
        if one.attempt is not None and not self.touched_reads:
            words = one.attempt_reads(self.place, words)
        self.touched_reads.extend(words)

    def barrier_word(self, one: Actor) -> int:
        """The made-up word that stands for how many stores of an actor a membarrier finds in its buffer."""
        return -1 - one.number
