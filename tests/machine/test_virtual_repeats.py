"""What repeats itself in virtual time is added at once, and is what would have been played."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from predicted import PAGES, SELFTEST_COSTS, configuration, counted, platform_file, played, times

from stress.orders import NAMED_ORDERS, Order
from stress.predict import passes
from stress.predict import virtual as v
from stress.predict.passes import new_world
from stress.predict.virtual import World
from stress.shm.mode import JIT_DISABLED

pytestmark = pytest.mark.timeout(900)  # the event loop may have to be compiled first


def _random_costs(draw: random.Random) -> dict[str, float]:
    return {
        "clean_bytes_per_s": draw.choice([1e9, 8e9, 1e12]),
        "unmap_ns": draw.choice([0, 1, 50]),
        "tlbi_ns": draw.choice([0, 777, 1000]),
        "tlbi_waiting_ns": draw.choice([0, 10]),
        "exit_ns": draw.choice([0, 100, 333, 2000, 5000]),
        "fault_ns": draw.choice([1, 100, 300, 717]),
        "map_ns": draw.choice([0, 13, 100]),
        "split_ns": draw.choice([0, 1000]),
        "zero_bytes_per_s": draw.choice([1e9, 2e10]),
        "hand_over_ns": draw.choice([0, 300]),
        "hand_over_waiting_ns": draw.choice([0, 180]),
        "miss_ns": draw.choice([0, 1, 20, 90.5]),
        "miss_shared_ns": draw.choice([0, 0, 0.7, 12]),
    }


def _same(one: World, other: World) -> bool:
    counts = ("sums", "counters", "stalls")
    same = all(np.array_equal(getattr(one.s, name), getattr(other.s, name)) for name in counts)
    return same and np.array_equal(one.page, other.page) and np.array_equal(one.record, other.record)


@pytest.mark.thorough
@pytest.mark.parametrize("seed", range(3 if JIT_DISABLED else 40))
def test_what_is_added_at_once_is_what_would_have_been_played(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    draw = random.Random(seed)
    config = configuration(
        platform_file(tmp_path, **_random_costs(draw)),
        scenario=draw.choice(["kvm-page-table-test", "dirty-log-perf"]),
        backing=draw.choice(["hugetlb-2m", "hugetlb-2m", "anonymous"]),
        memory=draw.choice(["2M", "2100K"] if JIT_DISABLED else ["2M", "4M", "5000K"]),
        vcpus=draw.choice([1, 2, 3] if JIT_DISABLED else [1, 2, 3, 4, 7]),
        locking=draw.choice(["exclusive", "shared"]),
        cmo=draw.choice(["per-install", "per-fault"]),
        fwb=draw.choice([True, False]),
    )
    order = draw.choice(list(NAMED_ORDERS.values()))
    quick = played(config, order)

    def played_out(config: Any, order: Order) -> World:
        world = new_world(config, order)
        world.s.control[v.REPEATABLE] = 0
        return world

    monkeypatch.setattr(passes, "new_world", played_out)
    whole = played(config, order)
    assert times(quick) == times(whole)
    assert _same(quick.world, whole.world)
    assert quick.world.s.control[v.PLAYED] <= whole.world.s.control[v.PLAYED]


@pytest.mark.parametrize("locking", ["exclusive", "shared"])
def test_vcpus_on_memory_of_their_own_are_played_in_few_events(tmp_path: Path, locking: str) -> None:
    config = configuration(
        platform_file(tmp_path, **SELFTEST_COSTS),
        scenario="dirty-log-perf",
        backing="thp",
        vcpus=3,
        memory="2M",
        locking=locking,
    )
    run = played(config)
    assert counted(run.stages[2])["accesses"] == counted(run.stages[5])["permission"] == 3 * PAGES
    assert run.world.s.control[v.PLAYED] < 1_500


@pytest.mark.thorough
def test_equal_faults_are_not_played_one_by_one(tmp_path: Path) -> None:
    config = configuration(platform_file(tmp_path, **SELFTEST_COSTS), vcpus=4)
    run = played(config)
    assert counted(run.stages[1])["accesses"] == 4 * 4 * 257
    assert run.world.s.control[v.PLAYED] < 1_500


@pytest.mark.thorough
def test_the_same_prediction_twice_is_the_same(tmp_path: Path) -> None:
    config = configuration(platform_file(tmp_path, **SELFTEST_COSTS), vcpus=3, memory="2M", locking="shared")
    one, other = played(config), played(config)
    assert times(one) == times(other)
    assert _same(one.world, other.world)
