"""Whether an injected bug can act in a run at all: one that cannot would be called correct, and tell nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Final

from stress.arch.tlbi_range import covered
from stress.bugs import Need
from stress.config.model import RunConfig
from stress.config.values import STAGED, Cmo, Rebuilder, Scenario


def _rebuilds(config: RunConfig) -> bool:
    if config.scenario is Scenario.THP:  # leaves tables only to orders that frames may move under
        looks_again = any(config.looks_again(order) for order in config.parsed_orders)
        return looks_again and config.rebuilder is Rebuilder.VCPU and config.write_fraction > 0
    return config.has_blocks


def _looks(config: RunConfig) -> bool:
    return any(config.looks_again(order) for order in config.parsed_orders)


def _writes(config: RunConfig) -> bool:
    return config.write_fraction > 0 or config.scenario is Scenario.PAGE_TABLE_TEST


def _logs(config: RunConfig) -> bool:
    return config.scenario in (Scenario.MIGRATION, *STAGED)


def _writes_after_logging(config: RunConfig) -> bool:
    if config.scenario is Scenario.REBUILD:  # a vCPU rebuilds what its write meets protected
        return _writes(config) and config.rebuilder is Rebuilder.VCPU
    return _writes(config) and config.has_blocks and config.scenario in (Scenario.MIGRATION, Scenario.DIRTY_LOG_PERF)


def _unmaps(config: RunConfig) -> bool:
    # A pass of a staged scenario begins with nothing mapped: the second one has something to unmap.
    return config.scenario is Scenario.THP or (config.scenario in STAGED and config.duration_ns is not None)


def _uneven(config: RunConfig) -> bool:
    ends = [config.pages * slot // config.memslots for slot in range(config.memslots + 1)]
    return any(covered(end - first) != end - first for first, end in pairwise(ends))


_MET: Final[Mapping[Need, Callable[[RunConfig], bool]]] = {
    Need.REBUILD: _rebuilds,
    Need.PROTECTED: lambda config: _logs(config) and _writes(config),
    Need.WRITE_AFTER_LOGGING: _writes_after_logging,
    Need.HARVEST: lambda config: config.scenario in (Scenario.MIGRATION, Scenario.DIRTY_LOG_PERF) and _writes(config),
    Need.UNMAP: _unmaps,
    Need.LOOKS: _looks,
    Need.MOVES: lambda config: config.scenario is Scenario.THP,
    Need.CLEAN: lambda config: not config.fwb and config.cmo is Cmo.PER_INSTALL,
    Need.BATCH: lambda config: config.batch > 1 and config.blocks > 1,
    Need.UNEVEN: _uneven,
    Need.FAULTS_REBUILD: lambda config: config.rebuilder is Rebuilder.VCPU,
    Need.EVERY_FAULT: lambda config: False,
}
_REMEDIES: Final[Mapping[Need, str]] = {
    Need.REBUILD: "use another scenario, and memory that can have blocks",
    Need.PROTECTED: "use a scenario that logs dirty pages, with writes",
    Need.WRITE_AFTER_LOGGING: "use scenario migration, with writes",
    Need.HARVEST: "use scenario migration or dirty-log-perf, with writes",
    Need.UNMAP: "use scenario thp",
    Need.LOOKS: "use an order with steps before lock, or one that tears down in the window with --yield-every",
    Need.MOVES: "use scenario thp",
    Need.CLEAN: "use --no-fwb and --cmo per-install",
    Need.BATCH: "use --batch 2 or more, and as many blocks",
    Need.UNEVEN: "use --blocks 5 of 2M with pages of 4K",
    Need.FAULTS_REBUILD: "use --rebuilder vcpu",
    Need.EVERY_FAULT: "use stress verify --inject no-local-tlbi",
}


def cannot_act(config: RunConfig) -> str:
    """Why the bug injected can never act in this run, with the remedy; "" if it can, or there is none."""
    bug = config.bug
    if bug is None:
        return ""
    if not any(map(bug.affects, config.asked_orders)):
        return f"{bug.name} changes nothing in {' or '.join(config.orders)}; use an order with the step it spoils"
    for need in bug.needs:
        if not _MET[need](config):
            return f"{bug.name} cannot act in scenario {config.scenario} as configured: {need}; {_REMEDIES[need]}"
    return ""
