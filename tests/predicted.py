"""Worlds in virtual time for tests: platforms of round costs, vCPUs with programs of their own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from stress.config import RunConfig, from_sources
from stress.orders import UNMAP_FIRST, Order
from stress.platforms import COSTS
from stress.predict import virtual as v
from stress.predict.passes import PASSES, PS_PER_NS, TIMES, Played, new_world, play_stage
from stress.predict.virtual import World
from stress.programs import Program
from stress.results.data import COUNTERS, StageData

#: What steps and faults cost, such that no sum of some equals another.
STEP_COSTS: dict[str, float] = {
    "clean_bytes_per_s": 4096e6,  # a page takes a microsecond
    "unmap_ns": 3,
    "free_ns": 70,
    "tlbi_ns": 1_100,
    "exit_ns": 2_000,
    "fault_ns": 310,
    "map_ns": 17,
}

#: And all else that a selftest does.
SELFTEST_COSTS = STEP_COSTS | {
    "tlbi_ipa_ns": 1_300,
    "split_ns": 900,
    "zero_bytes_per_s": 8192e6,
    "hand_over_ns": 50,
    "hand_over_waiting_ns": 20,
    "miss_ns": 19,
    "start_ns": 5_000,
    "rebuild_ns": 700,
}

PAGES = 512  # of a block of 2 MiB


def going_on(world: World) -> bool:
    return True


def platform_file(path: Path, **costs: float) -> str:
    """A platform without FWB on which only these things cost anything (``exit_ns=2000``)."""
    features = ['description = "made up"', 'source = "made up"', "fwb = false", "dic = true", "bbm-level = 2"]
    assert set(costs) <= set(COSTS)
    file = path / "made-up.toml"
    file.write_text("\n".join([*features, *(f"{name.replace('_', '-')} = {cost}" for name, cost in costs.items())]))
    return str(file)


def configuration(platform: str, **options: Any) -> RunConfig:
    """``kvm-page-table-test`` over four blocks of 2 MiB, unless the options say otherwise."""
    given = {"scenario": "kvm-page-table-test", "block_size": "2M", "memory": "8M", "orders": ["unmap-first"]}
    if "backing" in options:
        del given["block_size"]
    return from_sources(None, {**given, "platform": platform, **options})


def played(config: RunConfig, order: Order | None = None) -> Played:
    """A pass of the selftest."""
    return PASSES[config.scenario](config, order or config.parsed_orders[0], going_on)


def times(run: Played) -> list[int]:
    """What each stage of a pass took, in ns."""
    return [stage.duration_ns for stage in run.stages]


def counted(stage: StageData) -> dict[str, int]:
    """A stage's counters by name."""
    return dict(zip(COUNTERS, map(int, stage.counters), strict=True))


def one_stage(
    config: RunConfig, program: Callable[[int], Program], prepare: Callable[[World], None] = lambda world: None
) -> tuple[World, StageData]:
    """A stage of vCPUs with these programs, in a world that was prepared."""
    world = new_world(config, UNMAP_FIRST)
    prepare(world)
    took = play_stage(world, program, going_on)
    counters = world.s.counters.sum(axis=(0, 1))
    counters[TIMES] //= PS_PER_NS
    return world, StageData("populate", 0, 0, took // PS_PER_NS, counters, int(world.s.sums[v.S_REBUILDS]))


def logged_tables(world: World) -> None:
    """Every block is a table without pages, and faults map pages."""
    world.s.control[v.LOGGING] = 1
    world.block[:, v.B_KIND] = v.TABLE


def logged_pages(world: World) -> None:
    """Every page is mapped and write-protected: a write gets permission."""
    logged_tables(world)
    world.page[:] = v.READ_ONLY | v.HAS_HOST


def logged_blocks(world: World) -> None:
    """Every block is mapped and write-protected: a write splits it."""
    world.s.control[v.LOGGING] = 1
    world.block[:, v.B_KIND] = v.LEAF
    world.block[:, v.B_HOST] = 0


def all_mapped(world: World) -> None:
    """Every block is mapped, and may be written."""
    world.block[:, v.B_KIND] = v.LEAF
    world.block[:, v.B_HOST], world.block[:, v.B_WRITABLE] = 0, 1
