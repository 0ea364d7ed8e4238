"""Guests that run a program once, for tests: a few accesses at places of the test's choosing."""

from __future__ import annotations

from stress.kernels.tlb import CPU_LEFT, CPU_PAGE, Cpu
from stress.kernels.vcpu import FINISHED, run
from stress.kernels.workload import Pattern, Workload
from stress.shm.layout import Machine


def program(first: int, group: int = 1, head: int = 0, skip: int = 0, each: int = 1, write: bool = False) -> Workload:
    """Of each group of pages its first (``head`` 1: read, 2: written), then ``each`` pages from page ``skip`` on."""
    return Workload(int(Pattern.PROGRAM), 1, 1, 0.99, 1, 4096 * write, first, group, head, skip, each)


def execute(s: Machine, cpu: Cpu, vcpu: int, work: Workload, accesses: int) -> None:
    """Let a vCPU run the first accesses of a program."""
    cpu.registers[CPU_PAGE] = 0
    cpu.registers[CPU_LEFT] = accesses
    assert run(s, cpu, work, vcpu, accesses + 1) == FINISHED
