"""The costs of the oracle and of the event log.

On TLB hits nothing is logged, so there the price is the oracle's alone. The log's is measured where it is highest, on
a vCPU whose every access faults: the handler logs what belongs to an order, and else does the same without.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from benchmarks.fault import FAULTS, populating, seconds
from benchmarks.figure import Figure
from benchmarks.loop import contest
from benchmarks.machine import ORDER_0, VCPU, Snapshot, machine_of
from benchmarks.rounds import interleave
from benchmarks.vcpu import hit_cases
from stress.errors import RunBroken
from stress.kernels.vcpu import build_run, run
from stress.shm.accounts import EVENT_HEAD, PHASE

TARGET = 0.85

run_unchecked = build_run(False)


def _log_figure(rounds: int) -> Figure:
    """Faults/s of a vCPU that does nothing else, logged, over those of one whose faults belong to no order."""
    case = populating()
    machine = case.machine
    start = Snapshot(machine)
    no_order = machine.counters.shape[1] - 1

    def rate(phase: int, to_log: int) -> float:
        start.restore()
        machine.tally[PHASE] = phase
        taken_s = seconds(case, run)
        logged = int(machine.event_index[VCPU, EVENT_HEAD])
        if logged != to_log:
            raise RunBroken(f"event log: {logged:,} of {to_log:,} faults were logged", "report it")
        return FAULTS / taken_s

    rate(ORDER_0, FAULTS)
    ours, other = interleave(rounds, lambda: rate(ORDER_0, FAULTS), lambda: rate(no_order, 0))
    shown, other_shown = (f"{np.median(rates) / 1e6:.2f} M faults/s" for rates in (ours, other))
    return Figure.of_rounds("event log, every access faults", shown, other_shown, ours / other, TARGET)


def figures(rounds: int) -> Iterator[Figure]:
    """The loop's rate over that of the loop without the oracle, on TLB hits; and the price of the log."""
    blocks, pages = machine_of(4), machine_of(4, is_split=lambda block: True)
    for case in hit_cases(blocks, pages):
        yield contest(case.named(f"oracle, {case.name}"), run, run_unchecked, rounds, TARGET)
    yield _log_figure(rounds)
