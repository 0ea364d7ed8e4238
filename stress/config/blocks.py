"""Guest memory: which blocks a backing, a granule and a width of IPA allow, and what follows for the rest."""

from __future__ import annotations

from typing import Final

from stress.arch.geometry import BLOCK_SIZES, KIB, Geometry
from stress.backings import HUGETLB, SELFTEST_NAMES, Backing
from stress.config.values import BLOCKS_ONLY, Scenario, choice, listed, problem
from stress.units import format_size

#: Blocks of guest memory if nobody says how many.
DEFAULT_BLOCKS: Final = 4


def block_sizes(granule: int, ipa_bits: int) -> tuple[int, ...]:
    """Sizes in bytes, largest first, of the blocks that KVM maps with this granule below its start level."""
    start = Geometry(granule, ipa_bits).start_level
    return tuple(size for level, size in sorted(BLOCK_SIZES[granule].items()) if level >= start)


def block_of(backing: Backing, granule: int) -> int:
    """Bytes of a block of this backing: a hugetlb page, else the level 2 block (which ``anonymous`` never maps)."""
    return HUGETLB[backing][1] if backing in HUGETLB else BLOCK_SIZES[granule][2]


def default_backing(scenario: Scenario, granule: int, ipa_bits: int, block_size: int | None) -> Backing:
    """What backs blocks of ``block_size`` bytes; of the granule's largest if that is None.

    The only block of the larger granules is the transparent huge page.
    """
    if scenario is Scenario.THP or granule != 4 * KIB:
        return Backing.THP
    size = block_size or block_sizes(granule, ipa_bits)[0]
    return next((backing for backing, page in HUGETLB.items() if page == (granule, size)), Backing.THP)


def check_block_size(block_size: int, scenario: Scenario, granule: int, ipa_bits: int) -> None:
    """Raise the problem with a block size, if there is one."""
    possible = block_sizes(granule, ipa_bits)
    if block_size % granule:
        raise problem(f"{block_size} bytes do not divide into {format_size(granule)} pages; use {choice(possible)}")
    if block_size not in possible:
        raise problem(
            f"KVM has no {format_size(block_size)} block with the {format_size(granule)} granule "
            f"and {ipa_bits} bits of IPA; use {choice(possible)}"
        )
    level2 = BLOCK_SIZES[granule][2]
    if scenario is Scenario.THP and block_size != level2:
        raise problem(f"a transparent huge page has {format_size(level2)}, not {format_size(block_size)}; leave it out")


def check_backing(backing: Backing, scenario: Scenario, granule: int, ipa_bits: int, block_size: int | None) -> None:
    """Raise the problem with a backing, if there is one; ``block_size`` is None if none was given."""
    blocks = [each for each in Backing if each is not Backing.ANONYMOUS]
    if scenario is Scenario.THP and backing is not Backing.THP:
        raise problem(f"scenario thp is about transparent huge pages, not {backing}; leave it out")
    if scenario is Scenario.REBUILD and backing is Backing.ANONYMOUS:
        raise problem(f"anonymous memory is mapped as pages, so there is nothing to rebuild; use {listed(blocks)}")
    if backing in HUGETLB and granule != HUGETLB[backing][0]:
        level2 = format_size(BLOCK_SIZES[granule][2])
        needed = format_size(HUGETLB[backing][0])
        raise problem(
            f"{backing} ({SELFTEST_NAMES[backing]}) needs the {needed} granule, not {format_size(granule)}; "
            f"use --granule {needed}, or thp ({level2} blocks)"
        )
    size = block_of(backing, granule)
    if size not in block_sizes(granule, ipa_bits):
        raise problem(f"KVM has no {format_size(size)} block with {ipa_bits} bits of IPA; use hugetlb-2m or thp")
    if block_size is not None and block_size != size:
        raise problem(
            f"{backing} means blocks of {format_size(size)}, not of {format_size(block_size)}; "
            "leave out the one or the other"
        )


def check_phys_offset(phys_offset: int, scenario: Scenario, granule: int, ipa_bits: int, block: int) -> None:
    """Raise the problem with the memslot's first IPA, if there is one."""
    if phys_offset % granule:
        raise problem(f"{phys_offset:#x} is not a multiple of the {format_size(granule)} granule")
    if scenario in BLOCKS_ONLY and phys_offset % block:
        raise problem(
            f"{phys_offset:#x} is not a multiple of the {format_size(block)} block, so all is mapped as pages and "
            f"scenario {scenario} has nothing to rebuild; align it, or use another scenario"
        )
    if phys_offset + block > 1 << ipa_bits:
        raise problem(
            f"not one block of {format_size(block)} fits above {phys_offset:#x} in {ipa_bits} bits of IPA; "
            f"use at most {(1 << ipa_bits) - block:#x}"
        )


def parts(scenario: Scenario, vcpus: int) -> int:
    """How many parts as large as the key ``memory`` says guest memory has: in dirty-log-perf one for each vCPU."""
    return vcpus if scenario is Scenario.DIRTY_LOG_PERF else 1


def check_memory(
    memory: int, parts: int, scenario: Scenario, granule: int, ipa_bits: int, block: int, phys_offset: int
) -> None:
    """Raise the problem with the bytes of each of the ``parts`` of guest memory, if there is one."""
    if memory % granule:
        raise problem(f"{memory} bytes do not divide into {format_size(granule)} pages")
    room = (1 << ipa_bits) - phys_offset
    if memory * parts > room:
        each = "" if parts == 1 else f"{parts} times "
        raise problem(
            f"{each}{format_size(memory)} do not fit above {format_size(phys_offset)} in {ipa_bits} bits of IPA; "
            f"use at most {format_size(room // parts)}"
        )
    if scenario is Scenario.THP and memory % block:
        raise problem(f"scenario thp needs whole blocks of {format_size(block)}, not {format_size(memory)}")
    if scenario is Scenario.REBUILD and memory < block:
        raise problem(
            f"{format_size(memory)} have no {format_size(block)} block to rebuild; use more, or smaller blocks"
        )


def check_blocks(blocks: int, ipa_bits: int, block: int, phys_offset: int) -> None:
    """Raise the problem with the number of blocks, if there is one."""
    room = room_in_blocks(ipa_bits, block, phys_offset)
    if blocks > room:
        raise problem(
            f"{blocks} blocks of {format_size(block)} do not fit above {format_size(phys_offset)} "
            f"in {ipa_bits} bits of IPA; use at most {room}"
        )


def room_in_blocks(ipa_bits: int, block: int, phys_offset: int) -> int:
    """Blocks that fit between the memslot's first IPA and the end of the IPA space."""
    return ((1 << ipa_bits) - phys_offset) // block


def cycles_for(rebuilds: int, blocks: int, batch: int) -> int:
    """Cycles in which so many blocks, or a few more, are rebuilt, a batch of them in each, over and over again."""
    laps, rest = divmod(rebuilds, blocks)
    return laps * -(-blocks // batch) + -(-rest // batch)
