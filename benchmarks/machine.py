"""A machine to measure on: the segment of a run, without its processes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from stress.arch.geometry import GIB, Geometry
from stress.errors import RunBroken
from stress.kernels.split import DONE, split
from stress.kernels.tlb import CPU_RANDOM, CPU_SEEN, Cpu, new_cpu
from stress.kernels.vcpu import RAN, run
from stress.kernels.workload import Pattern, Workload, scatter_for, seed_for
from stress.shm.accounts import PHASE, PHASE_SLOT_BITS
from stress.shm.layout import Machine, geo_for
from stress.shm.segment import Segment
from stress.shm.words import SEQUENCE

#: Share of a block's pages, in 2**-20, that a split maps.
ALL, NONE = 1 << 20, 0
VCPU = 0
ORDER_0 = 1 << PHASE_SLOT_BITS  # PHASE: cycle 1, outside of rebuilds of the only order


def workload(pattern: Pattern, pages: int, write_fraction: float = 0.0, stride: int = 1) -> Workload:
    """Accesses to the first ``pages`` pages of the memslot."""
    return Workload(int(pattern), pages, stride, 0.99, scatter_for(pages), round(write_fraction * 4096))


def machine_of(
    blocks: int, block_size: int = GIB, is_split: Callable[[int], bool] = lambda block: False, share: int = ALL
) -> Machine:
    """A machine with one vCPU, 4 KiB granule and every block mapped, those of ``is_split`` as tables.

    Such a table maps ``share`` of its pages.
    """
    geo = geo_for(
        Geometry(4096),
        block_size=block_size,
        blocks=blocks,
        vcpus=1,
        fwb=True,
        guest_caches=True,
    )
    segment = Segment.create(geo, orders=1)
    segment.remove()  # the views keep it; nothing is left behind, whatever happens
    machine = segment.machine
    # One page of each block: the fault maps the block.
    block_pages = geo.pages // blocks
    each = workload(Pattern.STRIDED, geo.pages, stride=block_pages)
    if run(machine, cpu_for(machine), each, VCPU, 1 + blocks // 128) != RAN:
        raise RunBroken("the vCPU that maps the blocks did not run", "report it")
    for block in filter(is_split, range(blocks)):
        if split(machine, geo.hypervisor, geo.base_gfn + block * block_pages, share, 1, 0) != DONE:
            raise RunBroken(f"block {block} was not split", "report it")
    machine.tally[PHASE] = ORDER_0
    return machine


def cpu_for(machine: Machine, seed: int = 1) -> Cpu:
    """A vCPU with an empty TLB that has seen every TLBI so far."""
    cpu = new_cpu()
    cpu.registers[CPU_SEEN] = machine.control[SEQUENCE]
    cpu.registers[CPU_RANDOM] = seed_for(seed, VCPU)
    return cpu


class Snapshot:
    """The contents of a machine's regions, or of a vCPU's arrays."""

    def __init__(self, record: Machine | Cpu) -> None:
        self._record = record
        self._copies = {name: array.copy() for name, array in self._arrays()}

    def _arrays(self) -> list[tuple[str, Any]]:
        return [(name, array) for name, array in self._record._asdict().items() if name != "geo"]

    def __getitem__(self, region: str) -> Any:
        return self._copies[region]

    def restore(self, *names: str) -> None:
        """Put the contents back: of the regions ``names``, or of all."""
        for name, array in self._arrays():
            if not names or name in names:
                np.copyto(array, self._copies[name])

    def differences(self, other: Snapshot) -> list[str]:
        """Names of the regions or arrays that differ between two snapshots."""
        return [name for name, copy in self._copies.items() if not np.array_equal(copy, other._copies[name])]
