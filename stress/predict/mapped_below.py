"""What the table below a block maps, and of how many pages it is made."""

from __future__ import annotations

from stress.arch.geometry import LAST_LEVEL
from stress.predict import virtual as v
from stress.predict.decorators import kernel
from stress.predict.virtual import World


@kernel
def mapped_pages(w: World, number: int) -> int:
    """Pages of a block that its table maps."""
    first = number * w.s.control[v.BLOCK_PAGES]
    mapped = 0
    for page in range(first, first + w.s.control[v.BLOCK_PAGES]):
        mapped += int(w.page[page] & v.STATE != v.UNMAPPED)
    return mapped


@kernel
def tables_below(w: World, number: int) -> int:
    """Table pages below a block's entry: those of the last level that map anything, and those above."""
    if w.s.control[v.BLOCK_LEVEL] == LAST_LEVEL - 1:
        return 1
    first, size = number * w.s.control[v.BLOCK_PAGES], w.s.control[v.TABLE_PAGES]
    if w.block[number, v.B_FILLED] != 0:
        return int(1 + w.s.control[v.BLOCK_PAGES] // size)
    tables = 1
    for table in range(first, first + w.s.control[v.BLOCK_PAGES], size):
        for page in range(table, table + size):
            if w.page[page] & v.STATE != v.UNMAPPED:
                tables += 1
                break
    return tables


@kernel
def unmapped_ranges(w: World, number: int) -> int:
    """Ranges that a clean of a block's unmapped pages is issued for: runs within what a last-level table maps."""
    first, size = number * w.s.control[v.BLOCK_PAGES], w.s.control[v.TABLE_PAGES]
    ranges = 0
    for table in range(first, first + w.s.control[v.BLOCK_PAGES], size):
        before = False
        for page in range(table, table + size):
            unmapped = w.page[page] & v.STATE == v.UNMAPPED
            ranges += int(unmapped and not before)
            before = unmapped
    return ranges
