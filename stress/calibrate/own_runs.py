"""This machine's costs from short live runs: what its own selftest takes, and windows and lock holds besides."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from stress.calibrate.logs import Log, Stage
from stress.config import RunConfig, Scenario, from_sources
from stress.errors import RunBroken
from stress.orders import Order
from stress.platforms import Platform
from stress.predict import virtual as v
from stress.predict.passes import PASSES, PS_PER_NS, Played
from stress.predict.virtual import World
from stress.results.data import StageData
from stress.results.document import build

#: Where the fit begins: what a fault handler costs that is a function call, and a TLBI that is a membarrier.
START: Final = Platform(
    name="live",
    description="this machine, as its live runs go",
    source="live runs",
    fwb=True,
    dic=True,
    bbm_level=0,
    unmap_ns=2,
    tlbi_ns=1000,
    tlbi_ipa_ns=1000,
    tlbi_range_ns=1000,
    tlbi_cold_ns=8000,
    exit_ns=60,
    fault_ns=60,
    map_ns=40,
    rebuild_ns=300,
    rebuild_cold_ns=5000,
    split_ns=500,
    zero_bytes_per_s=8e11,
    hand_over_ns=100,
    hand_over_waiting_ns=20,
    share_ns=30,
    hit_ns=2.5,
    walk_ns=8,
    # One vCPU's misses show the first, two vCPUs' the second: else the fit could not move it.
    miss_ns=10,
    miss_shared_ns=7,
    start_ns=30_000,
)

#: Neither its window nor its lock hold has a tear-down in it, which would hide what a TLBI over 1 GiB takes, and what
#: comes before the first step.
_SOON_UNLOCKED: Final = "invalidate,tlbi,install,unlock,unmap"

#: What the costs are fitted to. As much memory in blocks of either size, for caches make a fault dear or cheap.
RUNS: Final = tuple(
    {"vcpus": vcpus, "orders": [order], "block_size": size, "memory": "1G"}
    for vcpus in (1, 2)
    for size, order in (("2M", "unmap-first"), ("2M", "block-first"), ("1G", "unmap-first"), ("1G", _SOON_UNLOCKED))
)
_DURATION: Final = "500ms"

#: All of them, so many times over: a core whose hyperthread others use for a second is slow in one round, not in all.
_ROUNDS: Final = 4

#: Fractions of a stage, and of a rebuild's median, that are the host's business: scheduling, and caches.
_OF_STAGE: Final = 0.3
_OF_REBUILD: Final = 0.1

#: What is measured of rebuilds besides the stages.
WINDOW: Final = "window"
HOLD: Final = "mmu_lock held"


def live_logs(note: Callable[[str], None]) -> Iterator[Log]:
    """Measure this machine: a log of each run. Raises `StressError` if one does not come to its end."""
    from stress.live import execute

    configs = [configuration(options) for options in RUNS]
    documents: list[list[Mapping[str, Any]]] = [[] for _ in configs]
    for number in range(1, _ROUNDS + 1):
        note(f"measuring {len(configs)} runs of {_DURATION}, round {number} of {_ROUNDS}")
        for config, those in zip(configs, documents, strict=True):
            data = execute(config)
            if data.exit_code:
                raise RunBroken("a live run did not come to its end", "see what stress run says of it")
            those.append(build(data))
    for config, options, those in zip(configs, RUNS, documents, strict=True):
        stages = tuple(
            Stage(name, 0, ns, 0, _OF_REBUILD if name in (WINDOW, HOLD) else _OF_STAGE)
            for name, ns in measured(those).items()
            if ns > 0
        )
        name = f"{config.orders[0]} -v {config.vcpus} {options['block_size']}"
        yield Log(name, config, stages, (), Path(), with_rebuilds)


def configuration(options: Mapping[str, Any]) -> RunConfig:
    """The selftest's stages with these options, here."""
    return from_sources(None, {"scenario": Scenario.PAGE_TABLE_TEST, "duration": _DURATION, **options})


def measured(documents: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Stages of live runs, each as the fastest pass of all took it, and medians of windows and lock holds, in ns.

    The medians are those of the run that had the least. Whatever else the machine does makes a time longer and none
    shorter.
    """
    times: dict[str, int] = {}
    for document in documents:
        order = document["orders"][0]
        rebuilds = {WINDOW: order["window_ns"]["p50"] or 0, HOLD: order["mmu_lock"]["rebuilder_hold_ns"]["p50"] or 0}
        stages = [(stage["name"], stage["duration_ns"]) for stage in document["stages"]]
        for name, ns in (*stages, *rebuilds.items()):
            times[name] = min(ns, times.get(name, ns))
    return times


def with_rebuilds(config: RunConfig, order: Order, going_on: Callable[[World], bool]) -> Played:
    """A pass of the selftest in virtual time, with the medians of its rebuilds as stages of their own."""
    played = PASSES[config.scenario](config, order, going_on)
    record = played.world.record[: int(played.world.s.control[v.REBUILT])]
    for name, times in (
        (WINDOW, np.where(record[:, v.R_INVALID] < 0, 0, record[:, v.R_VALID] - record[:, v.R_INVALID])),
        (HOLD, record[:, v.R_UNLOCKED] - record[:, v.R_LOCKED]),
    ):
        ns = int(np.median(times)) // PS_PER_NS if len(record) else 0
        played.stages.append(StageData(name, 0, 0, ns, played.world.s.counters[0, 0], 0))
    return played
