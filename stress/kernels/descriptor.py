"""Descriptors as compiled code reads and makes them; the masks come from ``stress.arch``."""

from __future__ import annotations

from stress.arch.descriptors import (
    CLOCK,
    KIND,
    KIND_BROKEN_LEAF,
    KIND_BROKEN_TABLE,
    KIND_LOCKED,
    NT,
    REBUILD,
    S2AP_R,
    S2AP_W,
    TYPE_BLOCK,
    TYPE_TABLE_OR_PAGE,
)
from stress.arch.geometry import LAST_LEVEL
from stress.shm.jit import inline
from stress.shm.layout import (
    Geo,
)

_OA_BITS = 48
_KIND_LO, _REBUILD_LO, _CLOCK_LO = KIND.lo, REBUILD.lo, CLOCK.lo
_KIND_MASK = KIND.mask
REBUILD_MASK = REBUILD.mask >> REBUILD.lo
_NT = NT.mask

#: An empty entry that a fault handler is about to fill.
LOCKED = KIND_LOCKED << _KIND_LO

#: A translation as the TLB holds it: frame << 2 | permissions.
READ, WRITE = 1, 2


@inline
def is_table(descriptor: int, level: int) -> bool:
    """Whether a descriptor points to a next-level table."""
    return descriptor & TYPE_TABLE_OR_PAGE == TYPE_TABLE_OR_PAGE and level < LAST_LEVEL


@inline
def is_leaf(descriptor: int, level: int) -> bool:
    """Whether a descriptor maps memory: a block, or a page at level 3 (where 01 is reserved, and so invalid)."""
    return descriptor & TYPE_TABLE_OR_PAGE == (TYPE_TABLE_OR_PAGE if level == LAST_LEVEL else TYPE_BLOCK)


@inline
def next_page(geo: Geo, descriptor: int) -> int:
    """Pool index of the table a table descriptor points to; out of range if it points elsewhere."""
    pfn_bits = _OA_BITS - geo.granule_shift
    return ((descriptor >> geo.granule_shift) & ((1 << pfn_bits) - 1)) - geo.tables_pfn


@inline
def first_frame(geo: Geo, descriptor: int, level: int) -> int:
    """Index of the first frame that a leaf maps; out of range if it maps something else than guest memory."""
    low = (LAST_LEVEL - level) * geo.index_bits
    shift = geo.granule_shift + low
    return (((descriptor >> shift) & ((1 << (_OA_BITS - shift)) - 1)) << low) - geo.memory_pfn


@inline
def table_descriptor(geo: Geo, page: int) -> int:
    """Descriptor that points to table ``page`` of the pool."""
    return ((page + geo.tables_pfn) << geo.granule_shift) | TYPE_TABLE_OR_PAGE


@inline
def leaf_descriptor(geo: Geo, frame: int, level: int) -> int:
    """Writable block or page descriptor for the frames from ``frame`` on, with the run's attributes."""
    kind = TYPE_TABLE_OR_PAGE if level == LAST_LEVEL else TYPE_BLOCK
    return ((frame + geo.memory_pfn) << geo.granule_shift) | geo.leaf_attributes | kind


@inline
def permissions(descriptor: int) -> int:
    """The READ and WRITE bits of a leaf."""
    return (READ if descriptor & S2AP_R else 0) | (WRITE if descriptor & S2AP_W else 0)


@inline
def make_writable(descriptor: int) -> int:
    """The same leaf with write permission."""
    return descriptor | S2AP_W


@inline
def write_protected(descriptor: int) -> int:
    """The same leaf without write permission."""
    return descriptor & ~S2AP_W


@inline
def with_nt(descriptor: int) -> int:
    """The same block with nT set (FEAT_BBM level 1)."""
    return descriptor | _NT


@inline
def has_nt(descriptor: int) -> bool:
    """Whether a block has nT, so that no TLB keeps it (FEAT_BBM level 1)."""
    return descriptor & _NT != 0


@inline
def broken(descriptor: int, level: int, rebuild: int, clock: int) -> int:
    """The invalid word that replaces ``descriptor``: it says what was broken, by which rebuild, at which TLBI clock."""
    kind = KIND_BROKEN_TABLE if is_table(descriptor, level) else KIND_BROKEN_LEAF
    return (kind << _KIND_LO) | ((rebuild & REBUILD_MASK) << _REBUILD_LO) | (clock << _CLOCK_LO)


@inline
def is_broken_leaf(descriptor: int) -> bool:
    """Whether an entry is a leaf that was broken and whose TLBI has not completed."""
    return descriptor & 1 == 0 and (descriptor & _KIND_MASK) >> _KIND_LO == KIND_BROKEN_LEAF


@inline
def is_broken(descriptor: int) -> bool:
    """Whether an entry is invalid, was valid before, and may still be in some TLB."""
    kind = (descriptor & _KIND_MASK) >> _KIND_LO
    return descriptor & 1 == 0 and (kind == KIND_BROKEN_LEAF or kind == KIND_BROKEN_TABLE)


@inline
def window_of(descriptor: int) -> int:
    """The number (modulo 2**24) of the rebuild that broke an entry; 0 if no rebuild did."""
    if descriptor & 1:
        return 0
    kind = (descriptor & _KIND_MASK) >> _KIND_LO
    if kind == KIND_BROKEN_LEAF or kind == KIND_BROKEN_TABLE:
        return (descriptor >> _REBUILD_LO) & REBUILD_MASK
    return 0


@inline
def entry_index(geo: Geo, page: int, level: int, gfn: int) -> int:
    """Index into ``tables`` of the entry for ``gfn`` in table ``page`` at ``level``."""
    slot = gfn >> ((LAST_LEVEL - level) * geo.index_bits)
    if level > geo.start_level:  # root tables are concatenated: their index has more bits
        slot &= (1 << geo.index_bits) - 1
    return (page << geo.index_bits) + slot


@inline
def pages_at(geo: Geo, level: int) -> int:
    """Pages that one entry at ``level`` maps."""
    return 1 << ((LAST_LEVEL - level) * geo.index_bits)
