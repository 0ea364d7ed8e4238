"""Two versions of the vCPU loop on one workload: proved to do the same work, then timed in turns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.figure import Figure
from benchmarks.machine import VCPU, Snapshot, cpu_for
from benchmarks.rounds import Floats, cpu_s, interleave
from stress.errors import RunBroken
from stress.kernels.tlb import CHUNK, Cpu
from stress.kernels.vcpu import RAN
from stress.kernels.workload import Workload
from stress.shm.layout import Machine

#: A version of the loop, with the arguments of ``stress.kernels.vcpu.run``.
Run = Callable[[Machine, Cpu, Workload, int, int], int]

#: A round is so many turns, so short that what else the machine does hits both versions alike.
_TURNS = 5
_TURN_S = 0.01
_PROOF_CHUNKS = 20_000
_WARM_SHARE = 0.01  # of the accesses: what a TLB that starts empty may miss


@dataclass(frozen=True, slots=True)
class Case:
    """One workload on one machine."""

    name: str
    machine: Machine
    work: Workload
    counted: int  # C_HITS or C_WALKS: what nearly every access is to be, or C_ACCESSES where either will do

    def named(self, name: str) -> Case:
        """The same case under another name."""
        return replace(self, name=name)


def _ends(case: Case, run: Run) -> tuple[Snapshot, Snapshot]:
    """Machine and vCPU after ``run`` on a fresh vCPU; the machine itself is put back."""
    start = Snapshot(case.machine)
    cpu = cpu_for(case.machine)
    before = case.machine.counters.sum(axis=(0, 1))
    if run(case.machine, cpu, case.work, VCPU, _PROOF_CHUNKS) != RAN:
        raise RunBroken(f"{case.name}: the vCPU stopped")
    counted = (case.machine.counters.sum(axis=(0, 1)) - before)[case.counted]
    if counted < (1 - _WARM_SHARE) * _PROOF_CHUNKS * CHUNK:
        raise RunBroken(f"{case.name}: only {counted:,} of {_PROOF_CHUNKS * CHUNK:,} accesses are of that kind")
    ends = Snapshot(case.machine), Snapshot(cpu)
    start.restore()
    return ends


def prove_same_work(case: Case, ours: Run, other: Run) -> None:
    """RunBroken unless both leave every region of the machine and every array of the vCPU alike."""
    for end, other_end in zip(_ends(case, ours), _ends(case, other), strict=True):
        if different := end.differences(other_end):
            raise RunBroken(f"{case.name}: the two versions disagree about {', '.join(different)}")


def accesses_per_s(case: Case, ours: Run, other: Run, rounds: int) -> tuple[Floats, Floats]:
    """Rates of both versions per second of processor time, (turns,) each, on one vCPU that they continue."""
    cpu = cpu_for(case.machine)

    def seconds(run: Run, chunks: int) -> float:
        return cpu_s(lambda: run(case.machine, cpu, case.work, VCPU, chunks))

    seconds(ours, _PROOF_CHUNKS)
    chunks = max(1, round(_PROOF_CHUNKS * _TURN_S / seconds(ours, _PROOF_CHUNKS)))
    taken = interleave(rounds * _TURNS, lambda: seconds(ours, chunks), lambda: seconds(other, chunks))
    return chunks * CHUNK / taken[0], chunks * CHUNK / taken[1]


def contest(case: Case, ours: Run, other: Run, rounds: int, bound: float) -> Figure:
    """The rate of ``ours`` over that of ``other``; RunBroken if they do not do the same work."""
    prove_same_work(case, ours, other)
    rates = accesses_per_s(case, ours, other, rounds)
    ours_shown, other_shown = (f"{np.median(rate) / 1e6:.0f} M/s" for rate in rates)
    return Figure.of_rounds(case.name, ours_shown, other_shown, rates[0] / rates[1], bound)
