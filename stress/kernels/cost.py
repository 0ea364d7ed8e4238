"""Modelled costs of a platform, spun: what this machine does in no time took longer there."""

from __future__ import annotations

from stress.shm.atomics import pause
from stress.shm.jit import inline, kernel
from stress.shm.placement import out_of_line
from stress.shm.syscalls import clock_ns


@kernel
def spin(duration_ns: int) -> None:
    """Let ``duration_ns`` pass, busily."""
    out_of_line()
    end = clock_ns() + duration_ns
    while clock_ns() < end:
        pause()


@inline
def spend(duration_ns: int) -> None:
    """Let ``duration_ns`` pass, busily; nothing for 0."""
    if duration_ns > 0:
        spin(duration_ns)
