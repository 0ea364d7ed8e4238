"""The vCPU loop against C11 doing the same work: accesses/s on TLB hits and on walks."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks import reference
from benchmarks.figure import Figure
from benchmarks.loop import Case, contest
from benchmarks.machine import machine_of, workload
from stress.arch.geometry import MIB
from stress.kernels.tlb import PER_LEVEL
from stress.kernels.vcpu import run
from stress.kernels.workload import Pattern
from stress.shm.accounts import C_ACCESSES, C_HITS, C_WALKS
from stress.shm.layout import Machine

TARGET = 0.9

# Pages from one access to the next: in another TLB set, and in the range of another level 3 table.
_STRIDE = 513
# Pages of uniform accesses: more would measure the memory of this machine, and how busy its other users keep it.
_NEAR = 1 << 18


def hit_cases(blocks: Machine, pages: Machine) -> Iterator[Case]:
    """TLB hits, in memory mapped as ``blocks`` and as ``pages``."""
    frames = blocks.geo.frames
    sequential, uniform = Pattern.SEQUENTIAL, Pattern.UNIFORM
    yield Case("hits, blocks, sequential, reads", blocks, workload(sequential, frames), C_HITS)
    yield Case("hits, blocks, sequential, 20% writes", blocks, workload(sequential, frames, 0.2), C_HITS)
    yield Case("hits, blocks, uniform, 20% writes", blocks, workload(uniform, _NEAR, 0.2), C_HITS)
    yield Case("hits, pages in the TLB's reach, reads", pages, workload(sequential, PER_LEVEL), C_HITS)


def walk_cases(pages: Machine) -> Iterator[Case]:
    """Walks: memory mapped as ``pages``, and a mixture with 2 MiB blocks, whose fills search the TLB for conflicts."""
    frames = pages.geo.frames
    sequential, uniform, strided = Pattern.SEQUENTIAL, Pattern.UNIFORM, Pattern.STRIDED
    yield Case("walks, 1 level, sequential, reads", pages, workload(sequential, frames), C_WALKS)
    yield Case("walks, 1 level, sequential, 20% writes", pages, workload(sequential, frames, 0.2), C_WALKS)
    yield Case("walks, 2 levels, strided, reads", pages, workload(strided, frames, stride=_STRIDE), C_WALKS)
    yield Case("walks, mostly 2 levels, uniform, reads", pages, workload(uniform, _NEAR), C_WALKS)
    mixed = machine_of(512, 2 * MIB, is_split=lambda block: block % 2 == 0)
    yield Case("walks and hits, 2M blocks and pages", mixed, workload(uniform, _NEAR), C_ACCESSES)


def figures(rounds: int) -> Iterator[Figure]:
    """Every case's rate over that of the C reference."""
    blocks, pages = machine_of(4), machine_of(4, is_split=lambda block: True)
    for case in (*hit_cases(blocks, pages), *walk_cases(pages)):
        yield contest(case, run, reference.run, rounds, TARGET)
