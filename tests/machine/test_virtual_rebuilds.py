"""The scenario ``rebuild`` in virtual time against closed forms: what steps take, whom a window hits, who waits."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from predicted import STEP_COSTS, going_on, platform_file

from stress.config import RunConfig, from_sources
from stress.errors import UsageError
from stress.kernels.tlb import CHUNK
from stress.orders import BLOCK_FIRST, NAMED_ORDERS, Order, Step, parse_order
from stress.platforms import Shape
from stress.predict import briefly, check
from stress.predict import virtual as v
from stress.predict.cycles import CYCLES, play_rebuild
from stress.predict.passes import Played
from stress.results.data import COUNTERS, FAULT_CLASSES
from stress.shm.mode import JIT_DISABLED

pytestmark = pytest.mark.timeout(900)  # the event loop may have to be compiled first

compiled = pytest.mark.skipif(JIT_DISABLED, reason="too many events for plain Python")
NAMED = [pytest.param(order, id=name) for name, order in NAMED_ORDERS.items()]
COSTS = STEP_COSTS | {"hit_ns": 2, "walk_ns": 5}


def configuration(path: Path, costs: dict[str, float] | None = None, **options: Any) -> RunConfig:
    """Four blocks of 2 MiB, three rebuilds, dwells of 100 us."""
    given = {"scenario": "rebuild", "block_size": "2M", "vcpus": 1, "rebuilds": 3, "dwell": "100us"}
    given["orders"] = ["block-first"]
    return from_sources(None, {**given, "platform": platform_file(path, **(costs or COSTS)), **options})


def played(config: RunConfig, order: Order | None = None) -> Played:
    check(config)
    return play_rebuild(config, order or config.parsed_orders[0], going_on)


def rebuilt(run: Played) -> Any:
    """The records of all rebuilds."""
    return run.world.record[: run.world.s.control[v.REBUILT]]


def counted(run: Played) -> dict[str, int]:
    return dict(zip(COUNTERS, map(int, run.world.s.counters.sum(axis=(0, 1))), strict=True))


@pytest.mark.parametrize(("rebuilder", "locking"), [("hypervisor", "exclusive"), ("vcpu", "shared")])
@pytest.mark.parametrize("order", NAMED)
def test_a_rebuild_takes_what_its_steps_cost(tmp_path: Path, order: Order, locking: str, rebuilder: str) -> None:
    config = configuration(tmp_path, populated=0.5, locking=locking, rebuilder=rebuilder, dwell="10us", rebuilds=2)
    cost, pages = config.platform_profile.cost, 512
    run = played(config, order)
    rows = rebuilt(run)
    assert len(rows) == 2
    for row in rows:
        shape = {
            Step.CLEAN_UNMAPPED: Shape(bytes=(pages - int(row[v.R_MAPPED])) * 4096),
            Step.UNMAP_DEFERRED: Shape(),
        }
        whole = Shape(bytes=pages * 4096, entries=pages, tables=1)
        took = {step: cost(step, shape.get(step, whole)) for step in order.steps}
        executed = [took.get(step, 0) for step in order.executed]
        waits = order.executed.index(Step.LOCK) if order.looks_again else -1
        for at, ps in enumerate(row[v.R_STEPS : v.R_STEPS + len(executed)]):
            # Who frees tables under a shared lock waits for handlers that may still walk them.
            slack = 2_500 if locking == "shared" and order.executed[at].facts.tears_down else 0
            if at != waits:
                assert executed[at] - 1 <= ps / 1000 <= executed[at] + slack + 1
        if Step.INVALIDATE in order.steps:
            first, last = order.executed.index(Step.INVALIDATE), order.executed.index(Step.INSTALL)
            assert row[v.R_VALID] - row[v.R_INVALID] == row[v.R_STEPS + first : v.R_STEPS + last + 1].sum()
        begin, end = order.executed.index(Step.LOCK), order.executed.index(Step.UNLOCK)
        held = row[v.R_UNLOCKED] - row[v.R_LOCKED]
        looked = 310_000 if rebuilder == "vcpu" and waits < 0 else 0  # the fault handler, before
        assert held == row[v.R_STEPS + begin + 1 : v.R_STEPS + end].sum() + looked


@pytest.mark.parametrize(("rebuilder", "looked_ps"), [("hypervisor", 0), ("vcpu", 310_000)])
@pytest.mark.parametrize("batch", [1, 2, 4])
def test_before_v5_14_all_of_a_batch_is_cleaned_before_its_steps(
    tmp_path: Path, batch: int, rebuilder: str, looked_ps: int
) -> None:
    run = played(configuration(tmp_path, cmo="per-fault", rebuilder=rebuilder, batch=batch, rebuilds=4, dwell="2ms"))
    rows = rebuilt(run)
    assert len(rows) == 4
    assert (rows[:, v.R_START] - rows[:, v.R_LOCKED] == batch * 512_000_000 + looked_ps).all()
    assert len(np.unique(rows[:, v.R_LOCKED])) == 4 // batch
    assert not rows[:, v.R_STEPS + BLOCK_FIRST.executed.index(Step.CLEAN)].any()


@pytest.mark.parametrize("pattern", ["sequential", "uniform", "zipf", "strided"])
def test_who_meets_no_fault_accesses_memory_all_the_time(tmp_path: Path, pattern: str) -> None:
    """With a hit as dear as a walk, accesses and stalls make up the time of every vCPU."""
    costs = COSTS | {"hit_ns": 4, "walk_ns": 4}
    run = played(configuration(tmp_path, costs, vcpus=2, pattern=pattern, rebuilds=6))
    stalled = sum(int(row[v.F_STALL]) for row in run.world.faults[: run.world.s.control[v.KEPT]])
    in_guest = 2 * int(run.world.s.control[v.NOW]) - stalled
    assert counted(run)["accesses"] == pytest.approx(in_guest / 4_000, rel=0.01)
    assert counted(run)["tlb_hits"] + counted(run)["walks"] == counted(run)["accesses"]
    assert counted(run)["tlb_hits"] > counted(run)["walks"] > 0


@compiled
def test_what_is_not_populated_is_mapped_once(tmp_path: Path) -> None:
    """Each page that a split left out faults once, whoever comes first, and is mapped by the time of the rebuild."""
    run = played(configuration(tmp_path, vcpus=2, populated=0.75, dwell="2ms"))
    found = counted(run)
    assert found["population"] == found["mapped_pages"] == 3 * 128
    assert [int(row[v.R_MAPPED]) for row in rebuilt(run)] == [512] * 3


@pytest.mark.parametrize(("pattern", "stride"), [("sequential", 1), ("strided", 5), ("uniform", 1), ("zipf", 1)])
def test_a_window_hits_whom_chance_leads_there(tmp_path: Path, pattern: str, stride: int) -> None:
    """One vCPU, a window of W accesses: a lap of 2,048 pages is in it with 1/4 + W/2048; a draw with 1 - (1-q)**W."""
    accesses = 100
    costs: dict[str, float] = {"tlbi_ns": 4 * accesses, "hit_ns": 4, "walk_ns": 4, "exit_ns": 10}
    rebuilds = 30 if JIT_DISABLED else 400
    options = {"fwb": True, "pattern": pattern, "stride": stride, "rebuilds": rebuilds, "zipf_exponent": 0.5}
    run = played(configuration(tmp_path, costs, **options))
    share = np.mean(rebuilt(run)[:, v.R_FAULTS] > 0)
    weight = run.world.block[:, v.B_WEIGHT] / (1 << v.WEIGHT_BITS)
    assert weight.sum() == pytest.approx(1)
    expected = float(np.mean(1 - (1 - weight) ** accesses))
    if pattern == "sequential":
        expected = 1 / 4 + accesses / 2048
    elif pattern == "strided":  # a lap of every fifth page
        expected = 1 / 4 + accesses * 5 / 2048
    assert share == pytest.approx(expected, abs=4 * math.sqrt(max(expected * (1 - expected), 0.01) / rebuilds))


@pytest.mark.parametrize("pattern", ["sequential", "uniform"])
def test_at_level_2_who_comes_before_the_tlbi_aborts_once(tmp_path: Path, pattern: str) -> None:
    """Without a break who loses the old table's pointer before the TLBI is issued aborts, and goes on. Level 3: nobody.

    A vCPU in one of 4 blocks loses that once in as many accesses as a live one, and makes n until then.
    """
    n = CHUNK
    costs: dict[str, float] = {"tlbi_ns": 400, "tlbi_local_ns": 90, "hit_ns": 4, "walk_ns": 4, "exit_ns": 10}
    costs["map_ns"] = 2 * 4 * n  # the store is in the middle
    rebuilds = 30 if JIT_DISABLED else 400
    runs = {}
    for level in (2, 3):
        options = {"fwb": True, "pattern": pattern, "rebuilds": rebuilds, "bbm_level": level}
        runs[level] = played(configuration(tmp_path, costs, **options), NAMED_ORDERS["bbml2"])
    aborts = counted(runs[2])["conflict"]
    expected = (1 - (1 - 1 / CHUNK) ** n) / 4 if pattern == "sequential" else 1 - (1 - 1 / (4 * CHUNK)) ** n
    slack = 4 * math.sqrt(max(expected * (1 - expected), 0.01) / rebuilds)
    assert aborts / rebuilds == pytest.approx(expected, abs=slack)
    faults = runs[2].world.faults[: runs[2].world.s.control[v.KEPT]]
    stalls = faults[faults[:, v.F_CLASS] == FAULT_CLASSES.index("conflict"), v.F_STALL]
    assert set(stalls // 1000) == {100}, "an exit and a TLBI of one core"
    assert counted(runs[3])["conflict"] == 0
    assert counted(runs[2])["window"] == counted(runs[3])["window"] == 0


@pytest.mark.parametrize("steps", ["invalidate,install,tlbi,unmap", "install-nt,tlbi,clear-nt,unmap", "block-first"])
def test_who_may_abort_at_level_2(tmp_path: Path, steps: str) -> None:
    """A break without its TLBI leaves both sizes; nT, and a break with its TLBI, do not."""
    costs = COSTS | {"tlbi_ns": 100_000, "map_ns": 1_000_000}  # so long that every table pointer is lost
    run = played(configuration(tmp_path, costs, fwb=True, blocks=1, bbm_level=2), parse_order(steps))
    assert counted(run)["conflict"] == (3 if steps.startswith("invalidate") else 0)


def test_accesses_to_a_block_with_nt_walk(tmp_path: Path) -> None:
    """From the install to `clear-nt`, which is the TLBI, no TLB keeps it."""
    costs: dict[str, float] = {"tlbi_ns": 5_000, "hit_ns": 2, "walk_ns": 5, "exit_ns": 10}
    inside = {}
    for order in ("nt", "bbml2"):
        run = played(configuration(tmp_path, costs, fwb=True, blocks=1, bbm_level=3), NAMED_ORDERS[order])
        inside[order] = run.world.s.counters[0, 1, [COUNTERS.index("walks"), COUNTERS.index("tlb_hits")]].tolist()
    walks, hits = inside["nt"]
    assert walks == pytest.approx(3 * 1000, abs=6)
    assert hits <= 3
    walks, hits = inside["bbml2"]
    assert walks <= 3
    assert hits == pytest.approx(3 * 2500, abs=6)


@compiled
def test_under_an_exclusive_lock_a_stall_lasts_until_the_tear_down_is_done(tmp_path: Path) -> None:
    """block-first empties the window, and who fell into it waits all the same; unlocked tear-downs keep nobody."""
    costs = COSTS | {"free_ns": 500_000}
    worst = {}
    for name in ("block-first", "clean-first-unlocked"):
        run = played(configuration(tmp_path, costs, vcpus=4, rebuilds=20, fwb=True), parse_order(name))
        kept = run.world.faults[: run.world.s.control[v.KEPT]]
        assert (kept[:, v.F_CLASS] == 0).any()
        worst[name] = int(kept[kept[:, v.F_CLASS] == 0, v.F_STALL].max()) // 1000
    assert worst["block-first"] == pytest.approx(500_000, rel=0.02)
    assert worst["clean-first-unlocked"] < 10_000


@compiled
def test_under_a_shared_lock_a_stall_is_short_and_comes_again(tmp_path: Path) -> None:
    costs = COSTS | {"free_ns": 500_000}
    faults = {}
    for locking in ("exclusive", "shared"):
        run = played(configuration(tmp_path, costs, vcpus=4, rebuilds=10, locking=locking), parse_order("unmap-first"))
        faults[locking] = rebuilt(run)[:, v.R_FAULTS].mean()
    assert faults["exclusive"] <= 4 < 100 < faults["shared"]


def test_the_first_vcpu_that_writes_rebuilds(tmp_path: Path) -> None:
    run = played(configuration(tmp_path, vcpus=3, rebuilder="vcpu", write_fraction=0.5, rebuilds=8))
    found = counted(run)
    assert run.world.s.sums[v.S_REBUILDS] == found["rebuild"] == 8
    assert run.world.s.sums[v.S_FREED] == run.world.s.sums[v.S_ALLOCATED] == 8


@compiled
@pytest.mark.parametrize("populated", [0, 0.001, 1])
def test_a_split_fills_all_tables_whatever_they_map(tmp_path: Path, populated: float) -> None:
    """So a live run does; 512 tables, and the one above them, are torn down again."""
    options: dict[str, Any] = {"block_size": "1G", "blocks": 1, "write_fraction": 0}
    run = played(configuration(tmp_path, vcpus=1, populated=populated, rebuilds=2, **options))
    assert run.world.s.sums[v.S_ALLOCATED] == run.world.s.sums[v.S_FREED] == 2 * 513
    unmap = parse_order("block-first").executed.index(Step.UNMAP)
    assert set(rebuilt(run)[:, v.R_STEPS + unmap] // 1000) == {513 * (512 * 3 + 70)}


def test_who_only_reads_never_rebuilds(tmp_path: Path) -> None:
    run = played(configuration(tmp_path, vcpus=2, rebuilder="vcpu", write_fraction=0, rebuilds=8))
    assert run.world.s.sums[v.S_REBUILDS] == 0
    assert run.world.s.sums[v.S_ALLOCATED] == 4, "each block became a table once, and stayed one"


def test_an_order_that_looks_again_begins_anew_where_another_was_faster(tmp_path: Path) -> None:
    config = configuration(tmp_path, vcpus=4, rebuilder="vcpu", write_fraction=1, rebuilds=4)
    run = played(config, parse_order("clean-unlocked"))
    assert run.world.s.sums[v.S_REBUILDS] == 4
    assert run.world.s.sums[v.S_RESTARTS] > 0


def test_cycles_add_up(tmp_path: Path) -> None:
    run = played(configuration(tmp_path, vcpus=2, rebuilds=5))
    times, accesses, *_ = zip(*run.cycles, strict=True)
    assert sum(times) == run.world.s.control[v.NOW]
    assert sum(accesses) == counted(run)["accesses"]


def test_the_same_seed_plays_the_same_and_another_does_not(tmp_path: Path) -> None:
    one, same, other = (played(configuration(tmp_path, vcpus=2, pattern="uniform", seed=seed)) for seed in (1, 1, 2))
    assert np.array_equal(one.world.s.counters, same.world.s.counters)
    assert not np.array_equal(one.world.s.counters, other.world.s.counters)


def test_an_order_that_leaves_the_entry_invalid_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="leaves an entry invalid"):
        played(configuration(tmp_path, vcpus=2), parse_order("install,invalidate,unmap"))


def test_accesses_must_cost_something(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not say what guest accesses cost"):
        played(configuration(tmp_path, {"exit_ns": 10}))


def test_a_search_gets_four_figures_of_each_order(tmp_path: Path) -> None:
    config = configuration(tmp_path, vcpus=4, rebuilds=8, fwb=True)
    found = {order.name: brief for order, brief in briefly(config, [NAMED_ORDERS["unmap-first"], NAMED_ORDERS["nt"]])}
    tlbi, tear_down = 1_100, 512 * 3 + 70
    assert found["unmap-first"].window_ns == found["unmap-first"].rebuild_ns == tlbi + tear_down
    assert found["nt"].window_ns == 0
    assert found["nt"].lock_hold_ns == tlbi + tear_down
    assert found["unmap-first"].hit_share == 1
    assert found["nt"].hit_share == 0
    assert found["unmap-first"].worst_stall_ns > tear_down


@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize("rebuilder", ["vcpu", "hypervisor"])
def test_a_migration_splits_and_rebuilds_what_is_written(tmp_path: Path, rebuilder: str, eager: bool) -> None:
    """Whatever was split while writes were logged is a block again at the end, and each page written faulted first."""
    options: dict[str, Any] = {
        "scenario": "migration",
        "rebuilder": rebuilder,
        "eager_split": eager,
        "blocks": 2,
        "dwell": "200us",
    }
    config = configuration(tmp_path, **options, write_fraction=0.5, rebuilds=2)
    check(config)
    run = CYCLES[config.scenario](config, config.parsed_orders[0], going_on)
    found, rebuilds = counted(run), run.world.s.sums[v.S_REBUILDS]
    assert len(run.cycles) == 2
    assert rebuilds == run.world.s.sums[v.S_ALLOCATED] == run.world.s.sums[v.S_FREED]
    # A vCPU may write to a block before the hypervisor comes to split it.
    assert rebuilds == 4 > found["splits"] if eager else rebuilds == found["splits"] > 0
    assert found["rebuild"] == (rebuilds if rebuilder == "vcpu" else 0)
    assert found["relaxed"] > 0
    assert (run.world.block[:, v.B_KIND] == v.LEAF).all()
    assert (run.world.block[:, [v.B_OWNER, v.B_WINDOW, v.B_SPINNERS]] == 0).all()


@compiled
def test_a_page_that_is_logged_faults_once_per_harvest(tmp_path: Path) -> None:
    """Who writes all of memory in laps faults at every page after a harvest; two vCPUs share the faults."""
    options: dict[str, Any] = {
        "scenario": "migration",
        "eager_split": True,
        "blocks": 1,
        "iterations": 1,
        "dwell": "20ms",
    }
    config = configuration(tmp_path, **options, vcpus=2, write_fraction=1, rebuilds=1)
    run = CYCLES[config.scenario](config, config.parsed_orders[0], going_on)
    assert 511 <= counted(run)["relaxed"] <= 514, "each page once, but one that was split off, and those that both met"


# Tear-downs that give mmu_lock up: 512 entries of 300 ns.

LONG = COSTS | {"unmap_ns": 300}


def yielding(path: Path, order: str, entries: int, **options: Any) -> Played:
    config = configuration(path, LONG, orders=[order], yield_every=entries, vcpus=2, rebuilds=20, **options)
    return played(config)


def worst_stall_ns(run: Played) -> float:
    """Of a vCPU that does not rebuild."""
    faults = run.world.faults[: run.world.s.control[v.KEPT]]
    return float(faults[faults[:, v.F_CLASS] != FAULT_CLASSES.index("rebuild"), v.F_STALL].max()) / 1000


def held_ns(run: Played) -> Any:
    rows = rebuilt(run)
    assert len(rows) == 20
    return (rows[:, v.R_UNLOCKED] - rows[:, v.R_LOCKED] - rows[:, v.R_YIELDED]) / 1000


@pytest.mark.parametrize("rebuilder", ["hypervisor", "vcpu"])
def test_who_waits_for_a_tear_down_waits_for_a_chunk_of_it(tmp_path: Path, rebuilder: str) -> None:
    whole = yielding(tmp_path, "block-first", 0, rebuilder=rebuilder)
    chunks = yielding(tmp_path, "block-first", 64, rebuilder=rebuilder)
    assert int(whole.world.s.sums[v.S_YIELDS]) == 0
    assert 0 < int(chunks.world.s.sums[v.S_YIELDS]) <= 40, "each vCPU waits once"
    assert worst_stall_ns(whole) > 512 * 300
    assert worst_stall_ns(chunks) - worst_stall_ns(whole) < -(512 - 2 * 64) * 300
    assert held_ns(chunks) == pytest.approx(held_ns(whole), abs=1)


def test_in_the_window_who_was_let_through_only_tries_again(tmp_path: Path) -> None:
    whole, chunks = yielding(tmp_path, "unmap-first", 0), yielding(tmp_path, "unmap-first", 64)
    assert int(chunks.world.s.sums[v.S_YIELDS]) > 20
    rows, before = (run.world.record[:20] for run in (chunks, whole))
    assert rows[:, v.R_FAULTS].sum() > before[:, v.R_FAULTS].sum()
    assert (rows[:, v.R_VALID] - rows[:, v.R_INVALID]).sum() > (before[:, v.R_VALID] - before[:, v.R_INVALID]).sum()
    assert held_ns(chunks) == pytest.approx(held_ns(whole), abs=1)


# After dirty logging: rebuilt at faults, or in place by who stopped it, who keeps mmu_lock over a chunk of blocks.


def recovered(path: Path, recover: str, **options: Any) -> Played:
    """Two migrations of four blocks, split when logging began."""
    given = {"scenario": "migration", "recover": recover, "eager_split": True, "rebuilds": 2, "dwell": "200us"}
    config = configuration(path, LONG, **{**given, "vcpus": 2, "write_fraction": 1, **options})
    check(config)
    return CYCLES[config.scenario](config, config.parsed_orders[0], going_on)


@pytest.mark.parametrize("locking", ["exclusive", pytest.param("shared", marks=pytest.mark.thorough)])
@pytest.mark.parametrize(("rebuilder", "batch"), [("hypervisor", 1), ("vcpu", 1), ("hypervisor", 2), ("vcpu", 2)])
def test_who_stops_logging_leaves_no_table(tmp_path: Path, rebuilder: str, batch: int, locking: str) -> None:
    run = recovered(tmp_path, "ioctl", chunk="4M", rebuilder=rebuilder, batch=batch, locking=locking)
    assert (run.world.block[:, v.B_KIND] == v.LEAF).all()
    assert run.world.s.sums[v.S_REBUILDS] == 8
    assert (run.world.s.control[[v.HOLDER, v.READERS, v.QUEUED]] == [-1, 0, 0]).all()
    assert run.world.s.actor[:, v.A_READS].sum() == 0
    if rebuilder == "hypervisor":
        assert counted(run)["rebuild"] == 0
        assert all(took > 4 * 512 * 300_000 for _, _, took, _ in run.cycles), "four tear-downs"


def test_mmu_lock_is_held_over_a_chunk(tmp_path: Path) -> None:
    """The larger the chunk, the longer a vCPU waits for mmu_lock."""
    for blocks, chunk in ((1, "2M"), (2, "4M"), (4, "1G")):
        run = recovered(tmp_path, "ioctl", chunk=chunk, rebuilder="hypervisor", orders=["block-first"])
        rows = run.world.record[:8]
        each = int((rows[:, v.R_END] - rows[:, v.R_START]).min())
        held = (rows[:, v.R_UNLOCKED] - rows[:, v.R_LOCKED]).reshape(-1, blocks)
        assert (held[:, -1] >= blocks * each).all()
        assert (np.diff(held, axis=1) >= each).all()
        assert len(np.unique(rows[:, v.R_LOCKED])) == 8 // blocks
        assert (blocks - 1) * each < worst_stall_ns(run) * 1000 < (blocks + 0.2) * each


def test_what_no_vcpu_writes_stays_a_table_unless_who_stops_logging_recovers_it(tmp_path: Path) -> None:
    left = {
        how: (recovered(tmp_path, how, write_fraction=0).world.block[:, v.B_KIND] == v.TABLE).sum()
        for how in ("fault", "ioctl")
    }
    assert left == {"fault": 4, "ioctl": 0}
