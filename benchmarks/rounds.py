"""Two things measured in turns, so that whatever disturbs the machine hits both."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def elapsed_s(work: Callable[[], object]) -> float:
    """How long ``work`` takes; it must be so long that the call itself does not count."""
    start = time.perf_counter_ns()
    work()
    return (time.perf_counter_ns() - start) / 1e9


def cpu_s(work: Callable[[], object]) -> float:
    """Processor time of ``work`` in this thread: elapsed time less that in which others had the core."""
    start = time.thread_time_ns()
    work()
    return (time.thread_time_ns() - start) / 1e9


def interleave(rounds: int, first: Callable[[], float], second: Callable[[], float]) -> tuple[Floats, Floats]:
    """Measure both in every round, taking turns in who begins; their values, (rounds,) each."""
    values = np.zeros((2, rounds))
    for at in range(rounds):
        for which in (0, 1) if at % 2 else (1, 0):
            values[which, at] = (first, second)[which]()
    return values[0], values[1]
