"""Memory that vCPUs share in virtual time, against closed forms: who reads it alone, with others, or behind them."""

from __future__ import annotations

from pathlib import Path

import pytest
from predicted import (
    PAGES,
    all_mapped,
    configuration,
    counted,
    logged_tables,
    one_stage,
    platform_file,
    played,
)

from stress.predict import virtual as v
from stress.predict.virtual import World
from stress.programs import Program

pytestmark = pytest.mark.timeout(900)  # the event loop may have to be compiled first


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


@pytest.mark.parametrize("order", [pytest.param("unmap-first", marks=pytest.mark.thorough), "block-first"])
def test_nobody_reads_a_block_while_the_last_is_torn_down(tmp_path: Path, order: str) -> None:
    """Readers come to a block together, all fault before it is rebuilt, and wait for mmu_lock until it is torn down."""
    readers, tear_down, blocks = 4, 200_000, 2
    costs = {"miss_ns": 100, "miss_shared_ns": 50, "walk_ns": 10, "free_ns": tear_down}
    file = platform_file(tmp_path, **costs, exit_ns=20_000, fault_ns=1_000)
    config = configuration(file, vcpus=readers, memory="4M", fwb=True, orders=[order])
    took = played(config).stages[-1].duration_ns
    assert took == pytest.approx(blocks * (tear_down + 20_000 + PAGES * readers * 50), rel=0.05)


def test_faults_are_too_far_apart_to_share_memory(tmp_path: Path) -> None:
    file = platform_file(tmp_path, miss_ns=20, miss_shared_ns=20, exit_ns=1_980)
    config = configuration(file, vcpus=4, memory="16M", fwb=True, locking="shared")
    _, stage = one_stage(config, lambda vcpu: Program(1, first=vcpu * PAGES, run=256), logged_tables)
    assert stage.duration_ns == 256 * 2_000
