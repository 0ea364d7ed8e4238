"""What an actor is between its steps: where it stands, what it waits for, what it stored that is not in memory yet."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import IntEnum


class Does(IntEnum):
    """What an actor's next step is."""

    LOAD = 0
    STORE = 1  # into the buffer, or to memory at once
    UPDATE = 2  # atomic read-modify-write
    FENCE = 3
    BARRIER = 4  # membarrier begins: it is every processor's turn to fence
    BARRIER_DONE = 5
    TOUCH = 6  # several words at once, known in advance
    LOCK = 7  # takes a lock once its word is 0
    ALONE = 8  # a piece of code as one step
    WAIT = 9  # for something that others do to it alone


AFTER_OWN_STORES = frozenset((Does.UPDATE, Does.FENCE, Does.BARRIER, Does.LOCK, Does.ALONE))


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
        self.does = Does.TOUCH
        self.at = 0
        self.reads: tuple[int, ...] = ()
        self.writes: tuple[int, ...] = ()
        self.ready: Callable[[], bool] = bool
        #: Words that must not all be as they were for it to go on, if it spins.
        self.waits: dict[int, int] = {}
        self.read_since: dict[int, int] = {}  # since its last store or turn of a loop
        self.turn: list[tuple[int, int]] = []  # all it read since it last yielded
        self.last_turn: list[tuple[int, int]] = []
        self.turns = 0
        self.buffer: deque[tuple[int, int, int]] = deque()  # word, value, place in the schedule where it was stored
        self.stored = 0  # so many stores so far
        self.landed = 0  # so many of them reached memory
        self.landings: list[int] = []  # at these places in the schedule
        self.barrier: list[int] = []  # the others' stores that a membarrier waits for
        self.atomic = False  # within a read-modify-write
        self.stopped = False  # and it has had its stop
        self.at_once = False  # what it does now is part of the step it is in
        self.noted = False  # and is noted
