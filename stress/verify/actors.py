"""What an actor is between its steps: where it stands, what it waits for, what it stored that is not in memory yet.

An attempt is a row of loads without effect, unless the last of them, the validation, finds a value that is known, and
that never comes back once it is gone. Whatever an attempt that does not end well has loaded, its actor would be in the
same state; and to begin when the value is gone, or to see it go, is the same, too. So what an attempt loaded matters if
it ended well, and its validation then counts as its first load; if it did not, nothing but the validation matters.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final


class Does:
    """What an actor's next step is: from ``UPDATE`` to ``ALONE`` it waits until the actor's buffer is empty.

    Integers, not an enumeration: they are looked at before each step.
    """

    LOAD: Final = 0
    STORE: Final = 1  # into the buffer, or to memory at once
    TOUCH: Final = 2  # several words at once, known in advance
    UPDATE: Final = 3  # atomic read-modify-write
    FENCE: Final = 4
    BARRIER: Final = 5  # membarrier begins: it is every processor's turn to fence
    LOCK: Final = 6  # takes a lock once its word is 0
    ALONE: Final = 7  # a piece of code as one step
    BARRIER_DONE: Final = 8
    WAIT: Final = 9  # for something that others do to it alone


#: From a word to what stands for its low part.
LOW = 1 << 32

#: All bits of a word.
ALL = -1

Words = tuple[int, ...]


def word_of(part: int) -> int:
    """The word that a part, its low one or the rest, belongs to."""
    return part - LOW if part >= LOW else part


class Actor:
    """A function that stops before each step, and the stores on their way from it to memory."""

    def __init__(self, number: int, name: str, work: Callable[[], object]) -> None:
        self.number = number
        self.name = name
        self.work = work
        self.optional = False  # it need not come to its end
        self.used: set[int] = set()  # words that it was seen to load, and to store to
        self.stored_to: set[int] = set()
        self.begin_anew()

    def begin_anew(self) -> None:
        """Back to the start."""
        self.done = False
        self.does: int = Does.TOUCH
        self.at = 0
        self.reads: Words = ()
        self.writes: Words = ()
        self.ready: Callable[[], bool] = bool
        #: Words that must not all be as they were for it to go on, if it spins.
        self.waits: dict[int, int] = {}
        self.read_since: dict[int, int] = {}  # since its last store or turn of a loop
        self.turn: list[tuple[int, int]] = []  # all it read since it last yielded
        self.last_turn: list[tuple[int, int]] = []
        self.turns = 0
        self.locks: set[int] = set()  # that it holds
        self.buffer: deque[tuple[int, int, int]] = deque()  # word, value, place in the schedule where it was stored
        self.stored = 0  # so many stores so far
        self.landed = 0  # so many of them reached memory
        self.landings: list[int] = []  # at these places in the schedule
        self.barrier: list[int] = []  # the others' stores that a membarrier waits for
        self.atomic = False  # within a read-modify-write
        self.stopped = False  # and it has had its stop
        self.bits = ALL  # of the word that it accesses, those that it looks at or changes
        #: Places of the loads of the attempt under way, and their words; they only count if it ends well.
        self.attempt: list[tuple[int, Words]] | None = None
        self.validation = 0  # the word whose load ends it
        self.turn_before = 0  # length of ``turn`` when it began
        self.at_once = False  # what it does now is part of the step it is in
        self.noted = False  # and is noted

    def begin_attempt(self, validation: int) -> None:
        """An attempt begins, with no loads yet."""
        self.attempt = []
        self.validation = validation
        self.turn_before = len(self.turn)

    def attempt_reads(self, place: int, words: Words) -> Words:
        """A load of the attempt, by its place in the schedule; what it counts as."""
        assert self.attempt is not None
        if not self.attempt:
            words = (*words, self.validation)
        self.attempt.append((place, words))
        return words

    def end_attempt(self, *, well: bool) -> list[tuple[int, Words]]:
        """The attempt, if any, is over; places of its loads, and the words of each on which nothing depends.

        Of a word with a low part the latter never matters to an attempt.
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
        """A store: the attempt, if any, has an effect, and is none."""
        attempt, self.attempt = self.attempt, None
        return [(attempt[0][0], (self.validation,))] if attempt else []
