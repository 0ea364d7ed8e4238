"""The software TLB against a dictionary of unlimited size, and how it catches up with the TLBI ring."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from machines import NaiveTlb, small_machine

from stress.kernels import tlb
from stress.kernels.tlb import (
    CPU_NUMBER,
    EMPTY,
    MISS,
    WAYS,
    Cpu,
    catch_up,
    fill,
    flush_all,
    flush_range,
    new_cpu,
    overlapping,
)
from stress.kernels.tlbi import publish
from stress.kernels.walk import cache_walk
from stress.shm.layout import Rings
from stress.shm.words import SEQUENCE, TLBI_LOCAL, TLBI_NUMBER

TLBI_ROWS = Rings().tlbi_rows

BITS = 9
SPAN = 1 << 2 * BITS  # pages of a level-1 block
RW = 3


def lookup(cpu: Cpu, gfn: int, bits: int = BITS) -> int:
    return int(tlb.lookup(cpu, bits, gfn, tlb.sizes_held(cpu)))


def held(cpu: Cpu) -> list[tuple[int, int]]:
    """(level, key) of every entry."""
    return [(at // tlb.PER_LEVEL, int(cpu.key[at])) for at in map(int, np.flatnonzero(cpu.key != EMPTY))]


def check(cpu: Cpu) -> None:
    """What must always hold of the entries."""
    entries = held(cpu)
    assert len(set(entries)) == len(entries), "no entry is held twice"
    assert all(0 < level <= 3 and key >= 0 for level, key in entries)
    levels = Counter(level for level, _ in entries)
    assert list(cpu.live) == [levels[level] for level in range(4)]
    sets = Counter((level, key % tlb.SETS) for level, key in entries)
    assert max(sets.values(), default=0) <= WAYS
    for level in range(1, 4):
        assert (int(tlb.sizes_held(cpu)) >> level & 1) == (levels[level] > 0)


def cached_tables(cpu: Cpu) -> set[tuple[int, int]]:
    """(level, key) of every table pointer in the walk cache."""
    return {(at // tlb.CACHED, int(cpu.walk_key[at])) for at in map(int, np.flatnonzero(cpu.walk_key != EMPTY))}


def test_a_new_cpu_holds_nothing() -> None:
    cpu = new_cpu()
    check(cpu)
    assert held(cpu) == []
    assert cached_tables(cpu) == set()
    assert lookup(cpu, 0) == MISS
    assert lookup(cpu, SPAN) == MISS


# Few sets and few keys, so that entries meet.
GFNS = st.one_of(
    st.integers(0, 12),
    st.builds(lambda set_, n: set_ + n * tlb.SETS, st.integers(0, 2), st.integers(0, 8)),
    st.builds(lambda n, low: n * (1 << BITS) + low, st.integers(0, 6), st.integers(0, 600)),
    st.integers(0, 4 * SPAN - 1),
)
ACTIONS = st.one_of(
    st.tuples(st.just("fill"), GFNS, st.sampled_from([1, 2, 2, 3, 3, 3]), st.integers(1, RW)),
    st.tuples(st.just("flush_range"), GFNS, st.integers(1, 700), st.just(0)),
    st.tuples(st.just("flush_page"), GFNS, st.just(1), st.just(0)),
    st.tuples(st.just("flush_all"), st.just(0), st.just(0), st.just(0)),
)


def play(actions: Iterable[tuple[str, int, int, int]], probes: list[int], bits: int) -> Counter[str]:
    """Do the same to the TLB and to the dictionary and compare; what happened, counted."""
    cpu, twin = new_cpu(), NaiveTlb(bits)
    happened: Counter[str] = Counter()
    for action, gfn, number, permissions in actions:
        if action == "fill":
            if lookup(cpu, gfn, bits) != MISS:
                continue  # only what missed is ever filled
            pages = 1 << (3 - number) * bits
            value = (gfn // pages * pages + number * 4 * SPAN) << 2 | permissions
            fill(cpu, number, bits, gfn, value + (gfn % pages << 2))
            twin.fill(number, gfn, value)
            assert lookup(cpu, gfn, bits) == twin.translations(gfn)[number], "what was filled hits"
        elif action == "flush_all":
            flush_all(cpu)
            twin.flush_all()
            assert held(cpu) == []
        else:
            flush_range(cpu, bits, gfn, gfn + number)
            twin.flush_range(gfn, gfn + number)
            for inside in (gfn, gfn + number // 2, gfn + number - 1):
                assert lookup(cpu, inside, bits) == MISS
        check(cpu)
        entries = set(held(cpu))
        assert entries <= set(twin.entries), "nothing is held that was not filled, or was flushed"
        for probe in (*probes, gfn):
            found, possible = lookup(cpu, probe, bits), twin.translations(probe)
            if found != MISS:
                happened["hit"] += 1
                assert found in possible.values()
            else:
                assert not {(level, probe >> (3 - level) * bits) for level in possible} & entries
        happened[action] += 1
        happened["evicted"] += len(entries) < len(twin.entries)
        happened["several sizes"] += sum(cpu.live > 0) > 1
    return happened


@given(st.lists(ACTIONS, max_size=60), st.lists(GFNS, min_size=1, max_size=8), st.sampled_from([9, 11, 13]))
def test_against_a_dictionary(actions: list[tuple[str, int, int, int]], probes: list[int], bits: int) -> None:
    play(actions, probes, bits)


def test_against_a_dictionary_for_long() -> None:
    """So many entries that sets overflow, and every kind of action among them."""
    random = Random(1)
    pages = [set_ + n * tlb.SETS for set_ in range(3) for n in range(10)]
    pages += [random.randrange(4 * SPAN) for _ in range(10)]
    names = ["fill"] * 40 + ["flush_page"] * 4 + ["flush_range"] * 2 + ["flush_all"]

    def action(name: str) -> tuple[str, int, int, int]:
        number = {"fill": random.choice([1, 2, 3, 3, 3, 3]), "flush_range": random.randrange(1, 700)}.get(name, 1)
        return name, random.choice(pages), number, random.randrange(1, 4)

    happened = play((action(random.choice(names)) for _ in range(800)), pages[:6], BITS)
    assert set(happened) == {*names, "hit", "evicted", "several sizes"}
    assert all(count >= 5 for count in happened.values()), happened


def test_a_set_holds_four_and_replaces_in_turn() -> None:
    cpu = new_cpu()
    pages = [5 + n * tlb.SETS for n in range(6)]
    for page in pages:
        fill(cpu, 3, BITS, page, page << 2 | RW)
    assert [lookup(cpu, page) != MISS for page in pages] == [False, False, True, True, True, True]
    assert cpu.live[3] == 4


def test_a_block_translates_each_of_its_pages() -> None:
    cpu = new_cpu()
    fill(cpu, 2, BITS, 3 * 512 + 77, (9 * 512 + 77) << 2 | 1)
    assert lookup(cpu, 3 * 512) == (9 * 512) << 2 | 1
    assert lookup(cpu, 3 * 512 + 511) == (9 * 512 + 511) << 2 | 1
    assert lookup(cpu, 4 * 512) == MISS
    assert lookup(cpu, 3 * 512 - 1) == MISS


@given(st.integers(0, 4000), st.integers(1, 1500), st.sampled_from([9, 11, 13]))
def test_a_range_is_flushed_and_nothing_beside_it(start: int, count: int, bits: int) -> None:
    cpu, twin = new_cpu(), NaiveTlb(bits)
    pages = 1 << bits
    beside = (start - 1, start, start + count - 1, start + count)
    for level, gfns in ((3, beside), (2, (gfn ^ pages for gfn in beside))):
        for gfn in gfns:
            if gfn >= 0 and lookup(cpu, gfn, bits) == MISS:
                fill(cpu, level, bits, gfn, gfn << 2 | RW)
                twin.fill(level, gfn, RW)
    assert set(held(cpu)) == set(twin.entries), "too few to evict each other"
    flush_range(cpu, bits, start, start + count)
    twin.flush_range(start, start + count)
    assert set(held(cpu)) == set(twin.entries)


@pytest.mark.parametrize(
    ("held_level", "held_gfn", "new_level", "new_gfn", "found"),
    [
        (3, 0, 2, 511, 3),
        (3, 511, 2, 0, 3),
        (3, 512, 2, 511, -1),
        (3, 511, 2, 512, -1),
        (3, SPAN - 1, 1, 0, 3),
        (2, SPAN - 1, 1, 0, 2),
        (2, SPAN, 1, 0, -1),
        (3, 5, 3, 5, -1),  # the same size is no conflict
        (2, 0, 2, 0, -1),
        (1, 0, 2, 0, -1),  # a larger one would have hit
        (1, 0, 3, 0, -1),
    ],
)
def test_overlapping(held_level: int, held_gfn: int, new_level: int, new_gfn: int, found: int) -> None:
    cpu = new_cpu()
    assert overlapping(cpu, new_level, BITS, new_gfn) == -1
    fill(cpu, held_level, BITS, held_gfn, held_gfn << 2 | RW)
    assert overlapping(cpu, new_level, BITS, new_gfn) == found


@given(st.lists(st.tuples(GFNS, st.sampled_from([2, 3])), max_size=10), GFNS, st.sampled_from([1, 2]))
def test_overlapping_against_a_search(fills: list[tuple[int, int]], gfn: int, level: int) -> None:
    cpu = new_cpu()
    for page, size in fills:
        if lookup(cpu, page) == MISS:
            fill(cpu, size, BITS, page, page << 2 | RW)
    new = gfn >> (3 - level) * BITS
    smaller = [entry for entry in held(cpu) if entry[0] > level]
    inside = {size for size, key in smaller if key >> (size - level) * BITS == new}
    assert overlapping(cpu, level, BITS, gfn) == min(inside, default=-1)


def cache_tables(cpu: Cpu, gfn: int, first: int = 0) -> None:
    """Cache the pointers to the tables of every level below ``first`` on the way to ``gfn``."""
    cpu.path[:] = [0, 11, 12, 13]
    cache_walk(cpu, BITS, gfn, first, 3)


@given(GFNS, GFNS, st.integers(1, 700))
def test_flushing_a_range_forgets_the_tables_on_the_way_to_it(gfn: int, start: int, count: int) -> None:
    cpu = new_cpu()
    cache_tables(cpu, gfn)
    assert cached_tables(cpu) == {(level, gfn >> (4 - level) * BITS) for level in (1, 2, 3)}
    flush_range(cpu, BITS, start, start + count)
    kept = set()
    for level in (1, 2, 3):
        pages = 1 << (4 - level) * BITS  # that the table covers
        first = gfn // pages * pages
        if not (first < start + count and start < first + pages):
            kept.add((level, gfn // pages))
    assert cached_tables(cpu) == kept


def test_flushing_everything_forgets_all_tables() -> None:
    cpu = new_cpu()
    cache_tables(cpu, 12345)
    flush_all(cpu)
    assert cached_tables(cpu) == set()


FILLED = [(3, 0), (3, 700), (2, 5 * 512), (1, 2 * SPAN)]


def filled_cpu() -> Cpu:
    """Entries and table pointers that tell what was flushed."""
    cpu = new_cpu()
    for level, gfn in FILLED:
        fill(cpu, level, BITS, gfn, gfn << 2 | RW)
    cache_tables(cpu, 3 * 512 * SPAN)
    return cpu


def hits(cpu: Cpu) -> list[bool]:
    return [lookup(cpu, gfn) != MISS for _, gfn in FILLED]


def test_nothing_new_flushes_nothing() -> None:
    s = small_machine()
    for n in range(5):
        publish(s, n, n + 1)
    cpu = filled_cpu()
    assert catch_up(s, cpu, 5) == 5
    assert hits(cpu) == [True] * 4
    assert len(cached_tables(cpu)) == 3


def test_catching_up_applies_each_range() -> None:
    s = small_machine()
    publish(s, 0, 1)  # seen already
    publish(s, 700, 701)
    publish(s, 5 * 512 + 3, 5 * 512 + 4)
    cpu = filled_cpu()
    assert catch_up(s, cpu, 1) == 3
    assert hits(cpu) == [True, False, False, True]
    assert len(cached_tables(cpu)) == 3


@pytest.mark.parametrize("vcpu", [0, 1])
def test_a_local_one_reaches_one_vcpu(vcpu: int) -> None:
    s = small_machine(vcpus=2)
    publish(s, 700, 701 | 2 << TLBI_LOCAL)
    cpu = filled_cpu()
    cpu.registers[CPU_NUMBER] = vcpu
    assert catch_up(s, cpu, 0) == 1
    assert (hits(cpu) == [True] * 4) is (vcpu == 0)


@pytest.mark.parametrize("behind", [1, 2, TLBI_ROWS - 1])
def test_a_vmid_wide_one_flushes_all(behind: int) -> None:
    s = small_machine()
    for n in range(behind):
        publish(s, *((0, 0) if n == 0 else (10**6, 10**6 + 1)))
    cpu = filled_cpu()
    assert catch_up(s, cpu, 0) == behind
    assert hits(cpu) == [False] * 4
    assert cached_tables(cpu) == set()


@pytest.mark.parametrize(("published", "flushed"), [(TLBI_ROWS - 1, False), (TLBI_ROWS, True), (5 * TLBI_ROWS, True)])
def test_who_fell_behind_the_ring_flushes_all(published: int, flushed: bool) -> None:
    s = small_machine()
    for _ in range(published):
        publish(s, 10**6, 10**6 + 1)
    cpu = filled_cpu()
    assert catch_up(s, cpu, 0) == published
    assert hits(cpu) == [not flushed] * 4


@pytest.mark.parametrize("older", [0, 3])
def test_a_row_that_is_not_written_yet_flushes_all(older: int) -> None:
    """`publish` moves the number first: whoever looks in between must not take the row of an earlier round."""
    s = small_machine()
    for _ in range(older * TLBI_ROWS):
        publish(s, 10**6, 10**6 + 1)
    s.control[SEQUENCE] += 1  # half of a publish
    number = int(s.control[SEQUENCE])
    assert s.tlbi[number % TLBI_ROWS, TLBI_NUMBER] != number
    cpu = filled_cpu()
    assert catch_up(s, cpu, number - 1) == number
    assert hits(cpu) == [False] * 4


RINGING = small_machine()  # one for all examples: its sequence number just goes on


@given(
    st.lists(st.one_of(st.tuples(GFNS, st.integers(1, 700)), st.just((0, 0))), min_size=1, max_size=2 * TLBI_ROWS),
    st.data(),
)
def test_catching_up_leaves_nothing_that_was_invalidated(ranges: list[tuple[int, int]], data: st.DataObject) -> None:
    s = RINGING
    base = int(s.control[SEQUENCE])
    for start, count in ranges:
        publish(s, start, start + count)
    seen = base + data.draw(st.integers(0, len(ranges)))
    cpu = filled_cpu()
    assert catch_up(s, cpu, seen) == base + len(ranges)
    check(cpu)
    twin = NaiveTlb(BITS)
    for level, gfn in FILLED:
        twin.fill(level, gfn, gfn << 2 | RW)
    for start, count in ranges[seen - base :]:
        if count:
            twin.flush_range(start, start + count)
        else:
            twin.flush_all()
    assert set(held(cpu)) <= set(twin.entries)
    if base + len(ranges) - seen < TLBI_ROWS:
        assert set(held(cpu)) == set(twin.entries), "no more is flushed than was asked"
