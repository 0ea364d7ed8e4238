"""What the oracle and the event log cost.

On TLB hits nothing is logged, so there the price is the oracle's alone. The log's is measured where it is highest, on
a vCPU whose every access faults: the handler logs what belongs to an order, and else does the same without.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from benchmarks.figure import Figure
from benchmarks.loop import contest
from benchmarks.machine import VCPU, Snapshot, cpu_for, machine_of, workload
from benchmarks.rounds import cpu_s, interleave
from benchmarks.vcpu import hit_cases
from stress.arch.geometry import LAST_LEVEL
from stress.errors import RunBroken
from stress.kernels.fault import POPULATION
from stress.kernels.pattern import Pattern
from stress.kernels.tlb import CHUNK
from stress.kernels.vcpu import build_run, run
from stress.shm.words import (
    C_FAULTS,
    EVENT_HEAD,
    EVENT_RING,
    PHASE,
)

TARGET = 0.85
_CHUNKS = EVENT_RING // CHUNK  # as many faults as the ring holds

run_unchecked = build_run(False)


def _log_figure(rounds: int) -> Figure:
    """Faults/s of a vCPU that does nothing else, logged, over those of one whose faults belong to no order."""
    machine = machine_of(1, is_split=lambda block: True)
    # Unmap every page by hand: each access then meets an empty entry of a level 3 table.
    last = machine.page_level == LAST_LEVEL
    machine.tables.reshape(len(last), -1)[last] = 0
    machine.page_count[last] = 1
    machine.counters[:] = 0
    start = Snapshot(machine)
    work = workload(Pattern.SEQUENTIAL, machine.geo.frames)
    no_order = machine.counters.shape[1] - 1
    faults = _CHUNKS * CHUNK

    def rate(slot: int) -> float:
        start.restore()
        machine.control[PHASE] = 1 << 8 | slot
        cpu = cpu_for(machine)
        taken_s = cpu_s(lambda: run(machine, cpu, work, VCPU, _CHUNKS))
        logged = int(machine.event_index[VCPU, EVENT_HEAD])
        taken = int(machine.counters[VCPU, slot, C_FAULTS + POPULATION])
        if taken != faults or logged != (0 if slot == no_order else faults):
            raise RunBroken(f"event log: of {faults:,} accesses {taken:,} faulted, {logged:,} were logged")
        return faults / taken_s

    rate(0)
    ours, other = interleave(rounds, lambda: rate(0), lambda: rate(no_order))
    shown, other_shown = (f"{np.median(rates) / 1e6:.2f} M faults/s" for rates in (ours, other))
    return Figure.of_rounds("event log, every access faults", shown, other_shown, ours / other, TARGET)


def figures(rounds: int) -> Iterator[Figure]:
    """The loop's rate over that of the loop without the oracle, on TLB hits; and the price of the log."""
    blocks, pages = machine_of(4), machine_of(4, is_split=lambda block: True)
    for case in hit_cases(blocks, pages):
        yield contest(case.named(f"oracle, {case.name}"), run, run_unchecked, rounds, TARGET)
    yield _log_figure(rounds)
