"""The evidence that each scenario owes: without it "no violation" says nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from stress.config import RunConfig, Scenario
from stress.config.owed_rebuilds import never_rebuilt
from stress.shm import accounts
from stress.shm.accounts import LIFE_CYCLE
from stress.shm.layout import Machine


@dataclass(frozen=True, slots=True)
class Owed:
    """The evidence that a scenario owes besides rebuilds, and an access of every vCPU.

    ``overlap``: every vCPU ran into a change of the table. ``counts``: names of LIFE_CYCLE, each with what is missing
    where nothing was counted. ``maps``: a fault mapped memory.
    """

    overlap: bool = True
    maps: bool = False
    counts: Mapping[str, str] = field(default_factory=dict)


_HARVEST: Final = {"harvests": "the dirty bitmap was never harvested"}

#: In staged scenarios vCPUs run programs to their end, and need not run into each other's changes.
OWED: Final[Mapping[Scenario, Owed]] = {
    Scenario.REBUILD: Owed(),
    Scenario.MIGRATION: Owed(counts=_HARVEST),
    Scenario.THP: Owed(maps=True, counts={"frames_moved": "no frame moved"}),
    Scenario.PAGE_TABLE_TEST: Owed(overlap=False, maps=True),
    Scenario.DIRTY_LOG_PERF: Owed(overlap=False, maps=True, counts=_HARVEST),
}


def acted(machine: Machine, config: RunConfig) -> int:
    """How often the injected bug acted: its flag changed what was done, or a rebuild took steps that it changed."""
    bug = config.bug
    if bug is None:
        return 0
    rewritten = [bug.rewrite(order) is not order for order in config.asked_orders]
    return int(machine.tally[accounts.ACTED] + machine.totals[rewritten, accounts.T_REBUILDS].sum())


def missing(machine: Machine, config: RunConfig) -> list[str]:
    """The evidence that a run which ended in order owes and lacks, in words; empty if its verdict stands."""
    return list(_missing(machine, config, OWED[config.scenario]))


def _missing(machine: Machine, config: RunConfig, owed: Owed) -> Iterator[str]:
    cut = ": the platform's costs outlast the run, raise --duration" if machine.tally[accounts.COSTS_CUT] else ""
    yield from never_rebuilt(config, machine.totals[:, accounts.T_REBUILDS], cut)
    vcpus = machine.counters.sum(axis=1)
    for vcpu, counters in enumerate(vcpus):
        if not counters[accounts.C_ACCESSES]:
            yield f"vCPU {vcpu} made no access"
        elif owed.overlap and not counters[accounts.C_REDONE] and not _inside(machine, vcpu):
            yield f"vCPU {vcpu} never ran into a change of the table"
    if owed.maps and not vcpus[:, [accounts.C_MAPPED_BLOCKS, accounts.C_MAPPED_PAGES]].any():
        yield "no fault mapped memory"
    if config.bug and not acted(machine, config):
        yield f"the bug was never exercised: nothing reached the place of {config.bug.name}"
    for name, what in owed.counts.items():
        if not machine.life[LIFE_CYCLE.index(name)]:
            yield what


def _inside(machine: Machine, vcpu: int) -> bool:
    """Whether a vCPU made an access, or took a fault, while a rebuild was under way."""
    inside = machine.counters[vcpu, 1:-1:2]
    return bool(
        inside[:, accounts.C_ACCESSES].any()
        or inside[:, accounts.C_FAULTS : accounts.C_FAULTS + accounts.FAULT_KINDS].any()
    )
