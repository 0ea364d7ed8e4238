"""From a configuration to what a run of it would have measured: every order in virtual time, then the same record."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from stress import host, interrupt
from stress.config import Pattern, RunConfig, Scenario
from stress.config.owed_rebuilds import never_rebuilt
from stress.errors import ExitCode, UsageError
from stress.executors import PREDICT
from stress.platforms import Origin
from stress.predict import virtual as v
from stress.predict.cycles import CYCLES
from stress.predict.passes import PASSES, PS_PER_NS, TIMES, Played
from stress.results.data import (
    CYCLE_ROW,
    NOT_MEASURED,
    REBUILD_ROW,
    STALL_ROW,
    OrderData,
    RunData,
)
from stress.results.schema import Tables
from stress.results.warnings import RunWarning
from stress.shm.edges import lower_edges

#: What plays each scenario that there is.
PLAYERS: Final = {**CYCLES, **PASSES}

#: A function that is called with the order's name, the virtual time in ns, and the events played so far.
Progress = Callable[[str, int, int], None]


def check(config: RunConfig) -> None:
    """Raise `UsageError` if the configuration cannot be predicted, or has nothing to predict."""
    platform = config.platform_profile
    if not platform.figures:
        raise UsageError(
            f"platform {platform.name} models no costs, so everything would take no time",
            "name one that does (--platform; stress platforms)",
        )
    if config.scenario in CYCLES and not (platform.hit_ns > 0 and platform.walk_ns > 0):
        raise UsageError(
            f"platform {platform.name} does not say what guest accesses cost, of which vCPUs make many meanwhile",
            "give it hit-ns and walk-ns, or predict another scenario",
        )
    wrong = {
        "a write fraction between 0 and 1": (
            config.scenario is Scenario.DIRTY_LOG_PERF and config.write_fraction not in (0, 1)
        ),
        f"pattern {config.pattern}": (config.scenario in PASSES and config.pattern is not Pattern.SEQUENTIAL),
        "several memslots": config.memslots > 1,
        "an injected bug": config.inject is not None,
    }
    unknown = [what for what, there in wrong.items() if there]
    if unknown:
        raise UsageError(
            f"predict cannot play {' and '.join(unknown)}",
            "leave it out, or let stress run play it",
        )
    for order in config.parsed_orders:
        if order.bbm_level > config.bbm_level:
            raise UsageError(
                f"{order.name} needs FEAT_BBM level {order.bbm_level}, and the platform has {config.bbm_level}",
                "allow it with --bbm-level, or name a platform that has it",
            )


def predict(config: RunConfig, progress: Progress | None = None) -> RunData:
    """What a run of ``config`` on its platform would measure. Ctrl-C leaves the prediction incomplete.

    Raises `UsageError` for what cannot be predicted.
    """
    check(config)
    started_at, started = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic_ns()
    orders, stages, events, memory, elapsed, interrupted = [], [], 0, 0, 0, False
    with interrupt.caught() as asked:
        for order in config.parsed_orders:
            before, name = events, order.name

            def going_on(world: v.World, before: int = before, name: str = name) -> bool:
                if progress is not None:
                    control = world.s.control
                    progress(name, int(control[v.NOW]) // PS_PER_NS, before + int(control[v.PLAYED]))
                return not asked.is_set()

            played = PLAYERS[config.scenario](config, order, going_on)
            events += int(played.world.s.control[v.PLAYED])
            elapsed += int(played.world.s.control[v.NOW]) // PS_PER_NS
            memory = max(memory, sum(part.nbytes for part in played.world))
            for stage in played.stages:
                stage.order = order.name if len(config.orders) > 1 else ""
            stages += played.stages
            orders.append(_order(played, config))
            if played.interrupted:
                interrupted = True
                break
    # One order alone may rebuild nothing; several can then not be compared.
    compares = len(config.orders) > 1 and not interrupted
    untested = tuple(never_rebuilt(config, (len(each.rows) for each in orders))) if compares else ()
    return RunData(
        executor=PREDICT,
        complete=not interrupted,
        exit_code=int(ExitCode.INTERRUPTED if interrupted else ExitCode.BROKEN if untested else ExitCode.OK),
        untested=untested,
        seed=config.seed,
        config=config.to_json(),
        host=host.describe(),
        warnings=_warnings(config),
        scenario=str(config.scenario),
        orders=orders,
        stages=stages,
        passes=int(bool(stages)),
        violations=[],
        started_at=started_at,
        elapsed_ns=elapsed,
        start_up_ns=0,
        memory={"segment_bytes": memory, "unique_bytes": {}},
        extra={"events_played": events, "computed_ns": time.monotonic_ns() - started},
    )


def _warnings(config: RunConfig) -> list[tuple[str, str]]:
    """The warnings of a prediction: costs that nobody measured."""
    platform = config.platform_profile
    guessed = [each.key for each in platform.figures if each.origin not in (Origin.PUBLISHED, Origin.FITTED)]
    return [(RunWarning.GUESSED_COSTS, f"{platform.name}: {', '.join(guessed)}")] if guessed else []


def _order(played: Played, config: RunConfig) -> OrderData:
    """What was measured under an order."""
    s, vcpus = played.world.s, config.vcpus
    control, sums = s.control, s.sums
    rows = _rebuilds(played, config)
    counters = s.counters[:vcpus].copy()
    counters[:, :, TIMES] //= PS_PER_NS
    faults = _faults(played)
    reached = np.flatnonzero(s.stalls.sum(axis=0))
    edges = lower_edges()
    total_ns = int(control[v.NOW]) // PS_PER_NS
    inside_ns = int(sums[v.S_INSIDE_PS]) // PS_PER_NS
    cycles = np.zeros(len(played.cycles), CYCLE_ROW)
    cycles["number"] = np.arange(1, cycles.size + 1)
    for row, (time_ps, accesses, recovery_ps, recovery_faults) in zip(cycles, played.cycles, strict=True):
        row["time_ns"], row["accesses"] = time_ps // PS_PER_NS, accesses
        row["recovery_ns"], row["recovery_faults"] = recovery_ps // PS_PER_NS, recovery_faults
    return OrderData(
        order=played.order,
        cycle_count=cycles.size,
        rebuilds=int(sums[v.S_REBUILDS]),
        restarts=int(sums[v.S_RESTARTS]),
        yields=int(sums[v.S_YIELDS]),
        lost_races=int(sums[v.S_VOID] - sums[v.S_RESTARTS]),
        rebuilds_hit=int((rows["window_faults"] > 0).sum()),
        rows=rows,
        cycles=cycles,
        stalls=faults,
        stall_buckets_ns=edges,
        stall_counts=s.stalls.copy(),
        stall_max_ns=max(int(edges[reached[-1]]) if reached.size else 0, int(faults["stall_ns"].max(initial=0))),
        counters=counters,
        outside_ns=total_ns - inside_ns,
        inside_ns=inside_ns,
        tlbis=int(sums[v.S_TLBIS]),
        cleaned_bytes=int(sums[v.S_CLEANED]),
        tables=Tables(allocated=int(sums[v.S_ALLOCATED]), freed=int(sums[v.S_FREED]), peak=int(sums[v.S_ALLOCATED])),
        events_drained=int(s.stalls.sum()),
        events_dropped=0,
    )


def _ns(ps: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return ps // PS_PER_NS


def _rebuilds(played: Played, config: RunConfig) -> npt.NDArray[Any]:
    """REBUILD_ROW of every rebuild."""
    record = played.world.record[: int(played.world.s.control[v.REBUILT])]
    order = played.order
    rows = np.zeros(len(record), REBUILD_ROW)
    rows["number"] = np.arange(1, len(record) + 1)
    rows["cycle"], rows["block"] = record[:, v.R_CYCLE], record[:, v.R_BLOCK]
    rows["start_ns"] = _ns(record[:, v.R_START])
    invalid, valid = record[:, v.R_INVALID], record[:, v.R_VALID]
    rows["window_ns"] = np.where(invalid < 0, 0, np.where(valid < 0, NOT_MEASURED, _ns(valid - invalid)))
    rows["rebuild_ns"] = _ns(record[:, v.R_END] - record[:, v.R_START])
    rows["lock_wait_ns"] = _ns(np.maximum(record[:, v.R_LOCKED] - record[:, v.R_REQUESTED], 0))
    rows["lock_hold_ns"] = _ns(record[:, v.R_UNLOCKED] - record[:, v.R_LOCKED] - record[:, v.R_YIELDED])
    first = v.R_STEPS + order.first
    rows["step_ns"][:, : len(order.steps)] = _ns(record[:, first : first + len(order.steps)])
    rows["mapped_share"] = record[:, v.R_MAPPED] / (config.block_size // config.granule)
    rows["window_faults"] = record[:, v.R_FAULTS]
    return rows


def _faults(played: Played) -> npt.NDArray[Any]:
    """STALL_ROW of the faults kept one by one."""
    kept = played.world.faults[: int(played.world.s.control[v.KEPT])]
    rows = np.zeros(len(kept), STALL_ROW)
    rows["cycle"], rows["fault_class"] = kept[:, v.F_CYCLE], kept[:, v.F_CLASS]
    rows["stall_ns"], rows["lock_wait_ns"] = _ns(kept[:, v.F_STALL]), _ns(kept[:, v.F_WAIT])
    return rows
