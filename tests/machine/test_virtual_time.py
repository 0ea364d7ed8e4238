"""Virtual time against closed forms: sums of costs, queueing bounds, who waits for whom, and what repeats itself."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from predicted import (
    STEP_COSTS,
    all_mapped,
    configuration,
    counted,
    logged_blocks,
    logged_pages,
    logged_tables,
    one_stage,
    platform_file,
    played,
)

from stress.errors import UsageError
from stress.orders import NAMED_ORDERS, Order, Step, parse_order
from stress.platforms import Shape, Work
from stress.predict import passes
from stress.predict import virtual as v
from stress.predict.passes import new_world
from stress.predict.prices import prices
from stress.predict.virtual import World
from stress.programs import ALWAYS, Program
from stress.shm.mode import JIT_DISABLED

pytestmark = pytest.mark.timeout(900)  # the event loop may have to be compiled first

NAMED = [pytest.param(order, id=name) for name, order in NAMED_ORDERS.items()]
PAGES, TABLE = 512, 512  # of a 2 MiB block

COSTS = STEP_COSTS | {
    "tlbi_ipa_ns": 1_300,
    "split_ns": 900,
    "zero_bytes_per_s": 8192e6,
    "hand_over_ns": 50,
    "hand_over_waiting_ns": 20,
    "miss_ns": 19,
    "start_ns": 5_000,
    "rebuild_ns": 700,
}


def times(world: Any) -> list[int]:
    return [stage.duration_ns for stage in world.stages]


@pytest.mark.thorough
@pytest.mark.parametrize("locking", ["exclusive", "shared"])
@pytest.mark.parametrize("order", NAMED)
def test_one_vcpu_takes_the_sum_of_what_everything_costs(tmp_path: Path, order: Order, locking: str) -> None:
    config = configuration(platform_file(tmp_path, **COSTS), vcpus=1, locking=locking)
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
        step: cost(step, unmapped if step is Step.CLEAN_UNMAPPED else Shape(bytes=block, entries=TABLE, tables=1))
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
    file = platform_file(tmp_path, **COSTS)
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
        + cost(Step.UNMAP, Shape(entries=TABLE, tables=1))
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


@pytest.mark.parametrize("vcpus", [1, 2, 3, 8])
@pytest.mark.parametrize(("locking", "words"), [("exclusive", 1), ("shared", 2)])
def test_readers_count_themselves_in_a_lock_one_after_the_other(
    tmp_path: Path, vcpus: int, locking: str, words: int
) -> None:
    """N customers, demand D in each lock's word, which only another reader makes a demand, and think time Z.

    mmap_lock is always one; an exclusive mmu_lock has a demand of its own, which is smaller here.
    """
    demand, think, pages = 450, 1_000, 256
    file = platform_file(tmp_path, fault_ns=200, map_ns=100, exit_ns=680, miss_ns=20, share_ns=demand)
    config = configuration(file, vcpus=vcpus, memory="32M", fwb=True, locking=locking)
    _, stage = one_stage(config, lambda vcpu: Program(1, first=vcpu * PAGES, run=pages), logged_tables)
    bound = pages * (max(vcpus * demand, words * demand + think) if vcpus > 1 else think)
    assert counted(stage)["population"] == vcpus * pages
    # Who comes first finds the word where it is, and so does who has it twice in a row.
    assert bound - 2 * words * demand <= stage.duration_ns <= bound + vcpus * (demand + think)


def test_permission_given_by_a_tlbi_of_one_core_waits_for_nobody(tmp_path: Path) -> None:
    costs = {"exit_ns": 900, "fault_ns": 100, "tlbi_ipa_ns": 5_000}
    took = []
    for local in ({}, {"tlbi_local_ns": 400}):
        config = configuration(
            platform_file(tmp_path, **costs, **local), vcpus=4, memory="8M", fwb=True, locking="shared", backing="thp"
        )
        world, stage = one_stage(
            config, lambda vcpu: Program(1, first=vcpu * PAGES, run=100, write_below=ALWAYS), logged_pages
        )
        assert counted(stage)["permission"] == 400
        assert int(world.s.control[v.TLBI_WAITING]) == 0
        took.append(stage.duration_ns)
    assert took[1] == 100 * (900 + 100 + 400)
    assert took[0] >= 400 * 5_000


@pytest.mark.parametrize("vcpus", [1, 2, 3, 5, 8, 16])
def test_an_exclusive_lock_is_a_closed_network_with_one_queue(tmp_path: Path, vcpus: int) -> None:
    """N customers, demand D under mmu_lock, think time Z: n rounds take n max(N D, D + Z), and at most a round more."""
    serial, think, pages = 600, 2_000, 256
    file = platform_file(tmp_path, fault_ns=500, map_ns=100, exit_ns=think - 20, miss_ns=20)
    config = configuration(file, vcpus=vcpus, memory="32M", fwb=True)
    _, stage = one_stage(config, lambda vcpu: Program(1, first=vcpu * PAGES, run=pages), logged_tables)
    assert counted(stage)["population"] == vcpus * pages
    bound = pages * max(vcpus * serial, serial + think)
    assert bound <= stage.duration_ns <= bound + vcpus * serial + think
    assert stage.duration_ns <= pages * (vcpus * serial + think)
    waits, holds = counted(stage)["lock_wait_ns"], counted(stage)["lock_hold_ns"]
    assert holds == vcpus * pages * serial
    assert (waits == 0) == (vcpus == 1)


@pytest.mark.parametrize("vcpus", [1, 2, 7])
def test_a_shared_lock_lets_vcpus_map_their_own_memory_as_fast_as_one(tmp_path: Path, vcpus: int) -> None:
    file = platform_file(tmp_path, fault_ns=500, map_ns=100, exit_ns=1_980, miss_ns=20)
    config = configuration(file, vcpus=vcpus, memory="16M", fwb=True, locking="shared")
    _, stage = one_stage(config, lambda vcpu: Program(1, first=vcpu * PAGES, run=256), logged_tables)
    assert stage.duration_ns == 256 * 2_600
    assert counted(stage)["lock_wait_ns"] == 0


@pytest.mark.parametrize("vcpus", [1, 2, 4, 8])
def test_under_a_shared_lock_splits_queue_for_the_broadcast_tlbi(tmp_path: Path, vcpus: int) -> None:
    """Every write splits a block of its own: T(N) is max(T(1), N x blocks x TLBI), but for the last one's way out."""
    tlbi, rest, blocks = 1_220, 3_900, 16
    file = platform_file(tmp_path, tlbi_ipa_ns=tlbi, exit_ns=2_400, fault_ns=500, split_ns=1_000)
    config = configuration(file, vcpus=vcpus, memory="256M", fwb=True, locking="shared")
    program = [Program(blocks, PAGES, first=vcpu * blocks * PAGES, run=1, write_below=ALWAYS) for vcpu in range(vcpus)]
    world, stage = one_stage(config, program.__getitem__, logged_blocks)
    assert counted(stage)["splits"] == vcpus * blocks == world.s.sums[v.S_TLBIS]
    bound = blocks * max(tlbi + rest, vcpus * tlbi)
    assert bound <= stage.duration_ns <= bound + rest + vcpus * tlbi


def test_a_tlbi_takes_longer_while_others_wait_with_theirs(tmp_path: Path) -> None:
    file = platform_file(tmp_path, tlbi_ipa_ns=1_000, tlbi_waiting_ns=10)
    config = configuration(file, vcpus=3, memory="6M", fwb=True, locking="shared")
    program = [Program(1, first=vcpu * PAGES, run=1, write_below=ALWAYS) for vcpu in range(3)]
    _, stage = one_stage(config, program.__getitem__, logged_blocks)
    assert stage.duration_ns == 1_000 + 1_010 + 1_020


@pytest.mark.parametrize("locking", ["exclusive", "shared"])
@pytest.mark.parametrize("vcpus", [2, 5])
def test_a_lock_that_costs_nothing_holds_nobody_up(tmp_path: Path, vcpus: int, locking: str) -> None:
    file = platform_file(tmp_path, exit_ns=1_980, miss_ns=20)
    alone, many = (
        one_stage(
            configuration(file, vcpus=count, memory="16M", fwb=True, locking=locking),
            lambda vcpu: Program(1, first=vcpu * PAGES, run=256),
            logged_tables,
        )[1]
        for count in (1, vcpus)
    )
    assert many.duration_ns == alone.duration_ns == 256 * 2_000
    assert counted(many)["lock_wait_ns"] == counted(many)["lock_hold_ns"] == 0


def test_a_hand_over_costs_more_the_more_wait_on(tmp_path: Path) -> None:
    file = platform_file(tmp_path, fault_ns=1_000, hand_over_ns=100, hand_over_waiting_ns=10)
    config = configuration(file, vcpus=4, fwb=True)
    _, stage = one_stage(config, lambda vcpu: Program(1, first=vcpu * PAGES, run=1), logged_tables)
    # Four handlers one after the other; at the three hand-overs 2, 1 and 0 others wait on.
    assert stage.duration_ns == 4 * 1_000 + 120 + 110 + 100


@pytest.mark.parametrize("vcpus", [1, 2, 3, 6])
def test_readers_of_one_memory_share_it(tmp_path: Path, vcpus: int) -> None:
    """Of 10 ns per miss memory serves 4 ns for one core at a time: N readers take max(10, 4 N) ns for each page."""
    config = configuration(platform_file(tmp_path, miss_ns=10, miss_shared_ns=4), vcpus=vcpus, fwb=True)
    world, stage = one_stage(config, lambda vcpu: Program(1, run=2 * PAGES), all_mapped)
    assert stage.duration_ns == 2 * PAGES * max(10, 4 * vcpus)
    assert counted(stage)["accesses"] == vcpus * 2 * PAGES
    assert world.s.control[v.LONG_ROWS] == 0


def test_the_last_reader_has_memory_to_itself(tmp_path: Path) -> None:
    config = configuration(platform_file(tmp_path, miss_ns=10, miss_shared_ns=8), vcpus=2, fwb=True)
    _, stage = one_stage(config, lambda vcpu: Program(1, run=(1 + vcpu) * PAGES), all_mapped)
    assert stage.duration_ns == PAGES * 2 * 8 + PAGES * 10


@pytest.mark.parametrize(("shared", "each"), [(4, 10), (8, 16)])
def test_who_reads_behind_another_catches_up(tmp_path: Path, shared: int, each: int) -> None:
    """One page later by a fault of 1 us, but what is behind is in a cache: both end together, but for a short row."""
    costs = {"miss_ns": 10, "miss_shared_ns": shared, "walk_ns": 1, "exit_ns": 1_000}
    config = configuration(platform_file(tmp_path, **costs), vcpus=2, fwb=True)

    def late(world: World) -> None:
        all_mapped(world)
        world.block[0, v.B_KIND] = v.EMPTY

    program = [Program(1, first=PAGES, run=PAGES), Program(1, first=PAGES - 1, run=PAGES + 1)]
    world, stage = one_stage(config, program.__getitem__, late)
    ends = world.s.actor[:2, v.A_ENDED] / 1000
    assert abs(ends[0] - ends[1]) <= 64 * each
    assert stage.duration_ns <= PAGES * each + 64 * each
    assert counted(stage)["accesses"] == 2 * PAGES + 1


@pytest.mark.parametrize("order", ["unmap-first", "block-first"])
def test_nobody_reads_a_block_while_the_last_is_torn_down(tmp_path: Path, order: str) -> None:
    """Readers come to a block together, all fault before it is rebuilt, and wait for mmu_lock until it is torn down."""
    readers, tear_down, blocks = 4, 200_000, 4
    costs = {"miss_ns": 100, "miss_shared_ns": 50, "walk_ns": 10, "free_ns": tear_down}
    file = platform_file(tmp_path, **costs, exit_ns=20_000, fault_ns=1_000)
    config = configuration(file, vcpus=readers, fwb=True, orders=[order])
    took = played(config).stages[-1].duration_ns
    assert took == pytest.approx(blocks * (tear_down + 20_000 + PAGES * readers * 50), rel=0.05)


def test_faults_are_too_far_apart_to_share_memory(tmp_path: Path) -> None:
    file = platform_file(tmp_path, miss_ns=20, miss_shared_ns=20, exit_ns=1_980)
    config = configuration(file, vcpus=4, memory="16M", fwb=True, locking="shared")
    _, stage = one_stage(config, lambda vcpu: Program(1, first=vcpu * PAGES, run=256), logged_tables)
    assert stage.duration_ns == 256 * 2_000


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
    config = configuration(platform_file(tmp_path, exit_ns=10, fault_ns=1), vcpus=2, locking="shared")
    with pytest.raises(UsageError, match="leaves an entry invalid"):
        played(config, parse_order("tlbi,install,unmap,invalidate"))


@pytest.mark.skipif(not JIT_DISABLED, reason="compiled code has its own bound")
def test_a_prediction_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(v, "LONGEST_PS", 3 * 10**12)
    config = configuration(platform_file(tmp_path, exit_ns=1e9), vcpus=1)
    with pytest.raises(UsageError, match="more than 30 days"):
        played(config)


# -- what repeats itself -----------------------------------------------------------------


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
        platform_file(tmp_path, **COSTS),
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
    config = configuration(platform_file(tmp_path, **COSTS), vcpus=4)
    run = played(config)
    assert counted(run.stages[1])["accesses"] == 4 * 4 * 257
    assert run.world.s.control[v.PLAYED] < 1_500


@pytest.mark.thorough
def test_the_same_prediction_twice_is_the_same(tmp_path: Path) -> None:
    config = configuration(platform_file(tmp_path, **COSTS), vcpus=3, memory="2M", locking="shared")
    one, other = played(config), played(config)
    assert times(one) == times(other)
    assert _same(one.world, other.world)


@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize("split_order", ["break-first", "invalidate,tlbi,tlbi-ipa,build,link", "build,link,tlbi"])
def test_a_split_takes_what_its_steps_cost(tmp_path: Path, split_order: str, eager: bool) -> None:
    file, options = platform_file(tmp_path, **COSTS), {"scenario": "dirty-log-perf", "memory": "4M", "backing": "thp"}
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
    assert this[at] - usual[at] == pytest.approx(2 * (more[1] - more[0]), abs=4)
    assert (this[at] == usual[at]) == (split_order == "break-first")


def test_a_split_that_leaves_nothing_is_not_predicted(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="leaves an entry invalid"):
        played(configuration(platform_file(tmp_path), split_order="build,link,invalidate"))
