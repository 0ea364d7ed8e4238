"""How Python code stores to words that compiled code reads, without loading a compiler."""

from __future__ import annotations

import threading
from typing import Any

from stress.shm.processor import Twins


def fence() -> None:
    """Order what was read before against what is read and written from here on, also where the CPU need not.

    Giving a lock back is a store-release, taking it again a load-acquire, and no load-acquire passes a store-release
    before it (DDI 0487 B2.3, barrier-ordered-before).
    """
    lock = threading.Lock()
    for _ in range(2):
        with lock:
            pass


def publish(array: Any, index: Any, value: int) -> None:
    """Store-release: compiled code that loads ``value`` from the word sees all that was written before."""
    fence()
    Twins.processor.store(array, index, value)
