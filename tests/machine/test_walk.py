"""The vCPU's walk and mmu_lock holders' `find`, against a walk by physical addresses over random tables."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from machines import SMALL, naive_walk, small_machine, table_page

from stress.arch.descriptors import POISON, TYPE
from stress.arch.geometry import KIB, MIB
from stress.kernels.descriptor import broken, entry_index, leaf_descriptor, table_descriptor
from stress.kernels.entries import find, page_of
from stress.kernels.pool import allocate_table
from stress.kernels.tlb import CACHED, EMPTY, Cpu, new_cpu
from stress.kernels.walk import cache_walk, walk
from stress.shm.layout import Geo, Machine

#: (granule, block size, IPA bits): start levels 0 to 2, with and without concatenated roots.
WALKED = [
    *((*shape.values, 40) for shape in SMALL),
    (4 * KIB, 2 * MIB, 34),
    (4 * KIB, 2 * MIB, 48),
    (16 * KIB, 32 * MIB, 48),
    (64 * KIB, 512 * MIB, 32),
]


def pages_below(geo: Geo, level: int) -> int:
    return 1 << (3 - level) * geo.index_bits


def random_table(s: Machine, random: Random, gfns: list[int]) -> None:
    """Entries of every sort on the ways to ``gfns``, planted one by one."""
    geo = s.geo
    for gfn in gfns:
        page = 0
        for level in range(geo.start_level, 4):
            index = (page << geo.index_bits) + gfn // pages_below(geo, level)
            if level > geo.start_level:
                index = (page << geo.index_bits) + gfn // pages_below(geo, level) % (1 << geo.index_bits)
            word = int(s.tables[index])
            if word == 0:
                word = random_word(s, random, level)
                s.tables[index] = word
            found, at = naive_walk(s, gfn)
            if at == level or found == POISON:
                break
            page = (word & ((1 << 48) - 1)) >> geo.granule_shift
            page -= geo.tables_pfn


def random_word(s: Machine, random: Random, level: int) -> int:
    geo = s.geo
    sort = random.choice(["table"] * 6 + ["leaf", "leaf", "broken", "clean", "poison", "wild"])
    if level == 3 and sort in ("table", "wild"):
        sort = "leaf"
    if sort == "table":
        page = allocate_table(s, level + 1, 0)
        return int(table_descriptor(geo, page)) if page >= 0 else 0
    if sort == "wild":
        beyond = random.choice([-geo.tables_pfn, -1, geo.table_pages, geo.table_pages + 12345])
        return int(table_descriptor(geo, beyond))
    if sort == "leaf":
        return int(leaf_descriptor(geo, random.randrange(8) * pages_below(geo, level), level))
    return {"broken": int(broken(1, level, 3, 9)), "clean": 0, "poison": POISON}[sort]


def random_gfns(s: Machine, random: Random, count: int) -> list[int]:
    """Guest frames anywhere in the IPA space of a 40-bit machine, many of them close to each other."""
    top = s.geo.root_pages << s.geo.index_bits
    anywhere = [random.randrange(top * pages_below(s.geo, s.geo.start_level)) for _ in range(4)]
    near = [s.geo.base_gfn + random.randrange(s.geo.pages) for _ in range(4)]
    return [random.choice(anywhere + near) ^ random.choice([0, 0, 1, 1 << s.geo.index_bits]) for _ in range(count)]


def machine_with_tables(shape: tuple[int, int, int], random: Random) -> tuple[Machine, list[int]]:
    granule, block_size, ipa_bits = shape
    s = small_machine(granule, block_size, blocks=8, ipa_bits=ipa_bits)
    gfns = random_gfns(s, random, 24)
    random_table(s, random, gfns)
    return s, gfns


def run_walk(s: Machine, cpu: Cpu, gfn: int) -> tuple[int, int, int]:
    descriptor, level, first = walk(s, cpu, gfn)
    return int(descriptor), int(level), int(first)


def descriptor_of_a_wild_table(s: Machine, word: int) -> bool:
    """Points to a table that is not in the pool."""
    return TYPE.take(word) == 0b11 and not 0 <= table_page(s.geo, word) < s.geo.table_pages


@pytest.mark.parametrize("shape", WALKED)
def test_walk_and_find_against_the_naive_walk(shape: tuple[int, int, int]) -> None:
    random = Random(7)
    seen: set[tuple[int, str]] = set()
    kinds_found: set[str] = set()
    for _ in range(12):
        s, gfns = machine_with_tables(shape, random)
        for gfn in gfns:
            word, level = naive_walk(s, gfn)
            cpu = new_cpu()
            assert run_walk(s, cpu, gfn) == (word, level, s.geo.start_level)
            kind = "valid" if word & 1 else "poison" if word == POISON else "invalid"
            seen.add((level, kind))
            index, found = find(s, gfn, 3)
            held = int(s.tables[index])
            wild = held != POISON == word
            assert found == level
            assert held == word or (wild and descriptor_of_a_wild_table(s, held)), "a wild pointer ends it, too"
            kinds_found.add("wild" if wild else kind)
            if not wild:
                for deepest in range(s.geo.start_level, level):
                    index, found = find(s, gfn, deepest)
                    assert found == deepest
                    assert int(s.tables[index]) & 3 == 3, "a table on the way"
    start = s.geo.start_level
    assert {level for level, _ in seen} == set(range(start, 4)), "walks ended at every level"
    assert {(3, "valid"), (3, "invalid"), (start, "poison")} <= seen
    assert kinds_found == {"valid", "invalid", "poison", "wild"}


@pytest.mark.parametrize("shape", WALKED)
def test_a_cached_pointer_shortens_the_walk_to_the_same_end(shape: tuple[int, int, int]) -> None:
    random = Random(8)
    shortened = 0
    for _ in range(12):
        s, gfns = machine_with_tables(shape, random)
        cpu = new_cpu()
        for gfn in gfns * 2:
            word, level = naive_walk(s, gfn)
            descriptor, ended, first = run_walk(s, cpu, gfn)
            assert (descriptor, ended) == (word, level)
            assert s.geo.start_level <= first <= level
            shortened += first > s.geo.start_level
            cache_walk(cpu, s.geo.index_bits, gfn, first, level)
            assert run_walk(s, cpu, gfn) == (word, level, level), "from the table that holds the entry"
    assert shortened > 20


@given(st.sampled_from(WALKED), st.integers(0, 1 << 32))
def test_any_cache_contents(shape: tuple[int, int, int], seed: int) -> None:
    """Whatever the walk cache holds, the walk starts at the deepest entry for the address and ends somewhere."""
    random = Random(seed)
    s, gfns = machine_with_tables(shape, random)
    geo, cpu = s.geo, new_cpu()
    cached: dict[tuple[int, int], int] = {}
    for gfn in random.choices(gfns, k=6):
        first = random.randrange(geo.start_level, 3)
        deepest = random.randrange(first + 1, 4)
        for level in range(first + 1, deepest + 1):
            cpu.path[level] = random.randrange(geo.table_pages)
            cached[level, gfn // pages_below(geo, level - 1)] = int(cpu.path[level])
        cache_walk(cpu, geo.index_bits, gfn, first, deepest)
    kept = {(at // CACHED, int(key)): int(cpu.walk_page[at]) for at, key in enumerate(cpu.walk_key) if key != EMPTY}
    assert kept.items() <= cached.items(), "what is cached is what was cached last"
    for gfn in gfns:
        page, start = 0, geo.start_level
        for level in range(geo.start_level + 1, 4):
            at = level, gfn // pages_below(geo, level - 1)
            if at in kept:
                page, start = kept[at], level
        word, level = naive_walk(s, gfn, page, start)
        assert run_walk(s, cpu, gfn) == (word, level, start)


@pytest.mark.parametrize("beyond", [-(1 << 20), -1, 0, 12345])
def test_a_wild_pointer_reads_as_poison(beyond: int) -> None:
    s = small_machine()
    index, level = find(s, s.geo.base_gfn, 3)
    page = beyond if beyond < 0 else s.geo.table_pages + beyond
    s.tables[index] = table_descriptor(s.geo, page)
    assert run_walk(s, new_cpu(), s.geo.base_gfn) == (POISON, level, level)
    assert naive_walk(s, s.geo.base_gfn) == (POISON, level)


def test_roots_are_concatenated() -> None:
    """With 40 bits and 4K the root has two pages: the upper half of the IPA space begins in the second."""
    s = small_machine()
    assert s.geo.root_pages == 2
    middle = 1 << (39 - 12)
    assert entry_index(s.geo, 0, 1, middle) == 512
    assert page_of(s, entry_index(s.geo, 0, 1, middle)) == 1
    assert entry_index(s.geo, 0, 1, middle - 1) == 511
    s.tables[512] = leaf_descriptor(s.geo, 0, 1)
    assert run_walk(s, new_cpu(), middle)[0] == s.tables[512]
    assert run_walk(s, new_cpu(), middle - 1)[0] == 0
