"""What compiled code does by instructions and system calls, as its pure-Python twins do it (``NUMBA_DISABLE_JIT=1``).

Every access of a kernel to shared memory goes through here: by `stress.shm.atomics`, and, for what is no access, by
`stress.shm.syscalls`. Whoever wants to see or to order them all makes another ``Processor`` the one in use.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from stress.shm.membarrier import expedited_membarrier


class Processor:
    """This machine's. An aligned word is copied by one 8-byte move, so loads and stores are atomic as they are."""

    #: Excludes read-modify-writes of other processes.
    rmw_lock: AbstractContextManager[Any] = nullcontext()

    def load(self, array: Any, index: Any) -> int:
        """Load-acquire."""
        return int(array[index])

    def store(self, array: Any, index: Any, value: int) -> None:
        """Store-release."""
        array[index] = value

    def get(self, array: Any, index: Any) -> int:
        """Load without order."""
        return int(array[index])

    def put(self, array: Any, index: Any, value: int) -> None:
        """Store without order."""
        array[index] = value

    def update(self, array: Any, index: Any, new: Callable[[int], int]) -> int:
        """Read-modify-write: the word becomes ``new`` of the old one, which is returned."""
        with self.rmw_lock:
            old = int(array[index])
            array[index] = new(old)
        return old

    def compare_exchange(self, array: Any, index: Any, expected: int, value: int) -> bool:
        """Store ``value`` if the word is ``expected``; returns whether it was."""
        with self.rmw_lock:
            # A failure must not write: the word's owner may be storing to it without the lock.
            if int(array[index]) != expected:
                return False
            array[index] = value
        return True

    def only(self, bits: int) -> AbstractContextManager[None]:
        """While entered, one word is accessed, of which only ``bits`` are looked at and changed."""
        return nullcontext()

    def fence(self) -> None:
        """Sequentially consistent fence."""

    def membarrier(self) -> int:
        """membarrier(2), MEMBARRIER_CMD_GLOBAL_EXPEDITED; 0, or -1 where there is none."""
        return expedited_membarrier()

    def pause(self) -> None:
        """Spin-wait hint."""

    def sched_yield(self) -> None:
        """sched_yield(2)."""
        os.sched_yield()

    def clock_ns(self) -> int:
        """CLOCK_MONOTONIC in ns."""
        return time.monotonic_ns()


class Twins:
    """The processor that twins use."""

    processor = Processor()


@contextmanager
def use(other: Processor) -> Iterator[None]:
    """Make the twins use the processor ``other`` while the context is entered."""
    before, Twins.processor = Twins.processor, other
    try:
        yield
    finally:
        Twins.processor = before
