"""The fault path against C11 doing the same work: a vCPU that does little else than fault.

Under dirty logging each write meets a read-only page: exit, mmu_lock, memslot, walk, relax, dirty bit, TLBI by IPA with
its membarrier, accounting, event, retry. Its sibling maps pages that nobody has touched yet, which needs no TLBI: where
other runs keep the machine busy, the membarrier interrupts them and takes most of the time, and this one tells more.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from benchmarks import reference
from benchmarks.figure import Figure
from benchmarks.loop import Run
from benchmarks.machine import NONE, VCPU, Snapshot, cpu_for, machine_of, workload
from benchmarks.rounds import Floats, cpu_s, interleave
from stress.arch.geometry import LAST_LEVEL
from stress.errors import RunBroken
from stress.kernels.codes import MAPPED_PAGE, PERMISSION, POPULATION, RELAXED
from stress.kernels.dirty import set_logging
from stress.kernels.tlb import CHUNK, Cpu
from stress.kernels.vcpu import RAN, run
from stress.kernels.workload import Pattern, Workload
from stress.shm.accounts import (
    C_FAULTS,
    C_LOCK_HOLD_NS,
    C_LOCK_WAIT_NS,
    C_MAPPED_BLOCKS,
    C_PERMISSION,
    C_REDONE,
    C_TRANSLATION,
    E_LOCK_WAIT_NS,
    E_STALL_NS,
    E_TIME_NS,
    E_WHAT,
    HISTOGRAM_BUCKETS,
    VIOLATIONS,
    Kind,
)
from stress.shm.histogram import bucket
from stress.shm.layout import Machine, Rings

TARGET = 0.9
#: Faults of a run: as many as the event ring holds, so that none is dropped.
FAULTS = Rings().event_rows

_EVENT_TIMES = [E_TIME_NS, E_STALL_NS, E_LOCK_WAIT_NS]
_COUNTER_TIMES = [C_LOCK_WAIT_NS, C_LOCK_HOLD_NS]
_READ_THEN_WRITE = Workload(
    int(Pattern.PROGRAM), pages=0, stride=1, exponent=1.0, scatter=1, write_below=4096, group=1, head=1, run=1
)


@dataclass(frozen=True, slots=True)
class Case:
    """Accesses of which each, or each second, faults once; and what becomes of the faults."""

    name: str
    machine: Machine
    work: Workload
    chunks: int
    kind: int
    did: int
    counter: int  # of the faults' type and lookup level
    met: int  # level at which the walk ended; 0 if the TLB hit
    write: int
    redone: int  # accesses that a TLBI voids


def populating() -> Case:
    """Reads of pages that are not mapped, in tables that are there."""
    machine = machine_of(1, is_split=lambda block: True, share=NONE)
    return Case(
        name="faults, pages mapped",
        machine=machine,
        work=workload(Pattern.SEQUENTIAL, machine.geo.pages),
        chunks=FAULTS // CHUNK,
        kind=POPULATION,
        did=MAPPED_PAGE,
        counter=C_TRANSLATION + LAST_LEVEL,
        met=LAST_LEVEL,
        write=0,
        redone=0,
    )


def write_faults() -> Iterator[Case]:
    """Writes of pages that dirty logging has write-protected: met by a walk, or in the TLB."""
    machine = machine_of(1, is_split=lambda block: True)
    if set_logging(machine, machine.geo.hypervisor, 1) != machine.geo.pages:
        raise RunBroken("dirty logging did not write-protect every page", "report it")
    walked = Case(
        name="dirty-log write faults, TLB misses",
        machine=machine,
        work=workload(Pattern.SEQUENTIAL, machine.geo.pages, write_fraction=1.0),
        chunks=FAULTS // CHUNK,
        kind=PERMISSION,
        did=RELAXED,
        counter=C_PERMISSION + LAST_LEVEL,
        met=LAST_LEVEL,
        write=1,
        redone=FAULTS,
    )
    yield walked
    twice = _READ_THEN_WRITE._replace(pages=machine.geo.pages)
    yield replace(walked, name="dirty-log write faults, TLB hits", work=twice, chunks=2 * FAULTS // CHUNK, met=0)


def seconds(case: Case, version: Run, cpu: Cpu | None = None) -> float:
    """Processor time that ``version`` takes from the state the machine is in; RunBroken if it did something else.

    ``cpu`` is a fresh vCPU, to look at afterwards.
    """
    machine = case.machine
    fresh = cpu_for(machine) if cpu is None else cpu
    before = machine.counters.sum(axis=(0, 1))
    statuses = []
    taken_s = cpu_s(lambda: statuses.append(version(machine, fresh, case.work, VCPU, case.chunks)))
    counted = machine.counters.sum(axis=(0, 1)) - before
    faults = [C_FAULTS + case.kind, C_MAPPED_BLOCKS + case.did, case.counter]
    if statuses != [RAN] or (counted[faults] != FAULTS).any() or counted[C_REDONE] != case.redone:
        raise RunBroken(f"{case.name}: the vCPU did not fault {FAULTS:,} times in the way meant", "report it")
    if machine.tally[VIOLATIONS : VIOLATIONS + len(Kind)].any():
        raise RunBroken(f"{case.name}: there are violations", "report it")
    return taken_s


def _check_events(case: Case) -> None:
    """RunBroken unless each fault has its event, and histogram and counters tell of the times what the events tell."""
    machine = case.machine
    events, counters = machine.events[VCPU, :FAULTS], machine.counters[VCPU, 0]
    histogram = np.bincount([bucket(int(stall)) for stall in events[:, E_STALL_NS]], minlength=HISTOGRAM_BUCKETS)
    waited, held = counters[_COUNTER_TIMES]
    if (events[:, E_WHAT] != case.kind | case.met << 4 | case.write << 8).any():
        raise RunBroken(f"{case.name}: the events are not those of the faults meant", "report it")
    if not (
        np.array_equal(machine.stalls[VCPU, 0, case.kind], histogram)
        and waited == events[:, E_LOCK_WAIT_NS].sum()
        and 0 < held <= events[:, E_STALL_NS].sum() - waited
        and (np.diff(events[:, E_TIME_NS]) >= events[:-1, E_STALL_NS]).all()
    ):
        raise RunBroken(f"{case.name}: events, histogram and counters disagree about times", "report it")


def _end(case: Case, version: Run, start: Snapshot) -> tuple[Snapshot, Snapshot]:
    """Machine and vCPU, without times, after ``version`` ran on a fresh vCPU; the machine itself is put back."""
    machine = case.machine
    start.restore()
    cpu = cpu_for(machine)
    seconds(case, version, cpu)
    _check_events(case)
    machine.events[..., _EVENT_TIMES] = 0
    machine.counters[..., _COUNTER_TIMES] = 0
    machine.stalls[..., 0] = machine.stalls.sum(axis=-1)
    machine.stalls[..., 1:] = 0
    end = Snapshot(machine), Snapshot(cpu)
    start.restore()
    return end


def prove_same_work(case: Case, ours: Run, other: Run) -> None:
    """Raise RunBroken unless both versions leave the same behind, but for times, whose numbers and places agree."""
    start = Snapshot(case.machine)
    for end, other_end in zip(_end(case, ours, start), _end(case, other, start), strict=True):
        if different := end.differences(other_end):
            raise RunBroken(f"{case.name}: the two versions disagree about {', '.join(different)}", "report it")


def faults_per_s(case: Case, ours: Run, other: Run, rounds: int) -> tuple[Floats, Floats]:
    """Rates of both versions per second of processor time, (rounds,) each, always from the same state."""
    start = Snapshot(case.machine)

    def rate(version: Run) -> float:
        start.restore()
        return FAULTS / seconds(case, version)

    rate(ours)
    rate(other)
    rates = interleave(rounds, lambda: rate(ours), lambda: rate(other))
    start.restore()
    return rates


def contest(case: Case, ours: Run, other: Run, rounds: int, bound: float) -> Figure:
    """The rate of ``ours`` over that of ``other``; RunBroken if they do not do the same work."""
    prove_same_work(case, ours, other)
    rates = faults_per_s(case, ours, other, rounds)
    ours_shown, other_shown = (f"{np.median(rate) / 1e6:.2f} M/s" for rate in rates)
    return Figure.of_rounds(case.name, ours_shown, other_shown, rates[0] / rates[1], bound)


def figures(rounds: int) -> Iterator[Figure]:
    """Every case's rate over that of the C reference."""
    for case in (*write_faults(), populating()):
        yield contest(case, run, reference.run, rounds, TARGET)
