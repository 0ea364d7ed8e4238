"""Guest memory in the configuration: what backing, block size, granule, bytes, offset and memslots allow together."""

from __future__ import annotations

import re
from itertools import product
from typing import Any

import pytest

from stress.arch.geometry import BLOCK_SIZES, MEMSLOT_BASE
from stress.config import Backing, ConfigError, RunConfig, Scenario, block_sizes, from_sources
from stress.units import format_size

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


def problem(options: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        from_sources(None, options)
    (only,) = caught.value.problems
    return only


# -- blocks and what backs them -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("granule", "size"),
    [(granule, size) for granule, sizes in BLOCK_SIZES.items() for size in sizes.values()],
)
def test_every_block_kvm_has_is_possible(granule: int, size: int) -> None:
    config = from_sources(None, {"granule": format_size(granule), "block-size": format_size(size)})
    assert config.geometry.level_size(config.block_level) == size
    assert from_sources(None, {"granule": granule}).block_size == max(BLOCK_SIZES[granule].values())


def test_small_ipa_spaces_have_no_block_at_level_1() -> None:
    assert block_sizes(4 * KIB, 40) == (GIB, 2 * MIB)
    assert block_sizes(4 * KIB, 33) == (2 * MIB,)
    config = from_sources(None, {"ipa-bits": 33})
    assert (config.block_size, config.backing) == (2 * MIB, Backing.HUGETLB_2M)


@pytest.mark.parametrize(
    ("options", "backing", "block_size"),
    [
        ({}, "hugetlb-1g", GIB),
        ({"block-size": "1G"}, "hugetlb-1g", GIB),
        ({"block-size": "2M"}, "hugetlb-2m", 2 * MIB),
        ({"granule": "16K"}, "thp", 32 * MIB),
        ({"granule": "64K"}, "thp", 512 * MIB),
        ({"granule": "64K", "block-size": "512M"}, "thp", 512 * MIB),
        ({"backing": "hugetlb-1g"}, "hugetlb-1g", GIB),
        ({"backing": "hugetlb-2m"}, "hugetlb-2m", 2 * MIB),
        ({"backing": "thp"}, "thp", 2 * MIB),
        ({"backing": "thp", "block-size": "2M"}, "thp", 2 * MIB),
        ({"backing": "thp", "granule": "16K"}, "thp", 32 * MIB),
        ({"backing": "anonymous", "scenario": "migration"}, "anonymous", 2 * MIB),
        ({"backing": "anonymous", "scenario": "migration", "granule": "64K"}, "anonymous", 512 * MIB),
        ({"scenario": "thp"}, "thp", 2 * MIB),
        ({"scenario": "thp", "granule": "16K"}, "thp", 32 * MIB),
        ({"scenario": "dirty-log-perf"}, "hugetlb-1g", GIB),
        ({"backing": "anonymous_thp"}, "thp", 2 * MIB),
        ({"backing": "anonymous_hugetlb_2mb"}, "hugetlb-2m", 2 * MIB),
        ({"backing": "anonymous_hugetlb_1gb"}, "hugetlb-1g", GIB),
        ({"backing": "anonymous_hugetlb_32mb", "granule": "16K"}, "hugetlb-32m", 32 * MIB),
        ({"backing": "anonymous_hugetlb_512mb", "granule": "64K"}, "hugetlb-512m", 512 * MIB),
    ],
)
def test_backing_and_block_size_follow_from_each_other(options: dict[str, Any], backing: str, block_size: int) -> None:
    config = from_sources(None, options)
    assert (config.backing, config.block_size) == (backing, block_size)
    assert config.memory == 4 * block_size


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"granule": "64K", "block-size": "1G"}, "--block-size: KVM has no 1G block with the 64K granule.*use 512M"),
        ({"block-size": "32M"}, "--block-size: KVM has no 32M block with the 4K granule.*use 1G or 2M"),
        ({"block-size": "4K"}, "--block-size: KVM has no 4K block"),
        ({"block-size": "3000"}, "--block-size: 3000 bytes do not divide into 4K pages; use 1G or 2M"),
        ({"block-size": "0"}, "--block-size: KVM has no 0 block"),
        ({"granule": "8K"}, "--granule: no granule has 8192 bytes; use 4K, 16K or 64K"),
        ({"ipa-bits": 33, "block-size": "1G"}, "--block-size: KVM has no 1G block.*33 bits of IPA; use 2M"),
        ({"backing": "shmem"}, "--backing: unknown backing 'shmem'; use anonymous, thp, hugetlb-2m, "),
        (
            {"backing": "hugetlb-32m"},
            r"--backing: hugetlb-32m \(anonymous_hugetlb_32mb\) needs the 16K granule, not 4K; "
            r"use --granule 16K, or thp \(2M blocks\)",
        ),
        (
            {"backing": "anonymous_hugetlb_512mb", "granule": "16K"},
            r"--backing: hugetlb-512m \(anonymous_hugetlb_512mb\) needs the 64K granule, not 16K; use --granule 64K",
        ),
        ({"backing": 7}, "--backing: unknown backing 7"),
        ({"backing": "thp", "block-size": "1G"}, "--backing: thp means blocks of 2M, not of 1G; leave out"),
        ({"backing": "hugetlb-2m", "block-size": "1G"}, "--backing: hugetlb-2m means blocks of 2M, not of 1G"),
        ({"backing": "hugetlb-2m", "granule": "16K"}, r"--backing: hugetlb-2m .* needs the 4K granule.*\(32M blocks\)"),
        ({"backing": "hugetlb-1g", "ipa-bits": 33}, "--backing: KVM has no 1G block with 33 bits of IPA; use huge"),
        ({"backing": "anonymous"}, "--backing: anonymous memory is mapped as pages, so there is nothing to rebuild"),
        ({"scenario": "thp", "backing": "hugetlb-2m"}, "--backing: scenario thp is about transparent huge pages"),
        ({"scenario": "thp", "block-size": "1G"}, "--block-size: a transparent huge page has 2M, not 1G"),
    ],
)
def test_blocks_and_backings_that_do_not_fit(options: dict[str, Any], words: str) -> None:
    assert re.match(words, problem(options))


def may_be(scenario: Scenario, granule: int, backing: str | None, block_size: int | None) -> bool:
    """Whether a configuration makes sense, said the slow way: by what backs what."""
    level2 = BLOCK_SIZES[granule][2]
    pages = {4 * KIB: {"hugetlb-1g": GIB, "hugetlb-2m": 2 * MIB}, 16 * KIB: {"hugetlb-32m": 32 * MIB}}.get(
        granule, {"hugetlb-512m": 512 * MIB}
    ) | {"thp": level2, "anonymous": level2}
    if block_size is not None and block_size not in BLOCK_SIZES[granule].values():
        return False
    if scenario is Scenario.THP:
        return backing in (None, "thp") and block_size in (None, level2)
    if backing is None:
        return True
    if backing not in pages:
        return False
    if backing == "anonymous" and scenario is Scenario.REBUILD:
        return False
    return block_size in (None, pages[backing])


def test_the_whole_table_of_backings_against_a_naive_twin() -> None:
    seen = {True: 0, False: 0}
    backings, sizes = (None, *Backing), (None, 2 * MIB, 32 * MIB, 512 * MIB, GIB)
    for scenario, granule, backing, size in product(Scenario, BLOCK_SIZES, backings, sizes):
        expected = may_be(scenario, granule, backing, size)
        options = {"scenario": scenario, "granule": granule, "backing": backing, "block-size": size}
        try:
            config = from_sources(None, options)
        except ConfigError:
            assert not expected, options
        else:
            assert expected, options
            assert size in (None, config.block_size)
            assert backing in (None, config.backing)
            assert config.block_size in block_sizes(granule, config.ipa_bits)
        seen[expected] += 1
    assert sum(seen.values()) == 5 * 3 * 7 * 5
    assert min(seen.values()) > 50


# -- how much, and where --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "memory", "blocks"),
    [
        ({"blocks": 3}, 3 * GIB, 3),
        ({"memory": "3G"}, 3 * GIB, 3),
        ({"memory": "3.5G"}, 3 * GIB + 512 * MIB, 3),  # the rest is mapped as pages
        ({"memory": "10M", "block-size": "2M"}, 10 * MIB, 5),
        ({"memory": "12K", "scenario": "migration"}, 12 * KIB, 0),
        ({"memory": 5 * GIB}, 5 * GIB, 5),
        ({"memory": "0x40000000"}, GIB, 1),
        ({"phys-offset": "1022G"}, 2 * GIB, 2),  # no room for the usual four
    ],
)
def test_memory_is_in_bytes_or_in_blocks(options: dict[str, Any], memory: int, blocks: int) -> None:
    config = from_sources(None, options)
    assert (config.memory, config.blocks) == (memory, blocks)
    assert config.pages == memory // config.granule
    assert config.to_json()["memory_bytes"] == memory


def test_in_dirty_log_perf_memory_is_that_of_each_vcpu() -> None:
    """As the selftest's -b: -v 4 -b 64M are 256 MiB, which end at 0x50000000; all of it is written."""
    config = from_sources(None, {"scenario": "dirty-log-perf", "vcpus": 4, "memory": "64M", "backing": "thp"})
    assert config.to_json()["memory_bytes"] == 256 * MIB
    assert (config.phys_offset + config.memory, config.blocks) == (0x50000000, 128)
    assert config.write_fraction == 1
    assert from_sources(None, {"scenario": "dirty-log-perf", "vcpus": 2, "blocks": 3}).memory == 3 * GIB
    # Each vCPU's part is a page, and there are more memslots than parts.
    assert (
        from_sources(
            None, {"scenario": "dirty-log-perf", "vcpus": 4, "memory": "4K", "memslots": 4, "backing": "anonymous"}
        ).memory
        == 16 * KIB
    )


def test_memory_may_fill_the_ipa_space_to_the_last() -> None:
    for options in ({"blocks": 1023}, {"memory": "1023G"}):
        config = from_sources(None, options)
        assert config.phys_offset == MEMSLOT_BASE
        assert config.phys_offset + config.memory == 1 << config.ipa_bits


def test_a_memslot_may_start_anywhere_a_page_may() -> None:
    assert from_sources(None, {"phys-offset": 0}).phys_offset == 0
    for scenario in ("migration", "kvm-page-table-test", "dirty-log-perf"):
        options = {"scenario": scenario, "phys-offset": "0x40001000"}
        assert from_sources(None, options).phys_offset == GIB + 4 * KIB


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"blocks": 1024}, "--blocks: 1024 blocks of 1G do not fit above 1G in 40 bits of IPA; use at most 1023"),
        ({"blocks": 3, "phys-offset": "1022G"}, "--blocks: 3 blocks of 1G do not fit above 1022G.*use at most 2"),
        ({"blocks": 3, "memory": "3G"}, "--blocks: given together with memory; give one of them"),
        ({"memory": "1T"}, "--memory: 1T do not fit above 1G in 40 bits of IPA; use at most 1023G"),
        (
            {"memory": "512G", "vcpus": 2, "scenario": "dirty-log-perf"},
            "--memory: 2 times 512G do not fit above 1G in 40 bits of IPA; use at most 523776M",
        ),
        ({"memory": "5000"}, "--memory: 5000 bytes do not divide into 4K pages"),
        ({"memory": "0"}, "--memory: must be more than 0, not '0'"),
        ({"memory": "lots"}, "--memory: 'lots' is not a size"),
        ({"memory": "0xfg"}, "--memory: '0xfg' is not a size"),
        ({"memory": "512M"}, "--memory: 512M have no 1G block to rebuild"),
        ({"memory": "5M", "scenario": "thp"}, "--memory: scenario thp needs whole blocks of 2M, not 5M"),
        ({"phys-offset": "0x40001001", "scenario": "migration"}, "--phys-offset: 0x40001001 is not a multiple of the"),
        ({"phys-offset": "0x40001000"}, "--phys-offset: .* not a multiple of the 1G block.*scenario rebuild"),
        ({"phys-offset": "1025M", "scenario": "thp"}, "--phys-offset: .* not a multiple of the 2M block.*scenario thp"),
        ({"phys-offset": "1T"}, "--phys-offset: not one block of 1G fits above .*use at most 0xffc0000000"),
        ({"phys-offset": -4096}, "--phys-offset: must be at least 0, not -4096"),
        ({"memslots": 2}, "--memslots: scenario rebuild has one memslot; use scenario migration, kvm-page"),
        ({"memslots": 2, "scenario": "thp"}, "--memslots: scenario thp has one memslot"),
        ({"memslots": 9, "scenario": "migration"}, "--memslots: must be at most 8, not 9"),
        ({"memslots": 0}, "--memslots: must be at least 1, not 0"),
        ({"memslots": 5, "scenario": "migration", "memory": "16K"}, "--memslots: 5 memslots need a page each"),
    ],
)
def test_memory_that_does_not_fit(options: dict[str, Any], words: str) -> None:
    assert re.match(words, problem(options))


@pytest.mark.parametrize("scenario", ["migration", "kvm-page-table-test", "dirty-log-perf"])
def test_memory_may_be_cut_into_memslots(scenario: str) -> None:
    assert from_sources(None, {"scenario": scenario, "memslots": 8}).memslots == 8


def test_one_wrong_key_hides_no_problem_of_another() -> None:
    with pytest.raises(ConfigError) as caught:
        from_sources(None, {"vcpus": 0, "orders": [], "blocks": 9999, "phys-offset": "5", "memslots": 3})
    found = [line.partition(":")[0] for line in caught.value.problems]
    assert found == ["orders", "--vcpus", "--phys-offset", "--memslots"]
    with pytest.raises(ConfigError) as caught:
        from_sources(None, {"scenario": "x", "granule": "4X", "blocks": 0, "memory": "1G", "platform": "y"})
    found = [line.partition(":")[0] for line in caught.value.problems]
    assert found == ["--scenario", "--granule", "--blocks", "--platform"]


def test_code_gets_the_same_answers_by_field_names() -> None:
    config = RunConfig(scenario=Scenario.MIGRATION, memory=3 * MIB, backing=Backing.HUGETLB_2M, memslots=2)
    assert config == from_sources(
        None, {"scenario": "migration", "memory": "3M", "backing": "hugetlb-2m", "memslots": 2}
    )
