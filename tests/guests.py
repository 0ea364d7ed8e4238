"""vCPUs for tests: their workloads, the machines they run on, and what they counted."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from machines import small_machine

from stress.kernels.fault import POPULATION, resolve
from stress.kernels.pattern import Pattern, Workload, scatter_for, seed_for
from stress.kernels.split import split
from stress.kernels.tlb import Cpu, new_cpu
from stress.kernels.vcpu import R_PAGE, R_RANDOM, R_SEEN, run
from stress.shm.layout import (
    C_ACCESSES,
    C_FAULTS,
    C_HITS,
    C_REDONE,
    C_WALKS,
    C_WRITES,
    FAULT_KINDS,
    SEQUENCE,
    STOP,
    Machine,
)

ALL = 1 << 20
RW = 3
ALWAYS = 4096  # Workload.write_below: every access writes


def workload(s: Machine, pattern: Pattern = Pattern.SEQUENTIAL, write_below: int = 0) -> Workload:
    pages = s.geo.frames
    return Workload(int(pattern), pages, 7, 0.99, scatter_for(pages), write_below)


def cpu_at(page: int = 0) -> Cpu:
    """A vCPU whose last access was to ``page``: a sequential one goes on with the next."""
    cpu = new_cpu()
    cpu.registers[R_PAGE] = page
    cpu.registers[R_RANDOM] = seed_for(1, 0)
    return cpu


def cpu_before(s: Machine, page: int) -> Cpu:
    """A vCPU whose next sequential access is to ``page``."""
    return cpu_at((page - 1) % s.geo.frames)


def mapped(share: int | None = None, **options: Any) -> Machine:
    """Two blocks, mapped as blocks, or split with this share of their pages mapped."""
    s = small_machine(**options)
    for block in range(s.geo.blocks):
        assert resolve(s, s.geo.base_gfn + block * 512, 0, 0) == POPULATION
        if share is not None:
            assert split(s, 1, block, share) == 0
    return s


def caught_up(s: Machine, cpu: Cpu) -> Cpu:
    """The same vCPU, having seen every TLBI."""
    cpu.registers[R_SEEN] = s.control[SEQUENCE]
    return cpu


def counters(s: Machine, vcpu: int = 0) -> dict[str, int]:
    sums = s.counters[vcpu].sum(axis=0)
    names = {
        "accesses": C_ACCESSES,
        "writes": C_WRITES,
        "hits": C_HITS,
        "walks": C_WALKS,
        "redone": C_REDONE,
    }
    return {name: int(sums[at]) for name, at in names.items()}


def faults(s: Machine) -> list[int]:
    return [int(count) for count in s.counters[0].sum(axis=0)[C_FAULTS : C_FAULTS + FAULT_KINDS]]


@contextmanager
def running(s: Machine, chunks: int) -> Iterator[list[int]]:
    """Run a vCPU in a thread; what it returns is in the list once the block has ended."""
    result: list[int] = []
    cpu, work = cpu_at(), workload(s)
    thread = threading.Thread(target=lambda: result.append(int(run(s, cpu, work, 0, chunks))), daemon=True)
    thread.start()
    try:
        yield result
        thread.join(30)
    finally:
        s.control[STOP] = 1
        thread.join()


def wait_until(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)
