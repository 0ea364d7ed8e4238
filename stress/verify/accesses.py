"""What actors do to the words that they share, each as one step, with x86-TSO's store buffers.

x86-TSO (Sewell, Sarkar, Owens, Zappa Nardelli, Myreen, CACM 2010): a store goes to its actor's buffer, whose oldest one
reaches memory at any time; a load looks there first; read-modify-writes and fences wait until it is empty.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Literal

from stress.verify.actors import ALL, Actor, Does, word_of
from stress.verify.stops import Stops
from stress.verify.system import Words

#: A word that nobody stores to.
NOBODY = -(1 << 32)


class Livelock(Exception):  # noqa: N818 - a finding
    """An actor repeats itself although what it reads keeps changing."""


class Accesses(Stops):
    """The accesses of whoever is the current actor. With none, each is made at once."""

    def load(self, at: int) -> int:
        """A load by the current actor, or by whoever sets the machine up."""
        one = self.current
        if one is None or one.done or at in self.own_loads:
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
        """A store by the current actor. On x86 a plain store has the order of a store-release."""
        one = self.current
        if one is None or one.done or at in self.own_stores:
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
        if one.attempt is not None:
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

    def attempt(self, validation: int) -> None:
        """The current actor begins an attempt (`stress.verify.actors`) that the load of ``validation`` ends."""
        if self.current is not None:
            self._moot += self.current.end_attempt(well=True)
            self.current.begin_attempt(validation)

    def attempt_ends(self, *, well: bool) -> None:
        """The current actor's attempt is over; ``well`` if its validation found the value it needs."""
        if self.current is not None:
            self._moot += self.current.end_attempt(well=well)

    def _begin_update(self, one: Actor, at: int) -> int:
        if not one.stopped and self.shared(one, at, True):
            self._stop(one, Does.UPDATE, at)
            if one.landings:
                self.after.append(one.landings[-1])
            self.touched_reads.extend(self._parts(at, one.bits))
        elif not one.stopped:
            self.fence()  # a read-modify-write of any word does this
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
            if one.attempt is not None:
                self._moot += one.act()
            if self.watcher is not None:
                self.watcher(one.number, "sets", at, value)

    def __enter__(self) -> None:
        """A read-modify-write of the current actor begins (called by `stress.shm.atomics`)."""
        if self.current is not None and not self.current.done:
            self.current.atomic = True
            self.current.stopped = False
            self._set_current(self.current)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        """The read-modify-write is over."""
        if self.current is not None:
            self.current.atomic = False
            self._set_current(self.current)
        return False

    @contextmanager
    def only(self, bits: int) -> Iterator[None]:
        """Within this block the current actor makes one access to a word, which concerns only these bits of it."""
        one = self.current
        if one is None:
            yield
            return
        one.bits = bits
        yield
        one.bits = ALL

    def lock(self, at: int, value: int, others: Words = ()) -> None:
        """Take a lock for the current actor: wait until its word and ``others`` are 0, then set its word, in one step.

        An actor that tries again does not count as awakened because others held the lock meanwhile: it always finds
        the lock free. Otherwise two actors that try again for another reason would wake each other for ever.
        """
        one = self.current
        others = tuple([other for other in others if one is not None and self.shared(one, other, False)])
        if one is not None and (self.shared(one, at, True) or others):
            one.reads = others
            self._stop(one, Does.LOCK, at)
            if one.landings:
                self.after.append(one.landings[-1])
            parts = self._parts(at)
            self.touched_reads.extend((*parts, *others))
            self.touched_writes.extend(parts)
            one.read_since = {}
            one.locks.update(parts)
            if self.watcher is not None:
                self.watcher(one.number, "locks", at, value)
        self.words[at] = value

    def note(self, text: str) -> None:
        """Tell the listener what the current actor begins to do."""
        if self.listener is not None and self.current is not None:
            self.listener(self.current.number, text)

    def fence(self) -> None:
        """Let the current actor wait until its buffer is empty."""
        one = self.current
        if one is None or one.done or not one.buffer:
            return
        one.reads = one.writes = ()
        self._stop(one, Does.FENCE, 0)
        self.after.append(one.landings[-1])

    def membarrier(self) -> int:
        """Let the current actor wait until what others have in their buffers is in memory; returns 0, as the call."""
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
        """Stop before several words are touched in one step, by code that cannot be split."""
        one = self.current
        if one is None or one.done or (one.at_once and not one.noted):
            return
        reads = tuple([at for at in reads if self.shared(one, at, False)])
        writes = tuple([at for at in writes if self.shared(one, at, True)])
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
        """Within this block the current actor does not stop: its words are already noted as touched, or only record."""
        one = self.current
        if one is None or one.at_once:
            yield
            return
        one.at_once = True
        yield
        one.at_once = False

    @contextmanager
    def one_step(self, name: str) -> Iterator[None]:
        """What the current actor does within this block is one step of its own, after a fence, with all it touches."""
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
        """The current actor waits until ``ready()``; ``since()`` is the place of the step that made it so."""
        one = self.current
        if one is None or one.done:
            return
        one.ready = ready
        one.reads = one.writes = ()
        self._stop(one, Does.WAIT, 0)
        self.after.append(since())

    def spin(self, spins: int = 0) -> int:
        """The current actor waits in a loop until a word that the loop read changes; returns the next turn's number."""
        one = self.current
        if one is not None and not one.done:
            read, one.read_since = one.read_since, {}
            self._wait(one, read)
        return spins + 1

    def _wait(self, one: Actor, words: dict[int, int]) -> None:
        """Let an actor go on only when one of these words has another value."""
        one.waits = words or {NOBODY: 0}
        if not words:  # it waits for a word that no other actor was ever seen to store to
            one.reads = one.writes = ()
            self._stop(one, Does.TOUCH, 0)

    def try_again(self) -> None:
        """The current actor tries again what failed. If it would only repeat itself, it waits as in a loop.

        Raises `Livelock` after 100 turns.
        """
        one = self.current
        if one is None or one.done:
            return
        # A word that this actor alone stores to, such as the count of its read-side sections, tells it nothing new.
        own = 1 << one.number
        turn = [(at, value) for at, value in one.turn if self._writers.get(word_of(at), 0) & ~own]
        same = turn == one.last_turn
        # Another actor that was never seen to store to a word may still do so: from then on it has another value.
        waits = {at: self._seen_part(one, at) for at, _ in one.turn}
        waits.update(reversed(turn))  # the first values read: the turn may have changed a word and back
        one.last_turn, one.turn = turn, []
        one.turns += 1
        if one.turns > 100:
            raise Livelock(one.name)
        if same:
            self._wait(one, waits)
