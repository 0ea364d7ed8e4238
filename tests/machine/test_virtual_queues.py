"""Queues in virtual time against closed forms: of mmu_lock, of the word of a shared lock, of the broadcast TLBI."""

from __future__ import annotations

from pathlib import Path

import pytest
from predicted import (
    PAGES,
    configuration,
    counted,
    logged_blocks,
    logged_pages,
    logged_tables,
    one_stage,
    platform_file,
)

from stress.predict import virtual as v
from stress.programs import ALWAYS, Program

pytestmark = pytest.mark.timeout(900)  # the event loop may have to be compiled first

thorough = pytest.mark.thorough


@pytest.mark.parametrize("vcpus", [pytest.param(1, marks=thorough), 2, pytest.param(3, marks=thorough), 8])
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


@pytest.mark.parametrize(
    "vcpus", [1, pytest.param(2, marks=thorough), 3, *(pytest.param(many, marks=thorough) for many in (5, 8, 16))]
)
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
@pytest.mark.parametrize("vcpus", [2, pytest.param(5, marks=thorough)])
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
