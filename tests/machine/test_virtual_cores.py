"""Fewer cores than vCPUs in virtual time, against closed forms: sums, nobody who waits for a lock, equal shares."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from predicted import STEP_COSTS, counted, going_on, platform_file

from stress.config import from_sources
from stress.errors import UsageError
from stress.orders import Order, parse_order
from stress.predict import virtual as v
from stress.predict.cores import QUANTUM
from stress.predict.cycles import CYCLES
from stress.predict.passes import PASSES, Played
from stress.results.data import COUNTERS

pytestmark = pytest.mark.timeout(900)  # the event loop may have to be compiled first

#: An access takes so long that quanta end in the middle of everything.
COSTS = STEP_COSTS | {"hit_ns": 20_000, "walk_ns": 20_000, "miss_ns": 20_000}
STAGES = ("populate", "dirty", "recover")


def played(path: Path, cores: int, order: Order | None = None, /, **options: Any) -> Played:
    """``dirty-log-perf`` over 2 MiB of each vCPU, unless the options say otherwise."""
    given: dict[str, Any] = {
        "scenario": "dirty-log-perf",
        "block_size": "2M",
        "memory": "2M",
        "iterations": 1,
        "orders": ["block-first"],
    }
    if options.get("scenario", "dirty-log-perf") != "dirty-log-perf":
        given = {"orders": ["block-first"]}
    platform = Path(platform_file(path, **COSTS))
    platform.write_text(platform.read_text() + (f"\ncores = {cores}\n" if cores else ""))
    config = from_sources(None, {**given, "platform": str(platform), **options})
    play = {**PASSES, **CYCLES}[config.scenario]
    return play(config, order or config.parsed_orders[0], going_on)


def times(run: Played) -> dict[str, int]:
    return {stage.name: stage.duration_ns for stage in run.stages if stage.name in STAGES}


@pytest.mark.thorough
@pytest.mark.parametrize("locking", ["exclusive", "shared"])
@pytest.mark.parametrize(("vcpus", "cores"), [(3, 1), (4, 2)])
def test_vcpus_take_turns(tmp_path: Path, vcpus: int, cores: int, locking: str) -> None:
    """On one core they take the sum of what each takes alone; on two, half as long, but for the last quantum."""
    options: dict[str, Any] = {"locking": locking, "fwb": True}
    alone, together = (
        times(played(tmp_path, 1, vcpus=1, **options)),
        times(played(tmp_path, cores, vcpus=vcpus, **options)),
    )
    for name in STAGES:
        assert alone[name] * 1000 > 3 * QUANTUM
        shares = alone[name] * vcpus / cores
        assert together[name] == pytest.approx(shares, abs=0 if cores == 1 else 2 * QUANTUM / 1000)


def test_on_one_core_nobody_waits_for_a_lock(tmp_path: Path) -> None:
    """Who holds mmu_lock is not preempted."""
    selftest: dict[str, Any] = {"scenario": "kvm-page-table-test", "block_size": "2M", "memory": "4M", "vcpus": 3}
    one, two = ([counted(each) for each in played(tmp_path, cores, **selftest).stages] for cores in (1, 2))
    assert sum(stage["lock_wait_ns"] for stage in one) == 0 < sum(stage["lock_wait_ns"] for stage in two)
    assert [stage["accesses"] for stage in one] == [stage["accesses"] for stage in two]


@pytest.mark.thorough
def test_cores_enough_for_all_change_nothing(tmp_path: Path) -> None:
    one, *others = (
        played(tmp_path, platform, vcpus=2, cores=cores).stages for platform, cores in ((0, None), (2, None), (0, 2))
    )
    for other in others:
        assert [stage.duration_ns for stage in one] == [stage.duration_ns for stage in other]


@pytest.mark.thorough
def test_the_option_overrules_the_platform(tmp_path: Path) -> None:
    one, other, two = (
        times(played(tmp_path, platform, vcpus=2, cores=cores)) for platform, cores in ((1, None), (2, 1), (1, 2))
    )
    assert one == other != two


@pytest.mark.parametrize("locking", ["exclusive", "shared"])
@pytest.mark.parametrize("pattern", ["sequential", "uniform"])
def test_who_roams_has_a_core_for_its_share_of_time(tmp_path: Path, pattern: str, locking: str) -> None:
    """Accesses, faults and the hypervisor's tasks are all that a core is for, and it is never idle."""
    options: dict[str, Any] = {
        "scenario": "rebuild",
        "block_size": "2M",
        "blocks": 4,
        "dwell": "30ms",
        "rebuilds": 3,
        "fwb": True,
    }
    run = played(tmp_path, 1, vcpus=3, pattern=pattern, locking=locking, **options)
    found = run.world.s.counters.sum(axis=1)[:3, COUNTERS.index("accesses")]
    assert found.sum() * 20_000_000 == pytest.approx(run.world.s.control[v.NOW], rel=0.05)
    assert found.max() < 1.5 * found.min(), "nobody is left out"
    again = played(tmp_path, 1, vcpus=3, pattern=pattern, locking=locking, **options)
    assert np.array_equal(run.world.s.counters, again.world.s.counters)


@pytest.mark.parametrize("scenario", ["migration", "thp"])
def test_other_cycles_come_to_their_end_on_one_core(tmp_path: Path, scenario: str) -> None:
    sizes: dict[str, Any] = {} if scenario == "thp" else {"block_size": "2M"}
    run = played(tmp_path, 1, vcpus=2, scenario=scenario, blocks=2, dwell="5ms", rebuilds=2, locking="shared", **sizes)
    assert len(run.cycles) == 2


def test_an_order_that_leaves_the_entry_invalid_is_refused_there_too(tmp_path: Path) -> None:
    """All that is left are vCPUs that fault in turn, for ever."""
    order = parse_order("tlbi,install,unmap,invalidate")
    selftest: dict[str, Any] = {
        "scenario": "kvm-page-table-test",
        "block_size": "2M",
        "memory": "4M",
        "vcpus": 3,
        "locking": "shared",
    }
    with pytest.raises(UsageError, match="leaves an entry invalid"):
        played(tmp_path, 1, order, **selftest)
