"""The scenario ``thp`` in virtual time: what faults after frames have moved, and who looks again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from predicted import STEP_COSTS, going_on, platform_file

from stress.config import from_sources
from stress.predict import check
from stress.predict import virtual as v
from stress.predict.cycles import play_thp
from stress.predict.passes import Played
from stress.programs import MOVE_EVERY
from stress.results.data import COUNTERS
from stress.shm.mode import JIT_DISABLED

pytestmark = pytest.mark.timeout(900)  # the event loop may have to be compiled first

compiled = pytest.mark.skipif(JIT_DISABLED, reason="too many events for plain Python")
COSTS = STEP_COSTS | {"hit_ns": 20, "walk_ns": 50}


def played(path: Path, costs: dict[str, float] | None = None, order: str = "block-first", **options: Any) -> Played:
    """Eight cycles over one block of 2 MiB, FWB, one vCPU, unless the options say otherwise."""
    given = {"scenario": "thp", "vcpus": 1, "rebuilds": 8, "dwell": "100us", "orders": [order], "blocks": 1}
    config = from_sources(None, {**given, "fwb": True, "platform": platform_file(path, **(costs or COSTS)), **options})
    check(config)
    return play_thp(config, config.parsed_orders[0], going_on)


def counted(run: Played) -> dict[str, int]:
    return dict(zip(COUNTERS, map(int, run.world.s.counters.sum(axis=(0, 1))), strict=True))


@compiled
def test_small_frames_are_mapped_page_by_page_and_a_huge_one_at_once(tmp_path: Path) -> None:
    """A dwell is long enough for a lap: 512 faults after each break-up, and one after each collapse or slot move."""
    cheap: dict[str, float] = {"tlbi_ns": 1_100, "exit_ns": 10, "hit_ns": 20, "walk_ns": 50}
    run = played(tmp_path, cheap)
    found = counted(run)
    assert found["mapped_pages"] == 8 * 512
    assert found["population"] == found["mapped_pages"] + found["mapped_blocks"]
    assert found["mapped_blocks"] in (8, 9), "nobody may come after the slot moved"
    assert run.world.s.sums[v.S_ALLOCATED] == run.world.s.sums[v.S_FREED] == 8
    # A block goes with one TLBI, a table with one for its pages and one for itself; and 8 cycles move the slot once.
    assert MOVE_EVERY == 8
    assert run.world.s.sums[v.S_TLBIS] == 8 * (1 + 2) + 1
    assert found["rebuild"] == 0, "no table is left to rebuild"


def test_an_unmap_holds_mmu_lock_for_its_entries_and_tlbis(tmp_path: Path) -> None:
    """Whoever faults meanwhile waits: 1 TLBI or 2, and a table's 512 entries, are the longest stalls that there are."""
    costs: dict[str, float] = {"tlbi_ns": 100_000, "unmap_ns": 1_000, "exit_ns": 10, "hit_ns": 20, "walk_ns": 50}
    run = played(tmp_path, costs, dwell="1ms", rebuilds=2)
    stalls = run.world.faults[: run.world.s.control[v.KEPT], v.F_STALL] // 1000
    long = sorted(stalls[stalls > 10_000])
    assert long[0] == pytest.approx(100_000, abs=100)
    assert long[-1] == pytest.approx(512 * 1_000 + 2 * 100_000, abs=100)


def test_frames_move_for_as_long_as_it_takes_to_copy_them(tmp_path: Path) -> None:
    """2 MiB are read and written, at 4 GiB/s each, before anybody may map them again."""
    moves = 2 * 2
    slow, fast = (played(tmp_path, COSTS | {"zero_bytes_per_s": rate}, rebuilds=2).cycles for rate in (2**32, 2**42))
    more = (sum(cycle[0] for cycle in slow) - sum(cycle[0] for cycle in fast)) / 1000
    assert more == pytest.approx(moves * 2 * 2**21 / 2**32 * 1e9, rel=0.01)


@pytest.mark.parametrize("locking", ["exclusive", "shared"])
def test_who_faults_while_frames_move_tries_again(tmp_path: Path, locking: str) -> None:
    """``mmu_invalidate_retry``; under a shared lock until the move is over, which waits for the handlers."""
    run = played(tmp_path, vcpus=3, locking=locking, rebuilds=4)
    assert counted(run)["retry"] > 0
    assert (run.world.block[:, v.B_MOVING] == 0).all()
    assert (run.world.block[:, v.B_SPINNERS] == 0).all()


@pytest.mark.parametrize("locking", ["exclusive", pytest.param("shared", marks=pytest.mark.thorough)])
@pytest.mark.parametrize("order", ["block-first", "clean-unlocked"])
def test_frames_move_under_who_rebuilds_without_mmu_lock(tmp_path: Path, order: str, locking: str) -> None:
    """Such an order looks again and begins anew; one that begins with the lock meets no table at all."""
    options: dict[str, Any] = {"write_fraction": 1, "vcpus": 3, "rebuilds": 4, "blocks": 2, "fwb": False}
    run = played(tmp_path, COSTS, order, locking=locking, **options)
    unlocked = order == "clean-unlocked"
    assert (run.world.s.sums[v.S_REBUILDS] > 0) == unlocked
    assert (run.world.s.sums[v.S_RESTARTS] > 0) == unlocked


@compiled
def test_frames_move_under_a_tear_down_that_gives_mmu_lock_up(tmp_path: Path) -> None:
    """The tear-down with an open window loses its block: the table is gone, and the next fault maps anew."""
    costs = COSTS | {"unmap_ns": 2_000}
    options: dict[str, Any] = {"write_fraction": 1, "vcpus": 3, "rebuilds": 20, "blocks": 2, "yield_every": 16}
    run = played(tmp_path, costs, "unmap-first", dwell="500us", **options)
    assert run.world.s.sums[v.S_YIELDS] > 0
    assert run.world.s.sums[v.S_RESTARTS] > 0
    assert run.world.s.sums[v.S_FREED] <= run.world.s.sums[v.S_ALLOCATED]


def test_the_same_seed_plays_the_same(tmp_path: Path) -> None:
    one, same, other = (played(tmp_path, vcpus=2, pattern="uniform", rebuilds=3, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(one.world.s.counters, same.world.s.counters)
    assert not np.array_equal(one.world.s.counters, other.world.s.counters)
