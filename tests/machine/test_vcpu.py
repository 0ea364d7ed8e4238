"""The vCPU's loop in one process: accesses add up, writes land, TLBIs are obeyed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from guests import (
    ALWAYS,
    RW,
    caught_up,
    counters,
    cpu_at,
    cpu_before,
    faults,
    mapped,
    running,
    wait_until,
    workload,
)
from machines import ALL, assert_sound, block_leaf, naive_tree, small_machine, split_block, violations

from stress.arch.descriptors import S2AP_W
from stress.kernels import vcpu
from stress.kernels.codes import PERMISSION, POOL_EXHAUSTED, POPULATION, SPURIOUS, STOPPED
from stress.kernels.entries import find
from stress.kernels.pattern import draw_accesses
from stress.kernels.pool import allocate_table
from stress.kernels.split import DONE
from stress.kernels.tlb import CHUNK, CPU_PAGE, CPU_RANDOM, CPU_SEEN, MISS, Cpu, fill, lookup, new_cpu, sizes_held
from stress.kernels.tlbi import publish, tlbi_range, tlbi_vmid
from stress.kernels.vcpu import RAN, counted_up, run
from stress.kernels.walk import walk
from stress.kernels.workload import Pattern, Workload
from stress.shm.accounts import (
    AT_GFN,
    C_ACCESSES,
    C_WRITES,
    FIRST_ACCESS_NS,
    HEARTBEAT,
    INSIDE,
    PHASE,
    PHASE_SLOT_BITS,
    STATE,
    State,
)
from stress.shm.mode import JIT_DISABLED
from stress.shm.words import FENCED, NOT_AT_POC, PARK, PARKED, POOL_HEAD, POOL_TAIL, STOP, TAG_SHIFT, VALUE_MASK

thorough = pytest.mark.thorough


def drawn(work: Workload, cpu: Cpu, count: int) -> tuple[Any, Any]:
    """(pages, writes) of the next accesses of a vCPU."""
    upcoming = np.zeros(count, np.int64)
    draw_accesses(work, upcoming, cpu.registers[CPU_PAGE], cpu.registers[CPU_RANDOM])
    return upcoming >> 1, upcoming & 1


@pytest.mark.parametrize("pattern", [pattern for pattern in Pattern if pattern != Pattern.PROGRAM])
@pytest.mark.parametrize("write_below", [pytest.param(0, marks=thorough), 1024, ALWAYS])
@pytest.mark.parametrize("share", [None, pytest.param(0, marks=thorough), ALL // 3, pytest.param(ALL, marks=thorough)])
@pytest.mark.parametrize("fwb", [True, False])
def test_accesses_add_up_and_writes_land(pattern: Pattern, write_below: int, share: int | None, fwb: bool) -> None:
    s = mapped(share, fwb=fwb, guest_caches=fwb)
    cpu = cpu_at()
    work = workload(s, pattern, write_below)
    chunks = 12
    pages, writes = drawn(work, cpu, chunks * CHUNK)
    before = s.cells.copy()
    assert run(s, cpu, work, 0, chunks) == RAN
    assert violations(s) == {}
    found = counters(s)
    assert found["accesses"] == chunks * CHUNK == found["hits"] + found["walks"]
    assert found["writes"] == writes.sum()
    assert found["walks"] >= (2 if share is None else 100)
    assert cpu.registers[CPU_PAGE] == pages[-1]

    written = np.unique(pages[writes == 1])
    changed = np.flatnonzero(s.cells != before)
    assert list(changed) == list(written)
    assert (s.cells >> TAG_SHIFT == np.arange(s.geo.pages) + 1).all(), "tags stay"
    assert not (s.cells & NOT_AT_POC).any()
    again = (s.cells & VALUE_MASK) - np.bincount(pages[writes == 1], minlength=s.geo.pages)
    assert (again >= 0).all(), "each write counts its cell up"
    assert again.sum() <= found["redone"], "by one, and once more if it was redone"

    tree = assert_sound(s)
    touched = np.unique(pages)
    if share is None:
        assert tree.leaves == [block_leaf(s.geo, 0), block_leaf(s.geo, 1)]
        assert faults(s) == {}
        assert found["walks"] == 2, "one per block: a block stays in the TLB"
    else:
        populated = [p for p in range(1024) if (p % 512 + 1) * share >> 20 != p % 512 * share >> 20]
        missing = np.setdiff1d(touched, populated)
        assert [leaf.frame for leaf in tree.leaves] == sorted({*populated, *map(int, missing)})
        assert faults(s) == ({POPULATION: len(missing)} if len(missing) else {}), (
            "one population fault per missing page"
        )


def test_starting_from_nothing() -> None:
    s = small_machine()
    cpu = cpu_at()
    assert run(s, cpu, workload(s), 0, 8) == RAN
    assert assert_sound(s).leaves == [block_leaf(s.geo, 0), block_leaf(s.geo, 1)]
    assert faults(s) == {POPULATION: 2}
    assert counters(s) == {"accesses": 1024, "writes": 0, "hits": 1022, "walks": 2, "redone": 0}


def test_counters_go_where_the_phase_says() -> None:
    s = mapped(orders=2)
    cpu = cpu_at()
    for slot in (4, 0, 3, 2):
        s.tally[PHASE] = 9 << PHASE_SLOT_BITS | slot
        assert run(s, cpu, workload(s), 0, slot + 1) == RAN
    assert list(s.counters[0, :, C_ACCESSES]) == [CHUNK, 0, 3 * CHUNK, 4 * CHUNK, 5 * CHUNK]
    assert s.states[0, HEARTBEAT] == 13
    assert s.states[0, FIRST_ACCESS_NS] > 0
    assert s.states[0, AT_GFN] == s.geo.base_gfn + cpu.registers[CPU_PAGE]


def test_a_chunk_of_faults_shows_that_it_lives() -> None:
    """Each may wait long for mmu_lock: the watchdog must see more than whole chunks."""
    s = mapped(0)
    cpu = caught_up(s, cpu_before(s, 0))
    assert run(s, cpu, workload(s), 0, 1) == RAN
    assert faults(s) == {POPULATION: CHUNK}
    assert s.states[0, HEARTBEAT] == CHUNK + 1
    assert run(s, cpu, workload(s), 0, 1) == RAN


def test_accesses_count_inside_while_anybody_rebuilds() -> None:
    s = mapped(orders=2)
    s.tally[PHASE] = 9 << PHASE_SLOT_BITS | 2
    s.tally[INSIDE] = 1
    assert run(s, cpu_at(), workload(s), 0, 3) == RAN
    s.tally[INSIDE] = 0
    assert run(s, cpu_at(), workload(s), 0, 1) == RAN
    assert list(s.counters[0, :, C_ACCESSES]) == [0, 0, CHUNK, 3 * CHUNK, 0]


def test_registers_make_calls_one_stream() -> None:
    one, many = mapped(), mapped()
    work = workload(one, Pattern.UNIFORM, 2048)
    cpu = cpu_at()
    assert run(one, cpu, work, 0, 10) == RAN
    other = cpu_at()
    for _ in range(10):
        assert run(many, other, work, 0, 1) == RAN
    assert (one.cells == many.cells).all()
    assert counters(one) == counters(many)


def test_a_stopping_run() -> None:
    s = mapped()
    s.control[STOP] = 1
    assert run(s, cpu_at(), workload(s), 0, 8) == STOPPED
    assert counters(s)["accesses"] == 0


def test_an_exhausted_pool() -> None:
    s = small_machine()
    while s.control[POOL_TAIL] != s.control[POOL_HEAD]:
        allocate_table(s, 3, 0)
    assert run(s, cpu_at(), workload(s), 0, 8) == POOL_EXHAUSTED
    assert counters(s)["accesses"] == 0
    assert violations(s) == {"table-leak": 1}, "somebody has the pages"


# TLBIs.


@pytest.mark.parametrize("fenced", [0, 1])
def test_an_access_that_a_tlbi_overtook_is_redone(fenced: int) -> None:
    s = mapped()
    s.control[FENCED] = fenced
    cpu = cpu_at()
    assert run(s, cpu, workload(s), 0, 8) == RAN
    before = counters(s)
    tlbi_vmid(s, 0)
    assert run(s, cpu, workload(s), 0, 8) == RAN
    after = counters(s)
    assert cpu.registers[CPU_SEEN] == 1
    assert after["redone"] == before["redone"] + 1
    assert after["walks"] == before["walks"] + 2, "the TLB was flushed"
    assert after["accesses"] == before["accesses"] + 8 * CHUNK
    assert violations(s) == {}


def test_a_range_that_was_invalidated_is_walked_again_and_no_other() -> None:
    s = mapped()
    cpu = cpu_at()
    assert run(s, cpu, workload(s), 0, 8) == RAN
    before = counters(s)
    tlbi_range(s, s.geo.base_gfn + 512, s.geo.base_gfn + 513, 0)
    assert run(s, cpu, workload(s), 0, 8) == RAN
    assert counters(s)["walks"] == before["walks"] + 1


def test_far_behind_the_ring() -> None:
    s = mapped()
    cpu = cpu_at()
    assert run(s, cpu, workload(s), 0, 8) == RAN
    for _ in range(1000):
        publish(s, 1, 2)
    assert run(s, cpu, workload(s), 0, 8) == RAN
    assert cpu.registers[CPU_SEEN] == 1000
    assert counters(s)["walks"] == 4


# Permissions.


def test_a_write_to_a_read_only_block_faults_once() -> None:
    s = mapped()
    index, _ = find(s, s.geo.base_gfn, 2)
    s.tables[index] &= ~S2AP_W
    cpu = cpu_at()
    assert run(s, cpu, workload(s), 0, 8) == RAN
    assert faults(s) == {}, "reading is allowed"
    assert run(s, cpu, workload(s, write_below=ALWAYS), 0, 8) == RAN
    assert faults(s) == {PERMISSION: 1}
    assert s.tables[index] & S2AP_W
    assert (s.cells & VALUE_MASK != 0).all()
    assert violations(s) == {}


@pytest.mark.parametrize("shared", [True, False])
def test_a_stale_read_only_translation_is_refreshed(shared: bool) -> None:
    """Another vCPU has relaxed the entry. Its TLBI may be yet to come if it shares mmu_lock, and is missing if not."""
    s = mapped(shared=shared)
    cpu = cpu_at()
    fill(cpu, 2, s.geo.index_bits, s.geo.base_gfn, 0 << 2 | 1)
    assert run(s, cpu, workload(s, write_below=ALWAYS), 0, 8) == RAN
    assert faults(s) == {SPURIOUS: 1}
    assert violations(s) == ({} if shared else {"stale-translation": 1})


# What needs another thread: compiled code runs without the GIL.


def test_parked_until_the_hypervisor_lets_go() -> None:
    s = mapped()
    s.control[PARK] = 1
    with running(s, 8) as result:
        wait_until(lambda: s.procs[0, PARKED])
        assert s.states[0, STATE] == State.PARKED
        beats = int(s.states[0, HEARTBEAT])
        wait_until(lambda: s.states[0, HEARTBEAT] > beats)  # it shows the watchdog that it lives
        assert counters(s)["accesses"] == 0
        s.control[PARK] = 0
    assert result == [RAN]
    assert s.procs[0, PARKED] == 0
    assert s.states[0, STATE] == State.GUEST
    assert counters(s)["accesses"] == 8 * CHUNK


def test_the_end_of_the_run_reaches_a_parked_vcpu() -> None:
    s = mapped()
    s.control[PARK] = 1
    with running(s, 8) as result:
        wait_until(lambda: s.procs[0, PARKED])
        s.control[STOP] = 1
    assert result == [STOPPED]
    assert s.procs[0, PARKED] == 0


def test_tlb_and_walk_cache_hold_what_was_walked() -> None:
    s = mapped(ALL)
    cpu = caught_up(s, cpu_before(s, 0))
    assert run(s, cpu, workload(s), 0, 1) == RAN
    for page in range(CHUNK):
        gfn = s.geo.base_gfn + page
        assert lookup(cpu, s.geo.index_bits, gfn, sizes_held(cpu)) == page << 2 | RW
    assert lookup(cpu, s.geo.index_bits, s.geo.base_gfn + CHUNK, sizes_held(cpu)) == MISS
    assert list(cpu.live) == [0, 0, 0, CHUNK]
    index, level = find(s, s.geo.base_gfn, 3)
    descriptor, ended, first = walk(s, cpu, s.geo.base_gfn + 1)
    assert (descriptor, ended) == (s.tables[index + 1], level)
    assert first == 3, "the walk cache holds the table"
    assert len(naive_tree(s).leaves) == 1024


@pytest.mark.skipif(not JIT_DISABLED, reason="compiled code calls what it was compiled with")
@pytest.mark.parametrize("warm", [False, True])
def test_a_store_that_another_vcpu_overtook_is_redone(monkeypatch: pytest.MonkeyPatch, warm: bool) -> None:
    """On the long way (a walk) and on the short one (a TLB hit): the other's value is never overwritten unseen."""
    s = small_machine(blocks=1)
    assert split_block(s, 0, ALL) == DONE
    cpu = caught_up(s, new_cpu())
    work = Workload(int(Pattern.STRIDED), 128, 1, 0.99, 1, 4096)
    if warm:
        assert run(s, cpu, work, 0, 1) == RAN
    before = s.counters.sum(axis=(0, 1))
    calls, failed = 0, 0

    def overtaken(cells: Any, frame: int, expected: int, value: int) -> bool:
        nonlocal calls, failed
        calls += 1
        if calls % 3 == 0:
            cells[frame] = counted_up(int(cells[frame]))  # what another vCPU has just written
        done = take_it(cells, frame, expected, value)
        failed += not done
        return bool(done)

    take_it: Any = vars(vcpu)["compare_exchange"]
    with monkeypatch.context() as patch:
        patch.setattr(vcpu, "compare_exchange", overtaken)
        assert run(s, cpu, work, 0, 1) == RAN
    after = s.counters.sum(axis=(0, 1)) - before
    assert failed == calls // 3 > 40
    assert calls - failed == 128 == after[C_WRITES], "each write succeeded once"
    assert (s.cells & VALUE_MASK).sum() == calls - failed + failed + 128 * warm, "and no other's was lost"
    assert violations(s) == {}
