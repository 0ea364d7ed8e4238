"""Several real processes on one real segment, for what only real concurrency can show."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from machines import small_machine

from stress.shm.layout import Geo, Machine
from stress.shm.segment import Segment

WORKERS = 4

#: What a worker runs: on its view of the machine, as process number so-and-so.
Work = Callable[[Machine, int], None]


@contextmanager
def shared_machine() -> Iterator[Segment]:
    """A small machine in shared memory; removed at the end."""
    segment = Segment.create(small_machine(blocks=1, vcpus=WORKERS).geo, 1)
    try:
        yield segment
    finally:
        segment.remove()


def _enter(work: Work, name: str, geo: Geo, who: int) -> None:
    work(Segment.attach(name, geo, 1).machine, who)


def run_workers(segment: Segment, work: Work) -> None:
    """Run ``work`` (a module's function) in four processes of a forkserver, to the end."""
    context = multiprocessing.get_context("forkserver")
    processes = [
        context.Process(target=_enter, args=(work, segment.name, segment.machine.geo, who), daemon=True)
        for who in range(WORKERS)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(100)
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    assert codes == [0] * WORKERS
