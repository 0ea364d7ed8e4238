"""vCPUs for tests: their workloads, the machines they run on, and what they counted."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from machines import block_gfn, fault, small_machine, split_block

from stress.kernels.codes import POPULATION
from stress.kernels.split import DONE
from stress.kernels.tlb import CPU_PAGE, CPU_RANDOM, CPU_SEEN, Cpu, new_cpu
from stress.kernels.vcpu import run
from stress.kernels.workload import Pattern, Workload, scatter_for, seed_for
from stress.shm.accounts import C_ACCESSES, C_FAULTS, C_HITS, C_REDONE, C_WALKS, C_WRITES, FAULT_KINDS
from stress.shm.layout import Machine
from stress.shm.words import SEQUENCE, STOP

RW = 3
ALWAYS = 4096  # Workload.write_below: every access writes


def workload(s: Machine, pattern: Pattern = Pattern.SEQUENTIAL, write_below: int = 0) -> Workload:
    pages = s.geo.pages
    return Workload(int(pattern), pages, 7, 0.99, scatter_for(pages), write_below)


def cpu_at(page: int = 0) -> Cpu:
    """A vCPU whose last access was to ``page``: a sequential one goes on with the next."""
    cpu = new_cpu()
    cpu.registers[CPU_PAGE] = page
    cpu.registers[CPU_RANDOM] = seed_for(1, 0)
    return cpu


def cpu_before(s: Machine, page: int) -> Cpu:
    """A vCPU whose next sequential access is to ``page``."""
    return cpu_at((page - 1) % s.geo.pages)


def mapped(share: int | None = None, **options: Any) -> Machine:
    """Two blocks, mapped as blocks, or split with this share of their pages mapped."""
    s = small_machine(**options)
    for block in range(s.geo.blocks):
        assert fault(s, block_gfn(s.geo, block)) == POPULATION
        if share is not None:
            assert split_block(s, block, share) == DONE
    return s


def caught_up(s: Machine, cpu: Cpu) -> Cpu:
    """The same vCPU, having seen every TLBI."""
    cpu.registers[CPU_SEEN] = s.control[SEQUENCE]
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


def faults(s: Machine, vcpu: int = 0) -> dict[int, int]:
    """Faults of each class that occurred."""
    sums = s.counters[vcpu].sum(axis=0)[C_FAULTS : C_FAULTS + FAULT_KINDS]
    return {kind: int(count) for kind, count in enumerate(sums) if count}


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
    end = time.monotonic() + 100
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)
