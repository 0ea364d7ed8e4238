"""Modelled costs of a platform: a process spins for the time that a step takes there and does not take here."""

from __future__ import annotations

from stress.shm.accounts import COSTS_CUT, COSTS_END_NS, HEARTBEAT
from stress.shm.atomics import load, pause, store
from stress.shm.jit import inline, kernel
from stress.shm.layout import Machine
from stress.shm.placement import out_of_line
from stress.shm.syscalls import clock_ns
from stress.shm.words import STOP


@kernel
def spin(s: Machine, who: int, duration_ns: int) -> None:
    """Let ``duration_ns`` pass for process ``who``, busily.

    When the run stops, or its time for costs is over, the rest is left out. The process then goes on at this machine's
    own speed and is judged as before, but its times are not the platform's, which COSTS_CUT tells.
    """
    out_of_line()
    now = clock_ns()
    end = now + duration_ns
    while now < end:
        last = load(s.tally, COSTS_END_NS)
        if load(s.control, STOP) != 0 or (last != 0 and now >= last):
            store(s.tally, COSTS_CUT, 1)
            break
        s.states[who, HEARTBEAT] += 1  # the watchdog sees that it goes on
        pause()
        now = clock_ns()


@inline
def spend(s: Machine, who: int, duration_ns: int) -> None:
    """Let process ``who`` spin for ``duration_ns``; nothing for 0."""
    if duration_ns > 0:
        spin(s, who, duration_ns)
