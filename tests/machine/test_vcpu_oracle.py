"""Each fault of a hypervisor that a vCPU can meet, planted by hand: noticed, and called what it is."""

from __future__ import annotations

import numpy as np
import pytest
from guests import ALWAYS, RW, caught_up, counters, cpu_at, cpu_before, mapped, running, wait_until, workload
from machines import ALL, evidence, fault, small_machine, split_block, violations

from stress.bugs import HARVEST_WITHOUT_TLBI
from stress.kernels.codes import OUTSIDE_MEMORY, POPULATION, WALKED, WRONG_FRAME
from stress.kernels.descriptor import leaf_descriptor
from stress.kernels.dirty import harvest, set_logging
from stress.kernels.entries import find
from stress.kernels.pool import allocate_table, free_table
from stress.kernels.split import DONE
from stress.kernels.tlb import CHUNK, CPU_PAGE, fill
from stress.kernels.tlbi import tlbi_range, tlbi_vmid
from stress.kernels.vcpu import RAN, run
from stress.kernels.walk import cache_walk
from stress.shm.accounts import Kind
from stress.shm.words import NOT_AT_POC, TAG_SHIFT, VALUE_MASK


@pytest.mark.parametrize("share", [None, ALL])
@pytest.mark.parametrize("write_below", [0, ALWAYS])
def test_a_wrong_tag_is_a_stale_translation(share: int | None, write_below: int) -> None:
    s = mapped(share)
    s.cells[77] = wrong = 4711 << TAG_SHIFT | 5
    assert run(s, caught_up(s, cpu_at()), workload(s, write_below=write_below), 0, 16) == RAN
    assert violations(s) == {"stale-translation": 2}, "in either lap"
    piece = evidence(s, Kind.STALE_TRANSLATION)
    assert (piece["gfn"], piece["who"], piece["detail"]) == (s.geo.base_gfn + 77, 0, WRONG_FRAME)
    assert (piece["found"], piece["expected"]) == (wrong, 78 << TAG_SHIFT)
    assert s.cells[77] == wrong, "nothing is written through it"


def test_a_translation_to_another_frame_is_noticed_until_it_is_flushed() -> None:
    s = mapped(ALL)
    cpu = caught_up(s, cpu_before(s, 100))
    fill(cpu, 3, s.geo.index_bits, s.geo.base_gfn + 100, 900 << 2 | RW)
    assert run(s, cpu, workload(s), 0, 1) == RAN
    assert violations(s) == {"stale-translation": 1}
    tlbi_range(s, s.geo.base_gfn + 100, s.geo.base_gfn + 101, 0)
    cpu.registers[CPU_PAGE] = 99
    assert run(s, cpu, workload(s), 0, 1) == RAN
    assert violations(s) == {"stale-translation": 1}


def test_a_cell_of_nobodys_is_noticed() -> None:
    s = mapped()
    s.cells[5] = 0
    assert run(s, cpu_at(), workload(s), 0, 8) == RAN
    assert violations(s) == {"stale-translation": 1}


@pytest.mark.parametrize("write_below", [0, ALWAYS])
def test_memory_that_is_not_at_the_poc(write_below: int) -> None:
    s = mapped(fwb=False, guest_caches=False)
    assert not (s.cells & NOT_AT_POC).any()
    s.cells[600] |= NOT_AT_POC
    assert run(s, cpu_at(), workload(s, write_below=write_below), 0, 8) == RAN
    assert violations(s) == {"not-at-poc": 1}
    assert evidence(s, Kind.NOT_AT_POC)["gfn"] == s.geo.base_gfn + 600


@pytest.mark.parametrize(("fwb", "guest_caches"), [(False, True), (True, False), (True, True)])
def test_a_guest_whose_caches_are_coherent_does_not_mind(fwb: bool, guest_caches: bool) -> None:
    s = mapped(fwb=fwb, guest_caches=guest_caches)
    s.cells[600] |= NOT_AT_POC
    assert run(s, cpu_at(), workload(s, write_below=ALWAYS), 0, 8) == RAN
    assert violations(s) == {}
    assert s.cells[600] & NOT_AT_POC, "a guest store says nothing about the host's"
    assert s.cells[600] & VALUE_MASK


def test_a_page_left_under_a_block_is_a_conflict() -> None:
    s = mapped()
    cpu = cpu_before(s, 100)
    fill(cpu, 3, s.geo.index_bits, s.geo.base_gfn + 7, 7 << 2 | RW)
    fill(cpu, 3, s.geo.index_bits, s.geo.base_gfn + 511, 511 << 2 | RW)
    assert run(s, cpu, workload(s), 0, 8) == RAN
    assert violations(s) == {"tlb-conflict": 1}, "the other block has no page below it"
    piece = evidence(s, Kind.TLB_CONFLICT)
    assert (piece["gfn"], piece["level"], piece["found"]) == (s.geo.base_gfn + 100, 2, 3)


def test_pages_of_another_block_are_no_conflict() -> None:
    s = small_machine()
    assert fault(s, s.geo.base_gfn) == POPULATION
    assert split_block(s, 1, ALL) == DONE
    assert run(s, cpu_at(), workload(s), 0, 32) == RAN
    assert violations(s) == {}
    assert counters(s)["walks"] > 512, "pages and a block were in the TLB together"


def test_a_freed_table_behind_a_cached_pointer() -> None:
    s = mapped()
    cpu = cpu_before(s, 40)
    page = allocate_table(s, 3, 0)
    free_table(s, page, 0, 0)
    cpu.path[3] = page
    cache_walk(cpu, s.geo.index_bits, s.geo.base_gfn, 2, 3)
    assert run(s, cpu, workload(s), 0, 8) == RAN
    assert violations(s) == {"table-use-after-free": 1}, "then the pointer is gone"
    piece = evidence(s, Kind.TABLE_USE_AFTER_FREE)
    assert (piece["gfn"], piece["level"], piece["detail"]) == (s.geo.base_gfn + 40, 3, WALKED)
    assert counters(s)["accesses"] == 8 * CHUNK


def test_a_pointer_out_of_the_pool_counts_as_freed() -> None:
    s = mapped()
    cpu = cpu_before(s, 0)
    page = allocate_table(s, 2, 0)
    index = page << s.geo.index_bits
    slot = (s.geo.base_gfn >> 9) & 511
    s.tables[index + slot] = (s.geo.tables_pfn + s.geo.table_pages) << 12 | 3
    cpu.path[2] = page
    cache_walk(cpu, s.geo.index_bits, s.geo.base_gfn, 1, 2)
    assert run(s, cpu, workload(s), 0, 1) == RAN
    assert violations(s) == {"table-use-after-free": 1}


def test_a_doomed_walk_of_a_freed_table_is_no_violation() -> None:
    """The TLBI has been published: the access is redone before anything of it counts."""
    s = mapped()
    cpu = cpu_before(s, 40)
    page = allocate_table(s, 3, 0)
    cpu.path[3] = page
    cache_walk(cpu, s.geo.index_bits, s.geo.base_gfn, 2, 3)
    tlbi_vmid(s, 0)
    free_table(s, page, 0, 0)
    assert run(s, cpu, workload(s), 0, 8) == RAN
    assert violations(s) == {}
    assert counters(s)["redone"] == 1


def test_a_doomed_conflict_is_no_violation() -> None:
    s = mapped()
    cpu = cpu_before(s, 100)
    fill(cpu, 3, s.geo.index_bits, s.geo.base_gfn + 7, 7 << 2 | RW)
    tlbi_vmid(s, 0)
    assert run(s, cpu, workload(s), 0, 8) == RAN
    assert violations(s) == {}


def test_a_doomed_wrong_tag_is_no_violation() -> None:
    s = mapped(ALL)
    cpu = caught_up(s, cpu_before(s, 100))
    fill(cpu, 3, s.geo.index_bits, s.geo.base_gfn + 100, 900 << 2 | RW)
    tlbi_range(s, s.geo.base_gfn + 100, s.geo.base_gfn + 101, 0)
    before = s.cells.copy()
    assert run(s, cpu, workload(s), 0, 8) == RAN
    assert violations(s) == {}
    assert (s.cells == before).all()


def test_a_leaf_that_maps_no_guest_memory_is_stale_until_mended() -> None:
    s = mapped()
    index, _ = find(s, s.geo.base_gfn + 512, 2)
    good = int(s.tables[index])
    s.tables[index] = leaf_descriptor(s.geo, s.geo.frames, 2)
    with running(s, 8) as result:
        wait_until(lambda: violations(s))
        s.tables[index] = good
    assert result == [RAN]
    assert set(violations(s)) == {"stale-translation"}
    piece = evidence(s, Kind.STALE_TRANSLATION)
    assert (piece["gfn"], piece["detail"]) == (s.geo.base_gfn + 512, OUTSIDE_MEMORY)
    assert counters(s)["accesses"] == 8 * CHUNK


@pytest.mark.parametrize("bug", [HARVEST_WITHOUT_TLBI, 0])
def test_a_write_through_what_a_harvest_protected_is_lost(bug: int) -> None:
    """At the write, whatever is copied or compared later; and not while nobody logs."""
    s = mapped(inject=bug)
    cpu = cpu_at()
    found = np.zeros_like(s.dirty)
    assert run(s, cpu, workload(s, write_below=ALWAYS), 0, 1) == RAN
    set_logging(s, s.geo.hypervisor, 1)
    cpu = caught_up(s, cpu_at())
    assert run(s, cpu, workload(s, write_below=ALWAYS), 0, 1) == RAN
    assert violations(s) == {}
    harvest(s, s.geo.hypervisor, found)
    cpu.registers[CPU_PAGE] = 0
    assert run(s, cpu, workload(s, write_below=ALWAYS), 0, 1) == RAN
    lost = violations(s).get("lost-dirty", 0)
    assert (lost > 0) == bool(bug)
    set_logging(s, s.geo.hypervisor, 0)
    assert run(s, cpu, workload(s, write_below=ALWAYS), 0, 4) == RAN
    assert violations(s).get("lost-dirty", 0) == lost
