"""Small machines on plain memory, and slow, obvious twins of what the kernels do to them.

A twin decodes descriptors with the field table of ``stress.arch`` and walks by physical addresses, as the manual
describes it, and shares no code with the kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
import pytest

from stress.arch.descriptors import POISON, S2AP_R, S2AP_W, TYPE, output_address
from stress.arch.geometry import BLOCK_SIZES, GIB, KIB, LAST_LEVEL, MIB, Geometry
from stress.kernels.abort import resolve
from stress.kernels.audit import audit
from stress.kernels.batch import begin, gather
from stress.kernels.holding import own_lock
from stress.kernels.rebuild import rebuild
from stress.kernels.split import split
from stress.orders import Order, Step
from stress.shm import accounts, layout, words
from stress.shm.accounts import Kind
from stress.shm.layout import Geo, Machine, Rings
from stress.shm.mode import JIT_DISABLED

CYCLE_ROWS = Rings().cycle_rows

#: All of a block's pages, as a share in 2**-20.
ALL = 1 << 20

#: (granule, block size) with one level of tables below a block: small enough for pure Python.
SMALL = [
    pytest.param(4 * KIB, 2 * MIB, id="4K-2M"),
    pytest.param(16 * KIB, 32 * MIB, id="16K-32M"),
    pytest.param(64 * KIB, 512 * MIB, id="64K-512M", marks=pytest.mark.thorough),
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
    **more: Any,
) -> Machine:
    """A freshly initialised machine on a bytearray; by default with the granule's smallest blocks.

    ``more`` goes to ``geo_for``.
    """
    geo = layout.geo_for(
        Geometry(granule, ipa_bits),
        block_size=block_size or min(BLOCK_SIZES[granule].values()),
        blocks=blocks,
        vcpus=vcpus,
        fwb=fwb,
        guest_caches=guest_caches,
        bbm_level=bbm_level,
        fail_fast=fail_fast,
        **more,
    )
    machine = layout.carve(bytearray(layout.segment_bytes(geo, orders)), geo, orders)
    list(layout.initialise(machine))  # to its end
    return machine


def violations(s: Machine) -> dict[str, int]:
    """Counts of the kinds that were reported."""
    counts = {kind.label: int(s.tally[accounts.VIOLATIONS + kind]) for kind in Kind}
    return {label: count for label, count in counts.items() if count}


def evidence(s: Machine, kind: Kind, n: int = 0) -> dict[str, int]:
    """Piece ``n`` of the evidence of a kind."""
    row = s.evidence[kind, n]
    assert row[accounts.V_READY] == 1
    names = {"who": accounts.V_WHO, "gfn": accounts.V_GFN, "level": accounts.V_LEVEL, "step": accounts.V_STEP}
    names |= {
        "found": accounts.V_FOUND,
        "expected": accounts.V_EXPECTED,
        "detail": accounts.V_DETAIL,
        "rule": accounts.V_RULE,
    }
    return {name: int(row[at]) for name, at in names.items()}


def block_pages(geo: Geo) -> int:
    """Pages of one block."""
    return 1 << (LAST_LEVEL - geo.block_level) * geo.index_bits


def block_gfn(geo: Geo, block: int) -> int:
    """First guest frame of a block."""
    return geo.base_gfn + block * block_pages(geo)


# The kernels' entry points, as their callers use them: integers where compiled callers pass integers.


def fault(s: Machine, gfn: int, write: int = 0, who: int = 0) -> int:
    """Resolve an abort as its handler does under mmu_lock; the class, or another outcome."""
    return int(resolve(s, gfn, write, who, 0, 0)[0])


def split_block(s: Machine, block: int, share: int = ALL, *, writable: int = 1, map_first: int = 1) -> int:
    """Let the hypervisor split a block, which it maps first if nothing is there."""
    return int(split(s, s.geo.hypervisor, block_gfn(s.geo, block), share, writable, map_first))


def choose_order(s: Machine, order: int) -> None:
    """Make order number ``order`` the one under test, in the cycle under way."""
    s.cycles[s.control[words.CYCLE] % CYCLE_ROWS, accounts.K_ORDER] = order


def set_order(s: Machine, steps: Iterable[Step], order: int = 0) -> None:
    """Make ``steps`` the order number ``order``, and that the one under test."""
    codes = Order("", tuple(steps), "", "").codes
    s.orders[order] = -1
    s.orders[order, : len(codes)] = codes
    choose_order(s, order)


def rebuild_block(s: Machine, block: int, steps: Iterable[Step], order: int = 0) -> int:
    """Let the hypervisor rebuild a block by these steps."""
    set_order(s, steps, order)
    return int(rebuild(s, s.geo.hypervisor, block_gfn(s.geo, block)))


def look_under_lock(s: Machine, who: int) -> int:
    """Let a vCPU take mmu_lock, alone or shared, and look at the first batch as its handler does; tables found."""
    s.control[words.LOCK] = -1 if s.geo.shared else who + 1
    begin(s, who, int(accounts.State.GUEST))
    found = int(gather(s, who, s.geo.base_gfn, s.geo.block_level))
    own_lock(s, who, 1, 2)
    return found


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
    frame = ((output_address(shift).take(word) << shift) - words.MEMORY_PA) >> geo.granule_shift
    return Leaf(gfn, level, frame, bool(word & S2AP_R), bool(word & S2AP_W))


def table_page(geo: Geo, word: int) -> int:
    """Pool index of the page a table descriptor points to."""
    address = output_address(geo.granule_shift).take(word) << geo.granule_shift
    return (address - words.TABLES_PA) // (1 << geo.granule_shift)


def naive_tree(s: Machine) -> Tree:
    """Enumerate the table recursively from its root."""
    geo = s.geo
    entries = 1 << geo.index_bits
    tree = Tree([], {})

    def visit(page: int, level: int, first: int) -> None:
        held = s.tables[page * entries : (page + 1) * entries]
        valid = np.flatnonzero(held & 1)
        assert page not in tree.tables, f"table page {page} is linked twice"
        assert s.page_level[page] == level, f"table page {page} is linked at level {level}"
        tree.tables[page] = len(valid)
        for slot in map(int, valid):
            word = int(held[slot])
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


def host_frames(s: Machine) -> Callable[[int], int | None]:
    """Frame that backs a guest frame, as memslots and the host say it now; None outside of all memslots."""
    host = s.host.tolist()
    columns = [words.SLOT_BASE, words.SLOT_PAGES, words.SLOT_FIRST]
    slots = s.memslots[:, columns].tolist()

    def frame_of(gfn: int) -> int | None:
        for base, pages, first in slots:
            if base <= gfn < base + pages:
                return int(host[gfn - base + first])
        return None

    return frame_of


def naive_audit(s: Machine) -> list[str]:
    """What is wrong with counts, reachability, the pool, and where leaves lead."""
    geo = s.geo
    tree = naive_tree(s)
    frame_of = host_frames(s)
    wrong = []
    for page, valid in tree.tables.items():
        if s.page_count[page] != 1 + valid:
            wrong.append(f"page {page} has count {s.page_count[page]} and {valid} valid entries")
    for leaf in tree.leaves:
        for page in range(1 << (LAST_LEVEL - leaf.level) * geo.index_bits):
            if frame_of(leaf.gfn + page) != leaf.frame + page:
                wrong.append(f"guest frame {leaf.gfn + page} is mapped to another frame than the host's")
    used = set(map(int, np.flatnonzero(s.page_level != words.FREE)))
    if used != set(tree.tables):
        wrong.append(f"in use but not linked or the reverse: {sorted(used ^ set(tree.tables))}")
    head, tail = int(s.control[words.POOL_HEAD]), int(s.control[words.POOL_TAIL])
    ring = [int(s.free_ring[at % geo.table_pages]) for at in range(head, tail)]
    if sorted(ring) != sorted(set(range(geo.table_pages)) - used):
        wrong.append("the free ring does not hold every free page once")
    tables = s.tables.reshape(geo.table_pages, -1)
    wrong += [f"free page {page} is not poisoned" for page in ring if (tables[page] != POISON).any()]
    return wrong


def run_audit(s: Machine) -> int:
    """Run the kernel's audit; table pages in use."""
    seen, starts = np.zeros(s.geo.table_pages, np.int64), np.zeros(s.geo.table_pages, np.int64)
    return int(audit(s, s.geo.hypervisor, seen, starts))


def assert_sound(s: Machine) -> Tree:
    """No violation so far, and none that an audit finds, ours or the kernel's; the table as it is."""
    assert violations(s) == {}
    assert naive_audit(s) == []
    used = run_audit(s)
    assert violations(s) == {}
    tree = naive_tree(s)
    assert used == len(tree.tables)
    return tree


def page_leaves(geo: Geo, pages: Iterable[int], writable: bool = True) -> list[Leaf]:
    """The leaves of pages mapped one by one, given by their numbers in guest memory, in order; no frame has moved."""
    return [Leaf(geo.base_gfn + page, LAST_LEVEL, page, True, writable) for page in pages]


def block_leaf(geo: Geo, block: int, writable: bool = True) -> Leaf:
    """The leaf of a block mapped as a block; no frame has moved."""
    first = block * block_pages(geo)
    return Leaf(geo.base_gfn + first, geo.block_level, first, True, writable)


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
