"""A selftest in virtual time against closed forms: sums of what its steps and faults cost, and who waits for whom."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from predicted import PAGES, SELFTEST_COSTS, configuration, counted, platform_file, played, times

from stress.errors import UsageError
from stress.orders import NAMED_ORDERS, Order, Step, parse_order
from stress.platforms import Shape, Work
from stress.predict import virtual as v
from stress.predict.prices import prices
from stress.shm.mode import JIT_DISABLED

pytestmark = pytest.mark.timeout(900)  # the event loop may have to be compiled first

NAMED = [pytest.param(order, id=name) for name, order in NAMED_ORDERS.items()]


@pytest.mark.thorough
@pytest.mark.parametrize("locking", ["exclusive", "shared"])
@pytest.mark.parametrize("order", NAMED)
def test_one_vcpu_takes_the_sum_of_what_everything_costs(tmp_path: Path, order: Order, locking: str) -> None:
    config = configuration(platform_file(tmp_path, **SELFTEST_COSTS), vcpus=1, locking=locking)
    cost = config.platform_profile.cost
    blocks, block = 4, config.block_size
    fault = cost(Work.EXIT) + cost(Work.FAULT)
    page = cost(Work.MAP, Shape(entries=1)) + cost(Step.CLEAN, Shape(bytes=4096))
    access = cost(Work.MISS)
    create = fault + cost(Work.ZERO, Shape(bytes=block)) + cost(Work.MAP, Shape(entries=1)) + access
    create += cost(Step.CLEAN, Shape(bytes=block))
    split = fault + cost(Step.TLBI_IPA) + cost(Step.LINK) + page + access
    update = split + PAGES // 2 * (fault + page + access)
    # Page 0 and the upper half are mapped; page 1 faults, whose vCPU rebuilds the block and then reads all of it.
    unmapped = Shape(bytes=(PAGES // 2 - 1) * 4096)
    of_block = {
        step: cost(step, unmapped if step is Step.CLEAN_UNMAPPED else Shape(bytes=block, entries=PAGES, tables=1))
        for step in order.steps
        if step is not Step.UNMAP_DEFERRED
    }
    adjust = PAGES * access + fault + cost(Work.REBUILD) + sum(of_block.values())
    stages = [cost(Work.START) + blocks * each for each in (create, update, adjust)]
    assert times(played(config, order)) == pytest.approx(stages, abs=40)


@pytest.mark.thorough
@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize("locking", ["exclusive", "shared"])
def test_dirty_log_perf_takes_the_sum_of_what_everything_costs(tmp_path: Path, locking: str, eager: bool) -> None:
    file = platform_file(tmp_path, **SELFTEST_COSTS)
    options = {"scenario": "dirty-log-perf", "locking": locking, "orders": ["block-first"], "memory": "4M"}
    config = configuration(file, vcpus=1, backing="thp", eager_split=eager, **options)
    cost = config.platform_profile.cost
    blocks, block, access = 2, Shape(bytes=config.block_size), cost(Work.MISS)
    fault = cost(Work.EXIT) + cost(Work.FAULT)
    page = cost(Work.MAP, Shape(entries=1)) + cost(Step.CLEAN, Shape(bytes=4096))
    relaxed = fault + cost(Step.TLBI_IPA) + access
    populate = fault + cost(Work.ZERO, block) + cost(Work.MAP, Shape(entries=1)) + cost(Step.CLEAN, block)
    enable = cost(Work.MAP, Shape(entries=blocks)) + cost(Work.TLBI_RANGE)
    dirty = cost(Step.TLBI_IPA) + cost(Step.LINK) + PAGES * (fault + page + access)
    if eager:
        enable += blocks * (cost(Step.TLBI_IPA) + cost(Step.BUILD, Shape(entries=PAGES)) + cost(Step.LINK))
        dirty = PAGES * relaxed
    clear = cost(Work.MAP, Shape(entries=blocks * PAGES)) + cost(Work.TLBI_RANGE)
    rebuild = (
        cost(Work.REBUILD)
        + cost(Step.TLBI)
        + cost(Step.CLEAN, block)
        + cost(Step.UNMAP, Shape(entries=PAGES, tables=1))
    )
    run, start = played(config), cost(Work.START)
    assert times(run) == pytest.approx(
        [
            start + blocks * (populate + PAGES * access),
            enable,
            *(start + blocks * dirty, 0, clear),
            *(start + blocks * PAGES * relaxed, 0, clear),
            0,
            start + blocks * (fault + rebuild + PAGES * access),
        ],
        abs=40,
    )
    assert counted(run.stages[2])["splits"] == (0 if eager else blocks)
    assert counted(run.stages[5])["permission"] == blocks * PAGES
    assert run.stages[-1].rebuilds == blocks


@pytest.mark.parametrize(("size", "more_ns"), [("2M", 0), ("1G", 8_000)])
def test_what_a_rebuild_needs_is_dearer_where_a_block_takes_all_else_from_the_caches(
    tmp_path: Path, size: str, more_ns: int
) -> None:
    file = platform_file(tmp_path, tlbi_ns=1_000, tlbi_cold_ns=8_000, rebuild_ns=300, rebuild_cold_ns=8_000)
    config = configuration(file, vcpus=1, memory="1G", backing=f"hugetlb-{size.lower()}")
    assert prices(config)[[v.K_TLBI, v.K_REBUILD]].tolist() == [(1_000 + more_ns) * 1_000, (300 + more_ns) * 1_000]


def test_who_loses_under_a_shared_lock_faults_until_the_winner_is_done(tmp_path: Path) -> None:
    file = platform_file(tmp_path, clean_bytes_per_s=(2 << 20) * 1e9 / 1_000_000, exit_ns=2_000, fault_ns=500)
    config = configuration(file, vcpus=3, memory="2M", locking="shared", orders=["block-first"])
    run = played(config)
    adjust = counted(run.stages[-1])
    # One cleans for a millisecond inside the window; the others look each 2.5 us, and the last look finds the block.
    assert adjust["rebuild"] == 1
    assert adjust["window"] == pytest.approx(2 * 1_000_000 / 2_500, abs=4)
    assert run.world.record[0, v.R_FAULTS] == adjust["window"]
    assert run.stages[-1].duration_ns == pytest.approx(1_002_500, abs=5_000)


def test_under_an_exclusive_lock_who_waits_faults_once(tmp_path: Path) -> None:
    file = platform_file(tmp_path, clean_bytes_per_s=(2 << 20) * 1e9 / 1_000_000, exit_ns=2_000, fault_ns=500)
    run = played(configuration(file, vcpus=3, memory="2M", orders=["block-first"]))
    adjust = counted(run.stages[-1])
    assert adjust["rebuild"] == 1
    assert adjust["window"] + adjust["spurious"] == 2
    assert adjust["lock_wait_ns"] == pytest.approx(2 * 1_000_000, rel=0.01)


@pytest.mark.thorough
def test_before_5_14_every_fault_cleans_under_the_lock(tmp_path: Path) -> None:
    file = platform_file(tmp_path, clean_bytes_per_s=(2 << 20) * 1e9 / 1_000_000)
    create = {
        cmo: played(configuration(file, vcpus=4, memory="2M", cmo=cmo)).stages[0].duration_ns
        for cmo in ("per-install", "per-fault")
    }
    assert create == {"per-install": 1_000_000, "per-fault": 4_000_000}


def test_a_tear_down_after_unlock_keeps_nobody_waiting(tmp_path: Path) -> None:
    file = platform_file(tmp_path, free_ns=1_000_000, exit_ns=1_000)
    held = {}
    for name in ("clean-first", "clean-first-unlocked"):
        run = played(configuration(file, vcpus=2, memory="2M", fwb=True, orders=[name]))
        held[name] = int(run.world.record[0, v.R_UNLOCKED] - run.world.record[0, v.R_LOCKED]) // 1000
        assert run.world.s.sums[v.S_FREED] == 1
    assert held == {"clean-first": 1_000_000, "clean-first-unlocked": 0}


def test_a_table_is_freed_once_those_are_through_who_may_walk_it(tmp_path: Path) -> None:
    """Under a shared lock the tear-down waits for the vCPU whose handler looks, and for nobody else."""
    file = platform_file(tmp_path, fault_ns=50_000, exit_ns=1_000, free_ns=1)
    run = played(configuration(file, vcpus=2, memory="4M", fwb=True, locking="shared", orders=["block-first"]))
    unmap = v.R_STEPS + parse_order("block-first").executed.index(Step.UNMAP)
    assert 0 < run.world.record[:, unmap].max() // 1000 <= 50_001


@pytest.mark.thorough
def test_two_rebuilders_of_one_block_make_one_rebuild(tmp_path: Path) -> None:
    """clean-first under a shared lock: all clean, one breaks the entry, and the others have cleaned in vain."""
    file = platform_file(tmp_path, clean_bytes_per_s=1e9, exit_ns=1_000, fault_ns=100)
    run = played(configuration(file, vcpus=3, memory="2M", locking="shared", orders=["clean-first"]))
    assert run.world.s.sums[v.S_REBUILDS] == 1
    assert run.world.s.sums[v.S_VOID] == 2
    assert counted(run.stages[-1])["rebuild"] == 1


def test_an_order_that_looks_again_begins_anew(tmp_path: Path) -> None:
    file = platform_file(tmp_path, clean_bytes_per_s=1e9, exit_ns=1_000, fault_ns=100)
    run = played(configuration(file, vcpus=3, memory="2M", orders=["clean-unlocked"]))
    assert run.world.s.sums[v.S_REBUILDS] == 1
    assert run.world.s.sums[v.S_RESTARTS] == 2


def test_an_order_that_leaves_the_entry_invalid_is_refused(tmp_path: Path) -> None:
    config = configuration(platform_file(tmp_path, exit_ns=10, fault_ns=1), vcpus=2, memory="2M", locking="shared")
    with pytest.raises(UsageError, match="leaves an entry invalid"):
        played(config, parse_order("tlbi,install,unmap,invalidate"))


@pytest.mark.skipif(not JIT_DISABLED, reason="compiled code has its own bound")
def test_a_prediction_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(v, "LONGEST_PS", 3 * 10**12)
    config = configuration(platform_file(tmp_path, exit_ns=1e9), vcpus=1)
    with pytest.raises(UsageError, match="more than 30 days"):
        played(config)


@pytest.mark.parametrize("eager", [False, pytest.param(True, marks=pytest.mark.thorough)])
@pytest.mark.parametrize("split_order", ["break-first", "invalidate,tlbi,tlbi-ipa,build,link", "build,link,tlbi"])
def test_a_split_takes_what_its_steps_cost(tmp_path: Path, split_order: str, eager: bool) -> None:
    file = platform_file(tmp_path, **SELFTEST_COSTS)
    options: dict[str, Any] = {"scenario": "dirty-log-perf", "memory": "2M", "backing": "thp", "iterations": 1}
    configs = [
        configuration(file, vcpus=1, eager_split=eager, split_order=each, **options)
        for each in ("build-first", split_order)
    ]
    usual, this = (times(played(config)) for config in configs)
    more = [
        sum(config.platform_profile.cost(step) for step in config.parsed_split_order.steps if step is not Step.BUILD)
        for config in configs
    ]
    at = 1 if eager else 2  # dirty logging is enabled, or memory written for the first time
    assert this[at] - usual[at] == pytest.approx(more[1] - more[0], abs=4)
    assert (this[at] == usual[at]) == (split_order == "break-first")


def test_a_split_that_leaves_nothing_is_not_predicted(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="leaves an entry invalid"):
        played(configuration(platform_file(tmp_path), split_order="build,link,invalidate"))
