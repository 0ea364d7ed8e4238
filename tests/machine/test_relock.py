"""What is done before mmu_lock is taken may not hold any more: after `lock` the rebuild looks again, or begins anew."""

from __future__ import annotations

from typing import Any

import pytest
from machines import (
    ALL,
    assert_sound,
    block_leaf,
    evidence,
    fault,
    look_under_lock,
    run_audit,
    set_order,
    small_machine,
    split_block,
    violations,
)
from programs import execute, program

from stress.bugs import NO_RECHECK
from stress.kernels.codes import POPULATION
from stress.kernels.dirty import set_logging
from stress.kernels.notifier import invalidate_end, invalidate_start, move_frames
from stress.kernels.rebuild import DONE, VOID, carry_out, rebuild
from stress.kernels.tlb import new_cpu
from stress.orders import CLEAN_UNLOCKED
from stress.shm.accounts import ACTED, R_VOID, T_RESTARTS, Kind
from stress.shm.layout import Machine
from stress.shm.words import BATCH_LOCKED_NS, LOCK, STOP

BLOCK = 512
_SCATTERED = 0x155


def looked(**more: Any) -> Machine:
    """Block 0 a table, vCPU 0 holds mmu_lock and has looked at it: what its first step does comes without the lock."""
    s = small_machine(fwb=False, guest_caches=False, vcpu_rebuilds=True, spare_blocks=1, **more)
    assert split_block(s, 0, ALL) == DONE
    set_order(s, CLEAN_UNLOCKED.steps)
    assert look_under_lock(s, 0) == 1
    return s


def let_others_at_it(s: Machine) -> None:
    """mmu_lock is free, as it is while vCPU 0 cleans."""
    s.control[LOCK] = 0


def move_and_populate(s: Machine) -> None:
    """The host moves the block's frames apart, and the guest faults a page in: a table stands there again."""
    host = s.geo.hypervisor
    assert invalidate_start(s, host, s.geo.base_gfn, 0, BLOCK) == DONE
    assert move_frames(s, 0, 0, 2 * BLOCK, _SCATTERED, BLOCK) == BLOCK
    assert invalidate_end(s, host, 0, BLOCK, 2 * BLOCK, _SCATTERED, 0) == DONE
    s.control[LOCK] = 2
    assert fault(s, s.geo.base_gfn + 7, 1, 1) == POPULATION
    s.control[LOCK] = 0


def go_on(s: Machine) -> int:
    """vCPU 0 goes on: it cleans, takes mmu_lock, ..."""
    s.control[LOCK] = -1 if s.geo.shared else 1
    return int(carry_out(s, 0, 1))


@pytest.mark.parametrize("shared", [0, 1])
def test_nothing_moved(shared: int) -> None:
    s = looked(shared=shared)
    assert go_on(s) == DONE
    assert (s.totals[0, T_RESTARTS], s.control[LOCK]) == (0, 0)
    assert assert_sound(s).leaves[0] == block_leaf(s.geo, 0)


@pytest.mark.parametrize("shared", [0, 1])
def test_frames_that_moved_meanwhile_are_not_mapped(shared: int) -> None:
    s = looked(shared=shared, backing_thp=1, vcpus=2)
    let_others_at_it(s)
    move_and_populate(s)
    before = s.tables.copy()
    assert go_on(s) == VOID
    assert (s.tables == before).all()
    assert (s.totals[0, T_RESTARTS], s.records[1, R_VOID], s.control[LOCK]) == (1, 1, 0)
    assert_sound(s)


@pytest.mark.parametrize("shared", [0, 1])
def test_logging_that_began_meanwhile_is_not_missed(shared: int) -> None:
    s = looked(shared=shared)
    let_others_at_it(s)
    assert set_logging(s, s.geo.hypervisor, 1) == BLOCK
    assert go_on(s) == VOID
    assert s.totals[0, T_RESTARTS] == 1
    assert not any(leaf.writable for leaf in assert_sound(s).leaves)


def test_a_block_that_another_installed_meanwhile_stays() -> None:
    s = looked()
    let_others_at_it(s)
    assert rebuild(s, s.geo.hypervisor, s.geo.base_gfn) == DONE
    assert go_on(s) == VOID
    assert s.totals[0, T_RESTARTS] == 1
    assert assert_sound(s).leaves == [block_leaf(s.geo, 0)]


def test_a_run_that_ends_while_it_waits_for_the_lock_ends_the_rebuild() -> None:
    s = looked()
    s.batches[0, BATCH_LOCKED_NS] = 0  # it gave mmu_lock back, and the hypervisor has it for good
    s.control[LOCK] = s.geo.hypervisor + 1
    s.control[STOP] = 1
    before = s.tables.copy()
    assert int(carry_out(s, 0, 1)) == VOID
    assert (s.tables == before).all()
    assert (s.control[LOCK], s.totals[0, T_RESTARTS]) == (s.geo.hypervisor + 1, 0)
    assert violations(s) == {}


def test_without_the_second_look_the_old_frames_are_mapped_and_seen() -> None:
    s = looked(backing_thp=1, vcpus=2, inject=NO_RECHECK)
    let_others_at_it(s)
    move_and_populate(s)
    assert go_on(s) == DONE
    assert s.tally[ACTED] == 1
    execute(s, new_cpu(), 1, program(7, write=False), 1)
    run_audit(s)
    assert "stale-translation" in violations(s)
    assert evidence(s, Kind.STALE_TRANSLATION)["gfn"] >= s.geo.base_gfn
