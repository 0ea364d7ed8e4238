"""Programs, as the selftests' guests run them: which pages, in which order, written or read, against a naive twin."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count, islice

import numpy as np
import pytest
from guests import counters, cpu_at, faults
from hypothesis import given
from hypothesis import strategies as st
from machines import assert_sound, block_leaf, set_order, small_machine, violations

from stress.kernels.codes import PERMISSION, POPULATION, REBUILT
from stress.kernels.dirty import set_logging
from stress.kernels.pattern import draw_accesses
from stress.kernels.tlb import CHUNK, CPU_LEFT, CPU_PAGE, Cpu
from stress.kernels.vcpu import FINISHED, RAN, run
from stress.kernels.workload import Pattern, Workload, seed_for
from stress.orders import BLOCK_FIRST
from stress.shm.accounts import C_PERMISSION, C_TRANSLATION
from stress.shm.layout import Machine
from stress.shm.words import VALUE_MASK

NONE, READ, WRITE = range(3)  # of the head
PAGES = 1 << 40  # a program knows no end of memory


def program(first: int, group: int, head: int, skip: int, length: int, write_below: int = 0) -> Workload:
    return Workload(int(Pattern.PROGRAM), PAGES, 1, 1.0, 1, write_below, first, group, head, skip, length)


def naive(work: Workload, state: int) -> Iterator[tuple[int, bool]]:
    """(page, write) of one access after the other, for ever."""

    def random_write() -> bool:
        return (state >> 20) % 4096 < work.write_below

    for start in count(work.first, work.group):
        pages = [(start, True)] if work.head else []
        pages += [(start + work.skip + i, False) for i in range(work.run)]
        for page, is_head in pages:
            state = (state * 6364136223846793005 + 1442695040888963407) % (1 << 64)
            yield page, (work.head == WRITE if is_head else random_write())


def drawn(work: Workload, position: int, state: int, length: int) -> tuple[list[tuple[int, bool]], int, int]:
    """The next accesses, and position and random state behind them."""
    upcoming = np.zeros(length, np.int64)
    position, state = draw_accesses(work, upcoming, position, state)
    return [(int(word) >> 1, bool(word & 1)) for word in upcoming], int(position), int(state)


PROGRAMS = st.builds(
    program,
    first=st.integers(0, 1 << 20),
    group=st.integers(1, 600),
    head=st.sampled_from([NONE, READ, WRITE]),
    skip=st.integers(0, 300),
    length=st.integers(1, 300),
    write_below=st.sampled_from([0, 1024, 4096]),
)


@given(PROGRAMS, st.integers(0, 1 << 32), st.lists(st.integers(1, 700), min_size=1, max_size=4))
def test_against_the_naive_program(work: Workload, seed: int, chunks: list[int]) -> None:
    """Drawn in chunks of any size, which need not end with a group."""
    twin = naive(work, seed_for(seed, 0))
    position, state = 0, seed_for(seed, 0)
    for length in chunks:
        accesses, position, state = drawn(work, position, state, length)
        assert accesses == list(islice(twin, length))
    assert position == sum(chunks)


def test_a_run_of_no_pages_is_its_heads() -> None:
    accesses, _, _ = drawn(program(3, 512, WRITE, 0, 0), 0, 1, 4)
    assert accesses == [(3, True), (515, True), (1027, True), (1539, True)]


# The selftest's stages, with blocks of 512 pages (kvm_page_table_test's guest_code).
CREATE = {vcpu: program(0, 512, READ if vcpu % 2 else WRITE, 0, 0) for vcpu in (0, 1)}
UPDATE = program(0, 512, WRITE, 256, 256)
ADJUST = program(0, 512, NONE, 0, 512)


@pytest.mark.parametrize("vcpu", [0, 1])
def test_create_touches_each_block_once(vcpu: int) -> None:
    accesses, _, _ = drawn(CREATE[vcpu], 0, 1, 5)
    assert accesses == [(512 * block, vcpu == 0) for block in range(5)]


def test_update_writes_the_first_page_and_reads_the_upper_half() -> None:
    accesses, _, _ = drawn(UPDATE, 0, 1, 2 * 257)
    expected = []
    for start in (0, 512):
        expected += [(start, True), *((start + 256 + i, False) for i in range(256))]
    assert accesses == expected


def test_adjust_reads_every_page_in_order() -> None:
    accesses, _, _ = drawn(ADJUST, 0, 1, 2000)
    assert accesses == [(page, False) for page in range(2000)]


def stage(s: Machine, cpu: Cpu, work: Workload, accesses: int) -> None:
    """Run a program to its end, and no further."""
    before = counters(s)["accesses"]
    cpu.registers[CPU_PAGE], cpu.registers[CPU_LEFT] = 0, accesses
    assert run(s, cpu, work, 0, 1000) == FINISHED
    assert cpu.registers[CPU_LEFT] == 0
    assert counters(s)["accesses"] == before + accesses


def by_level(s: Machine, first: int) -> list[int]:
    """Faults of one status at each lookup level."""
    return [int(number) for number in s.counters[0].sum(axis=0)[first : first + 4]]


def test_the_selftests_stages_fault_as_on_real_kernels() -> None:
    """A 2 MiB block: 1 fault to create it; with logging 257: the write to the block, and 256 pages; 1 to rebuild it."""
    s = small_machine(blocks=3, vcpu_rebuilds=True)
    set_order(s, BLOCK_FIRST.steps)
    cpu = cpu_at()
    stage(s, cpu, CREATE[0], 3)
    assert assert_sound(s).leaves == [block_leaf(s.geo, block) for block in range(3)]
    assert faults(s) == {POPULATION: 3}
    assert list(np.flatnonzero(s.cells & VALUE_MASK)) == [0, 512, 1024], "vCPU 0 writes"

    assert set_logging(s, s.geo.hypervisor, 1) == 3
    stage(s, cpu, UPDATE, 3 * 257)
    assert faults(s) == {POPULATION: 3 + 3 * 256, PERMISSION: 3}
    assert by_level(s, C_PERMISSION) == [0, 0, 3, 0]
    assert by_level(s, C_TRANSLATION) == [0, 1, 2, 3 * 256]
    mapped = [512 * block + page for block in range(3) for page in (0, *range(256, 512))]
    leaves = assert_sound(s).leaves
    assert [leaf.frame for leaf in leaves] == mapped
    assert [leaf.frame for leaf in leaves if leaf.writable] == [0, 512, 1024], "what was written, and logged"

    assert set_logging(s, s.geo.hypervisor, 0) == 0
    stage(s, cpu, ADJUST, 3 * 512)
    assert faults(s) == {POPULATION: 3 + 3 * 256, PERMISSION: 3, REBUILT: 3}, "the second page of each block"
    assert by_level(s, C_TRANSLATION) == [0, 1, 2, 3 * 256 + 3]
    assert assert_sound(s).leaves == [block_leaf(s.geo, block) for block in range(3)]
    assert violations(s) == {}


def test_a_program_goes_on_where_the_last_call_left_it() -> None:
    s = small_machine()
    cpu = cpu_at()
    cpu.registers[CPU_PAGE], cpu.registers[CPU_LEFT] = 0, 1000
    assert run(s, cpu, ADJUST, 0, 4) == RAN, "it is half through"
    assert cpu.registers[CPU_LEFT] == 1000 - 4 * CHUNK
    assert run(s, cpu, ADJUST, 0, 1000) == FINISHED
    assert counters(s) == {"accesses": 1000, "writes": 0, "hits": 998, "walks": 2, "redone": 0}
    assert run(s, cpu, ADJUST, 0, 1000) == FINISHED, "nothing is left"
    assert counters(s)["accesses"] == 1000
