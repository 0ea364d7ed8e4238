"""The state of an actor between its steps: its next step, what it waits for, its stores that are not in memory yet.

An attempt is a row of loads that has no effect unless the last of them, the validation, finds a known value, which
never comes back once it is gone. An attempt that fails leaves its actor in the same state whatever it has loaded, and
it makes no difference whether the value was gone when the attempt began or went meanwhile. So the loads of an attempt
matter if it succeeds, and its validation then counts as its first load; if it fails, nothing but the validation
matters.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final


class Does:
    """The next step of an actor: from ``UPDATE`` to ``ALONE`` it waits until the actor's buffer is empty.

    Integers, not an enumeration: they are looked at before each step.
    """

    LOAD: Final = 0
    STORE: Final = 1  # into the buffer, or to memory at once
    TOUCH: Final = 2  # several words at once, known in advance
    UPDATE: Final = 3  # atomic read-modify-write
    FENCE: Final = 4
    BARRIER: Final = 5  # membarrier begins: every other processor is to fence
    LOCK: Final = 6  # takes a lock once its word, and those that it reads, are 0
    ALONE: Final = 7  # a piece of code as one step
    BARRIER_DONE: Final = 8
    WAIT: Final = 9  # waits for something that others give to it alone


#: Added to a word, the number that stands for its low part.
LOW = 1 << 32

#: All bits of a word.
ALL = -1

Words = tuple[int, ...]


def word_of(part: int) -> int:
    """The word to which a part (its low part, or the rest) belongs."""
    return part - LOW if part >= LOW else part


class Actor:
    """A function that stops before each step, and its stores that are on their way to memory."""

    def __init__(self, number: int, name: str, work: Callable[[], object]) -> None:
        self.number = number
        self.name = name
        self.work = work
        self.optional = False  # a schedule may end before this actor does
        self.used: set[int] = set()  # words that it was seen to load, and to store to
        self.stored_to: set[int] = set()
        self.begin_anew()

    def begin_anew(self) -> None:
        """Go back to the start."""
        self.done = False
        self.does: int = Does.TOUCH
        self.at = 0
        self.reads: Words = ()
        self.writes: Words = ()
        self.ready: Callable[[], bool] = bool
        #: What a spinning actor has read: it goes on once one of these words has another value.
        self.waits: dict[int, int] = {}
        self.read_since: dict[int, int] = {}  # what it has read since its last store or turn of a loop
        self.turn: list[tuple[int, int]] = []  # all that it has read since it last yielded
        self.last_turn: list[tuple[int, int]] = []
        self.turns = 0
        self.locks: set[int] = set()  # the words of locks that it holds
        self.buffer: deque[tuple[int, int, int]] = deque()  # word, value, place in the schedule where it was stored
        self.stored = 0  # how many stores it has made
        self.landed = 0  # how many of them have reached memory
        self.landings: list[int] = []  # the places in the schedule where they did
        self.barrier: list[int] = []  # for each actor, how many of its stores a membarrier waits for
        self.atomic = False  # within a read-modify-write
        self.stopped = False  # it has stopped before this read-modify-write
        self.bits = ALL  # the bits that it looks at or changes of the word that it accesses
        #: The place and the words of each load of the attempt under way; they count only if it succeeds.
        self.attempt: list[tuple[int, Words]] | None = None
        self.validation = 0  # the word whose load ends the attempt
        self.turn_before = 0  # length of ``turn`` when the attempt began
        self.at_once = False  # what it does now belongs to the step under way
        self.noted = False  # and counts as touched by that step

    def begin_attempt(self, validation: int) -> None:
        """Begin an attempt, with no loads yet."""
        self.attempt = []
        self.validation = validation
        self.turn_before = len(self.turn)

    def attempt_reads(self, place: int, words: Words) -> Words:
        """Add a load to the attempt, at its place in the schedule; returns the words that it counts as reading."""
        assert self.attempt is not None
        if not self.attempt:
            words = (*words, self.validation)
        self.attempt.append((place, words))
        return words

    def end_attempt(self, *, well: bool) -> list[tuple[int, Words]]:
        """End the attempt, if any; returns the loads on which nothing depends: (place, the words of the load).

        The low part of a word never matters to an attempt.
        """
        attempt, self.attempt = self.attempt, None
        if not attempt:
            return []
        if not well:
            del self.turn[self.turn_before : -1]
            return attempt[:-1]
        moot = [(place, its[1:2]) for place, its in attempt if len(its) > 1 and its[1] >= LOW]
        if len(attempt) > 1 and attempt[-1][1] == (self.validation,):
            moot.append(attempt[-1])
        return moot

    def act(self) -> list[tuple[int, Words]]:
        """A store: an attempt has an effect, and so is none. Returns the loads on which nothing depends."""
        attempt, self.attempt = self.attempt, None
        return [(attempt[0][0], (self.validation,))] if attempt else []
