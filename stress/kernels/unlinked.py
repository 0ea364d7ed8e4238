"""Tables that nothing points to yet, filled with a block's pages (Linux 6.5 ``kvm_pgtable_stage2_create_unlinked``).

No other process sees them, so plain stores do, and one addition for all references of a table.
"""

from __future__ import annotations

from stress.arch.geometry import LAST_LEVEL
from stress.kernels.descriptor import leaf_descriptor, pages_at, table_descriptor, write_protected
from stress.kernels.pool import allocate_table
from stress.shm.atomics import get, put
from stress.shm.jit import kernel
from stress.shm.layout import Machine
from stress.shm.trace_log import append, trace
from stress.shm.traced import Traced

_FILL = int(Traced.FILL)


@kernel
def is_populated(page: int, share: int) -> bool:
    """Whether page number ``page`` of a block is mapped, if ``share`` of 2**20 are, spread evenly."""
    return ((page + 1) * share) >> 20 != (page * share) >> 20


@kernel
def fill_last(s: Machine, page: int, first: int, offset: int, share: int, writable: bool, who: int) -> None:
    """Fill a zeroed level 3 table for the frames from ``first`` on, page ``offset`` of their block."""
    base = page << s.geo.index_bits
    counted = 0
    for i in range(1 << s.geo.index_bits):
        if is_populated(offset + i, share):
            leaf = leaf_descriptor(s.geo, first + i, LAST_LEVEL)
            put(s.tables, base + i, leaf if writable else write_protected(leaf))
            counted += 1
    put(s.page_count, page, get(s.page_count, page) + counted)
    if s.geo.trace_rows != 0:
        for index in range(base, base + (1 << s.geo.index_bits)):
            if get(s.tables, index) != 0:
                append(s, _FILL, who, index, get(s.tables, index))


@kernel
def fill_table(s: Machine, page: int, level: int, first: int, share: int, writable: bool, who: int) -> None:
    """Fill a zeroed table for the frames of a block from ``first`` on; there are free pages for the tables below."""
    if level == LAST_LEVEL:
        fill_last(s, page, first, 0, share, writable, who)
        return
    base = page << s.geo.index_bits
    pages = pages_at(s.geo, level)
    for i in range(1 << s.geo.index_bits):
        child = allocate_table(s, level + 1, who)
        fill_last(s, child, first + i * pages, i * pages, share, writable, who)
        put(s.tables, base + i, table_descriptor(s.geo, child))
        trace(s, _FILL, who, base + i, table_descriptor(s.geo, child))
        put(s.page_count, page, get(s.page_count, page) + 1)
