"""What actors do to the words that they share, each as one step, with x86-TSO's store buffers.

x86-TSO (Sewell, Sarkar, Owens, Zappa Nardelli, Myreen, CACM 2010): a store goes to its actor's buffer, whose oldest one
reaches memory at any time; a load looks there first; read-modify-writes and fences wait until it is empty.

Which words are shared is found out: one that only one actor was ever seen to use is that actor's own, and is accessed
without a stop. When a second one turns up, the exploration begins anew.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Literal

from greenlet import getcurrent, greenlet

from stress.verify.actors import ALL, LOW, Actor, Does, word_of
from stress.verify.system import Access, Changed, Words

#: A word that nobody stores to.
NOBODY = -(1 << 32)


class Shared(Changed):
    """A word that was taken for one actor's own is shared: explore anew."""


class Livelock(Exception):  # noqa: N818 - a finding
    """An actor repeats itself although what it reads keeps changing."""


class Accesses:
    """Memory, and the accesses of whoever is the current actor. With none, each is made at once."""

    def __init__(self, *, tso: bool) -> None:
        self.tso = tso
        self.words: dict[int, int] = {}
        self.visible: set[int] = set()  # words that more than one actor uses, one of them storing
        self._users: dict[int, int] = {}
        self._writers: dict[int, int] = {}
        self.current: Actor | None = None
        self.team: list[Actor] = []
        self.place = 0  # in the schedule
        self.touched_reads: list[int] = []
        self.touched_writes: list[int] = []
        self.after: list[int] = []
        self._moot: list[tuple[int, Words]] = []
        #: Words of two parts, the low one by this mask: each is as a word of its own to whoever accesses it alone. An
        #: attempt ignores the low one, unless it goes on to update it.
        self.split: tuple[range, int] = range(0), 0
        self._script: Sequence[int] = ()  # the choices that are being played again
        self._again: list[Access] = []  # what the steps touched
        self._main: greenlet = getcurrent()
        #: Told what an actor does: its number, a verb, a word and its value.
        self.watcher: Callable[[int, str, int, int], None] | None = None
        #: Told what an actor is about.
        self.listener: Callable[[int, str], None] | None = None

    def _seen_by(self, one: Actor, word: int) -> int:
        for stored, value, _ in reversed(one.buffer):
            if stored == word:
                return value
        return self.words.get(word, 0)

    def _stop(self, one: Actor, does: Does, at: int) -> None:
        one.does = does
        one.at = at
        following = self.place + 1
        if following < len(self._script) and self._script[following] == one.number:
            self._again.append(self.end_step())  # no need to ask whose turn it is
            self.begin_step(one)
        else:
            self._main.switch()

    def begin_step(self, one: Actor | None) -> None:
        """A step begins, of an actor or of a buffer; what the actor waited for belongs to it."""
        self.touched_reads, self.touched_writes, self.after = [], [], []
        if one is not None and one.waits:
            self.touched_reads.extend(one.waits)
            one.waits = {}

    def end_step(self) -> Access:
        """The step is over; what it touched."""
        self.place += 1
        return Access(tuple(self.touched_reads), tuple(self.touched_writes), tuple(self.after))

    def moot(self) -> list[tuple[int, Words]]:
        """Places of steps, and what they read although nothing depends on it, found since this was last asked."""
        found, self._moot = self._moot, []
        return found

    def shared(self, one: Actor, at: int, write: bool) -> bool:
        """Whether an access needs a stop. Keeps who uses a word; raises `Shared` if that is news."""
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
            raise Shared(at)
        return False

    def accounts(self, at: int) -> bool:
        """Whether a word only records what happens: nothing that is done depends on it."""
        return False

    def load(self, at: int) -> int:
        """A load by the current actor, or by whoever sets the machine up."""
        one = self.current
        if one is None or one.done:
            return self.words.get(at, 0)
        if at in one.used and at not in self.visible and not one.atomic:  # its own, as most are
            return self.words.get(at, 0)
        if one.at_once:
            value = self._seen_by(one, at)
            if one.noted and self.shared(one, at, False):
                self.touched_reads.extend(self._parts(at, one.bits))
                if self.watcher is not None:
                    self.watcher(one.number, "loads", at, value)
            return value
        if one.atomic:
            return self._begin_update(one, at)
        if not self.shared(one, at, False):
            return self.words.get(at, 0)
        self._stop(one, Does.LOAD, at)
        parts = self._parts(at, one.bits)
        self._reads(one, parts)
        value = self._seen_by(one, at)
        self._remember(one, parts, value)
        if self.watcher is not None:
            self.watcher(one.number, "loads", at, value)
        return value

    def store(self, at: int, value: int) -> None:
        """A store by the current actor: plain ones are like those with release order, on x86."""
        one = self.current
        if one is None or one.done:
            self.words[at] = value
            return
        if at in one.stored_to and at not in self.visible and not one.atomic:
            self.words[at] = value
            return
        if one.at_once:
            if one.noted and self.shared(one, at, True):
                self.touched_writes.extend(self._parts(at, one.bits))
                if self.watcher is not None:
                    self.watcher(one.number, "sets", at, value)
            self.words[at] = value
            return
        if one.atomic:
            self._end_update(one, at, value)
            return
        if not self.shared(one, at, True):
            self.words[at] = value
            return
        self._stop(one, Does.STORE, at)
        self._moot += one.act()
        one.read_since = {}
        one.locks.difference_update(self._parts(at))
        if self.watcher is not None:
            self.watcher(one.number, "stores", at, value)
        if self.tso:
            # Nothing of memory is touched yet. A membarrier that began before does not wait for it.
            self.touched_reads.append(self.barrier_word(one))
            one.buffer.append((at, value, self.place))
            one.stored += 1
        else:
            self._set(at, value)

    def _parts(self, at: int, bits: int = ALL) -> Words:
        """The parts of a word that have any of ``bits``."""
        words, low = self.split
        if at not in words:
            return (at,)
        return tuple(part for part, its in ((at, ~low), (at + LOW, low)) if bits & its)

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
        """Change memory. To store what is there anyway is to load it, as far as others can tell."""
        changed = self.words.get(at, 0) ^ value
        self.words[at] = value
        asked = self._parts(at, bits)
        for part in self._parts(at):
            if self._part_of(changed, part):
                self.touched_writes.append(part)
            elif part in asked:
                self.touched_reads.append(part)

    def _reads(self, one: Actor, words: Words) -> None:
        """A step that only reads: part of an attempt, but for what its actor waited for, which matters in any case."""
        if one.attempt is not None and not self.touched_reads:
            words = one.attempt_reads(self.place, words)
        self.touched_reads.extend(words)

    def attempt(self, validation: int) -> None:
        """The current actor begins an attempt, as `stress.verify.actors` has it, that a load of a word validates."""
        if self.current is not None:
            self._moot += self.current.end_attempt(well=True)
            self.current.begin_attempt(validation)

    def attempt_ends(self, *, well: bool) -> None:
        """It is over."""
        if self.current is not None:
            self._moot += self.current.end_attempt(well=well)

    def barrier_word(self, one: Actor) -> int:
        """A word that stands for how many stores of an actor a membarrier finds."""
        return -1 - one.number

    def _begin_update(self, one: Actor, at: int) -> int:
        if not one.stopped and self.shared(one, at, True):
            self._stop(one, Does.UPDATE, at)
            if one.landings:
                self.after.append(one.landings[-1])
            self.touched_reads.extend(self._parts(at, one.bits))
        elif not one.stopped:
            self.fence()  # as one of any word does
        one.stopped = True
        value = self.words.get(at, 0)
        if at in self.visible:
            self._remember(one, self._parts(at, one.bits), value)
        if self.watcher is not None and at in self.visible:
            self.watcher(one.number, "updates", at, value)
        return value

    def _end_update(self, one: Actor, at: int, value: int) -> None:
        if at not in self.visible:
            self.words[at] = value
        else:
            self._set(at, value, one.bits)
            one.read_since = {}
            self._moot += one.act()
            if self.watcher is not None:
                self.watcher(one.number, "sets", at, value)

    def __enter__(self) -> None:
        """A read-modify-write of the current actor begins: as `stress.shm.atomics` asks."""
        if self.current is not None and not self.current.done:
            self.current.atomic = True
            self.current.stopped = False

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        """It is over."""
        if self.current is not None:
            self.current.atomic = False
        return False

    @contextmanager
    def only(self, bits: int) -> Iterator[None]:
        """What the current actor does in here is an access to a word, of which it looks at and changes these bits."""
        one = self.current
        if one is None:
            yield
            return
        one.bits = bits
        yield
        one.bits = ALL

    def lock(self, at: int, value: int) -> None:
        """Take a lock for the current actor: wait until its word is 0, and make it ``value``, in one step.

        That others hold it meanwhile is no news for who tries again: it always finds it free. Two who try again for
        something else would wake each other for ever.
        """
        one = self.current
        if one is not None and self.shared(one, at, True):
            self._stop(one, Does.LOCK, at)
            if one.landings:
                self.after.append(one.landings[-1])
            parts = self._parts(at)
            self.touched_reads.extend(parts)
            self.touched_writes.extend(parts)
            one.read_since = {}
            one.locks.update(parts)
            if self.watcher is not None:
                self.watcher(one.number, "locks", at, value)
        self.words[at] = value

    def note(self, text: str) -> None:
        """The current actor says what it is about."""
        if self.listener is not None and self.current is not None:
            self.listener(self.current.number, text)

    def fence(self) -> None:
        """Wait until the current actor's buffer is empty."""
        one = self.current
        if one is None or one.done or not one.buffer:
            return
        one.reads = one.writes = ()
        self._stop(one, Does.FENCE, 0)
        self.after.append(one.landings[-1])

    def membarrier(self) -> int:
        """Every other actor fences while the current one waits; 0."""
        one = self.current
        if one is None or one.done or not self.tso:
            return 0
        one.reads = ()
        one.writes = tuple(self.barrier_word(other) for other in self.team if other is not one)
        self._stop(one, Does.BARRIER, 0)
        if one.landings:
            self.after.append(one.landings[-1])
        self.touched_writes.extend(one.writes)
        one.barrier = [other.stored for other in self.team]
        one.reads = one.writes = ()
        self._stop(one, Does.BARRIER_DONE, 0)
        for other, stored in zip(self.team, one.barrier, strict=True):
            if stored:
                self.after.append(other.landings[stored - 1])
        return 0

    def touch(self, reads: Collection[int], writes: Collection[int]) -> None:
        """Stop before several words are touched at once, by code that is not ours to split."""
        one = self.current
        if one is None or one.done or (one.at_once and not one.noted):
            return
        reads = tuple(at for at in reads if self.shared(one, at, False))
        writes = tuple(at for at in writes if self.shared(one, at, True))
        if not reads and not writes:
            return
        if one.noted:
            self.touched_reads.extend(reads)
            self.touched_writes.extend(writes)
            return
        one.reads, one.writes = reads, writes
        self._stop(one, Does.TOUCH, 0)
        if writes:
            self.touched_reads.extend(reads)
        else:
            self._reads(one, reads)
        one.turn.extend((at, self.words.get(at, 0)) for at in reads)
        self.touched_writes.extend(writes)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """What the current actor does in here belongs to the step that it is in: its words were touched, or record."""
        one = self.current
        if one is None or one.at_once:
            yield
            return
        one.at_once = True
        yield
        one.at_once = False

    @contextmanager
    def one_step(self, name: str) -> Iterator[None]:
        """What the current actor does in here is one step of its own, after a fence; all that it touches is noted."""
        one = self.current
        if one is None or one.done or one.at_once:
            yield
            return
        one.reads = one.writes = ()
        self._stop(one, Does.ALONE, 0)
        if one.landings:
            self.after.append(one.landings[-1])
        one.at_once = one.noted = True
        self.note(name)
        yield
        one.at_once = one.noted = False

    def wait_until(self, ready: Callable[[], bool], since: Callable[[], int]) -> None:
        """The current actor waits for what another one gives it; ``since`` is the place where it did."""
        one = self.current
        if one is None or one.done:
            return
        one.ready = ready
        one.reads = one.writes = ()
        self._stop(one, Does.WAIT, 0)
        self.after.append(since())

    def spin(self, spins: int = 0) -> int:
        """The current actor waits in a loop until a word that the loop read is another; the number of its next turn."""
        one = self.current
        if one is not None and not one.done:
            one.waits = dict(one.read_since)
            one.read_since = {}
            if not one.waits:  # for what nobody was ever seen to store
                one.waits = {NOBODY: 0}
                one.reads = one.writes = ()
                self._stop(one, Does.TOUCH, 0)
        return spins + 1

    def try_again(self) -> None:
        """The current actor begins anew what did not succeed; if it only repeats itself, it waits as in a loop."""
        one = self.current
        if one is None or one.done:
            return
        # What it alone stores to, as the number of its read-side sections, is no news.
        own = 1 << one.number
        turn = [(at, value) for at, value in one.turn if self._writers.get(word_of(at), 0) & ~own]
        if turn == one.last_turn:
            one.waits = dict(reversed(turn))  # as it found them: the turn itself may have changed some, and back
        one.last_turn, one.turn = turn, []
        one.turns += 1
        if one.turns > 100:
            raise Livelock(one.name)
