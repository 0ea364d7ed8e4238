"""Small machines on plain memory, and slow, obvious twins of what the kernels do to them.

A twin decodes descriptors with the field table of ``stress.arch`` and walks by physical addresses, as the manual
describes it, and shares no code with the kernels.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pytest

from stress.arch.descriptors import POISON, S2AP_R, S2AP_W, TYPE, leaf_attributes, output_address
from stress.arch.geometry import BLOCK_SIZES, GIB, KIB, LAST_LEVEL, MIB, Geometry
from stress.kernels.audit import audit
from stress.shm import layout
from stress.shm.atomics import JIT_DISABLED
from stress.shm.layout import Geo, Kind, Machine

#: (granule, block size) with one level of tables below a block: small enough for pure Python.
SMALL = [
    pytest.param(4 * KIB, 2 * MIB, id="4K-2M"),
    pytest.param(16 * KIB, 32 * MIB, id="16K-32M"),
    pytest.param(64 * KIB, 512 * MIB, id="64K-512M"),
]
#: And the one with two: 262,144 entries in 513 tables.
SHAPES = [
    *SMALL,
    pytest.param(
        4 * KIB,
        GIB,
        id="4K-1G",
        marks=pytest.mark.skipif(JIT_DISABLED, reason="262,144 entries per block in pure Python"),
    ),
]


def small_machine(
    granule: int = 4 * KIB,
    block_size: int | None = None,
    *,
    blocks: int = 2,
    vcpus: int = 1,
    orders: int = 1,
    fwb: bool = True,
    guest_caches: bool = True,
    bbm_level: int = 0,
    fail_fast: bool = False,
    ipa_bits: int = 40,
) -> Machine:
    """A freshly initialised machine on a bytearray; by default with the granule's smallest blocks."""
    geo = layout.geo_for(
        Geometry(granule, ipa_bits),
        block_size=block_size or min(BLOCK_SIZES[granule].values()),
        blocks=blocks,
        vcpus=vcpus,
        leaf_attributes=leaf_attributes(fwb),
        fwb=fwb,
        guest_caches=guest_caches,
        bbm_level=bbm_level,
        fail_fast=fail_fast,
    )
    machine = layout.carve(bytearray(layout.segment_bytes(geo, orders)), geo, orders)
    list(layout.initialise(machine))  # to its end
    return machine


def violations(s: Machine) -> dict[str, int]:
    """Counts of the kinds that were reported."""
    counts = {kind.label: int(s.control[layout.VIOLATIONS + kind]) for kind in Kind}
    return {label: count for label, count in counts.items() if count}


def evidence(s: Machine, kind: Kind, n: int = 0) -> dict[str, int]:
    """Piece ``n`` of the evidence of a kind."""
    row = s.evidence[kind, n]
    assert row[layout.V_READY] == 1
    names = {"who": layout.V_WHO, "gfn": layout.V_GFN, "level": layout.V_LEVEL, "step": layout.V_STEP}
    names |= {"found": layout.V_FOUND, "expected": layout.V_EXPECTED, "detail": layout.V_DETAIL}
    return {name: int(row[at]) for name, at in names.items()}


def block_pages(geo: Geo) -> int:
    """Pages of one block."""
    return geo.frames // geo.blocks


def shift_at(geo: Geo, level: int) -> int:
    """log2 of the bytes that an entry at ``level`` maps."""
    return geo.granule_shift + (LAST_LEVEL - level) * geo.index_bits


class Leaf(NamedTuple):
    """One valid leaf entry of a table."""

    gfn: int  # first guest frame
    level: int
    frame: int  # first frame, counted from the start of guest memory
    readable: bool
    writable: bool


class Tree(NamedTuple):
    """Everything that can be reached from the root."""

    leaves: list[Leaf]
    tables: dict[int, int]  # table page -> valid entries


def decode_leaf(geo: Geo, word: int, level: int, gfn: int) -> Leaf:
    """What a leaf's word says."""
    shift = shift_at(geo, level)
    frame = ((output_address(shift).take(word) << shift) - layout.MEMORY_PA) >> geo.granule_shift
    return Leaf(gfn, level, frame, bool(word & S2AP_R), bool(word & S2AP_W))


def table_page(geo: Geo, word: int) -> int:
    """Pool index of the page a table descriptor points to."""
    address = output_address(geo.granule_shift).take(word) << geo.granule_shift
    return (address - layout.TABLES_PA) // (1 << geo.granule_shift)


def naive_tree(s: Machine) -> Tree:
    """Enumerate the table recursively from its root."""
    geo = s.geo
    entries = 1 << geo.index_bits
    tree = Tree([], {})

    def visit(page: int, level: int, first: int) -> None:
        words = s.tables[page * entries : (page + 1) * entries]
        valid = np.flatnonzero(words & 1)
        assert page not in tree.tables, f"table page {page} is linked twice"
        tree.tables[page] = len(valid)
        for slot in map(int, valid):
            word = int(words[slot])
            gfn = first + slot * (1 << shift_at(geo, level) - geo.granule_shift)
            if TYPE.take(word) == 0b11 and level < LAST_LEVEL:
                visit(table_page(geo, word), level + 1, gfn)
            else:
                tree.leaves.append(decode_leaf(geo, word, level, gfn))

    for page in range(geo.root_pages):
        root_entry = 1 << shift_at(geo, geo.start_level) - geo.granule_shift
        visit(page, geo.start_level, page * entries * root_entry)
    return tree


def naive_walk(s: Machine, gfn: int, page: int = 0, level: int | None = None) -> tuple[int, int]:
    """(word, level) where a walk for ``gfn`` ends that starts at table ``page``, by default at the root."""
    geo = s.geo
    root = level is None or level == geo.start_level
    level = geo.start_level if level is None else level
    slot = (gfn << geo.granule_shift) // (1 << shift_at(geo, level))
    if not root:
        slot %= 1 << geo.index_bits
    word = int(s.tables[page * (1 << geo.index_bits) + slot])
    if TYPE.take(word) != 0b11 or level == LAST_LEVEL:
        return word, level
    page = table_page(geo, word)
    if not 0 <= page < geo.table_pages:
        return POISON, level
    return naive_walk(s, gfn, page, level + 1)


def naive_audit(s: Machine) -> list[str]:
    """What is wrong with counts, reachability and the pool."""
    geo = s.geo
    tree = naive_tree(s)
    wrong = []
    for page, valid in tree.tables.items():
        if s.page_count[page] != 1 + valid:
            wrong.append(f"page {page} has count {s.page_count[page]} and {valid} valid entries")
    used = set(map(int, np.flatnonzero(s.page_level != layout.FREE)))
    if used != set(tree.tables):
        wrong.append(f"in use but not linked or the reverse: {sorted(used ^ set(tree.tables))}")
    head, tail = int(s.control[layout.POOL_HEAD]), int(s.control[layout.POOL_TAIL])
    ring = [int(s.free_ring[at % geo.table_pages]) for at in range(head, tail)]
    if sorted(ring) != sorted(set(range(geo.table_pages)) - used):
        wrong.append("the free ring does not hold every free page once")
    words = s.tables.reshape(geo.table_pages, -1)
    wrong += [f"free page {page} is not poisoned" for page in ring if (words[page] != POISON).any()]
    return wrong


def run_audit(s: Machine) -> int:
    """Run the kernel's audit; table pages in use."""
    return int(audit(s, s.geo.hypervisor, np.zeros(s.geo.table_pages, np.int64)))


def assert_sound(s: Machine) -> Tree:
    """No violation so far, and none that an audit finds, ours or the kernel's; the table as it is."""
    assert violations(s) == {}
    assert naive_audit(s) == []
    used = run_audit(s)
    assert violations(s) == {}
    tree = naive_tree(s)
    assert used == len(tree.tables)
    return tree


def page_leaves(geo: Geo, pages: Iterable[int]) -> list[Leaf]:
    """The leaves of pages mapped one by one, given by their numbers in the memslot, in order."""
    return [Leaf(geo.base_gfn + page, LAST_LEVEL, page, True, True) for page in pages]


def block_leaf(geo: Geo, block: int) -> Leaf:
    """The leaf of a block mapped as a block."""
    first = block * block_pages(geo)
    return Leaf(geo.base_gfn + first, geo.block_level, first, True, True)


class NaiveTlb:
    """A TLB of unlimited size: (level, key) -> first frame << 2 | permissions."""

    def __init__(self, bits: int) -> None:
        self._bits = bits
        self.entries: dict[tuple[int, int], int] = {}

    def _pages(self, level: int) -> int:
        return 1 << ((LAST_LEVEL - level) * self._bits)

    def fill(self, level: int, gfn: int, value: int) -> None:
        """Enter a translation."""
        self.entries[level, gfn // self._pages(level)] = value

    def translations(self, gfn: int) -> dict[int, int]:
        """Every translation of ``gfn`` that was entered and not flushed, by level."""
        found = {}
        for level in range(1, LAST_LEVEL + 1):
            value = self.entries.get((level, gfn // self._pages(level)))
            if value is not None:
                found[level] = ((value >> 2) + gfn % self._pages(level)) << 2 | (value & 3)
        return found

    def flush_range(self, start: int, end: int) -> None:
        """Forget what translates a guest frame of [start, end)."""
        for level, key in list(self.entries):
            first = key * self._pages(level)
            if first < end and start < first + self._pages(level):
                del self.entries[level, key]

    def flush_all(self) -> None:
        """Forget everything."""
        self.entries.clear()
