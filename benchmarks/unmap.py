"""The ``unmap`` step against C11 doing the same work, on a fully populated 1 GiB subtree of 4 KiB pages."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from benchmarks import reference
from benchmarks.figure import Figure
from benchmarks.machine import Snapshot, machine_of
from benchmarks.rounds import cpu_s, interleave
from stress.errors import RunBroken
from stress.kernels.descriptor import next_page
from stress.kernels.entries import find
from stress.kernels.teardown import unmap_table
from stress.shm.jit import kernel
from stress.shm.layout import Machine
from stress.shm.syscalls import clock_ns
from stress.shm.words import FREE

TARGET = 0.9
_TABLES = 513
_PER_ROUND = 10


@kernel
def subtree(s: Machine) -> tuple[int, int]:
    """(page, level) of the table below the first block's entry."""
    index, level = find(s, s.geo.base_gfn, s.geo.block_level)
    return next_page(s.geo, s.tables[index]), level + 1


@kernel
def unmap_ns(s: Machine, page: int, level: int) -> int:
    """Unmap the table as the step does; returns how long it took in ns."""
    start = clock_ns()
    unmap_table(s, page, level, s.geo.base_gfn, s.geo.hypervisor)
    return clock_ns() - start


def figures(rounds: int) -> Iterator[Figure]:
    """The C reference's processor time over ours."""
    machine = machine_of(1, is_split=lambda block: True)
    page, level = subtree(machine)
    start = Snapshot(machine)

    def end(unmap: Callable[[Machine, int, int], int]) -> Snapshot:
        start.restore()
        unmap(machine, page, level)
        return Snapshot(machine)

    free = int((machine.page_level == FREE).sum())
    if different := end(unmap_ns).differences(end(reference.unmap_ns)):
        raise RunBroken(f"unmap: kernel and reference disagree about {', '.join(different)}")
    freed = int((machine.page_level == FREE).sum()) - free
    if freed != _TABLES:
        raise RunBroken(f"unmap: {freed} tables were freed, not {_TABLES}")

    def median_ns(unmap: Callable[[Machine, int, int], int]) -> float:
        times = []
        for _ in range(_PER_ROUND):
            start.restore("control", "tables", "page_count", "page_level", "free_ring")
            times.append(cpu_s(lambda: unmap(machine, page, level)) * 1e9)
        return float(np.median(times))

    ours, other = interleave(rounds, lambda: median_ns(unmap_ns), lambda: median_ns(reference.unmap_ns))
    ours_shown, other_shown = (f"{np.median(times) / 1e3:.0f} us" for times in (ours, other))
    yield Figure.of_rounds("unmap, 1 GiB of 4 KiB pages", ours_shown, other_shown, other / ours, TARGET)
