"""The audit: at a quiescent point every table is reachable once, and every reference count adds up."""

from __future__ import annotations

from typing import Any

from stress.arch.geometry import LAST_LEVEL
from stress.kernels.descriptor import is_table, next_page
from stress.kernels.oracle import report
from stress.shm.atomics import load
from stress.shm.jit import kernel
from stress.shm.layout import FREE, POOL_HEAD, POOL_TAIL, Kind, Machine
from stress.shm.syscalls import fence

_REFCOUNT = int(Kind.REFCOUNT)
_LEAK = int(Kind.TABLE_LEAK)
_DOUBLE_FREE = int(Kind.DOUBLE_FREE)
_AFTER_FREE = int(Kind.TABLE_USE_AFTER_FREE)
# What the scratch says of a page, besides the level at which it was reached.
NOT_SEEN, IN_RING = -1, -2

LINKED_WHEN_FREE = 2  # detail code of table-use-after-free evidence


@kernel
def visit(s: Machine, page: int, level: int, seen: Any, who: int) -> None:
    """Check the count of a reachable table; marks the tables it points to in ``seen`` with their level."""
    if s.page_level[page] == FREE:
        report(s, _AFTER_FREE, who, 0, level, page, 0, LINKED_WHEN_FREE)
        return
    bits = s.geo.index_bits
    counted = 0
    for index in range(page << bits, (page + 1) << bits):
        descriptor = load(s.tables, index)
        if descriptor & 1:
            counted += 1
            if is_table(descriptor, level):
                child = next_page(s.geo, descriptor)
                if child < 0 or child >= s.geo.table_pages or seen[child] != NOT_SEEN:
                    report(s, _REFCOUNT, who, 0, level, child, page, 0)
                else:
                    seen[child] = level + 1
    if s.page_count[page] != counted + 1:
        report(s, _REFCOUNT, who, 0, level, s.page_count[page], counted + 1, page)


@kernel
def audit(s: Machine, who: int, seen: Any) -> int:
    """Audit the whole table while nothing runs; ``seen`` is scratch, int64 (table_pages,). Returns tables in use.

    The caller has parked the vCPUs and holds no lock.
    """
    fence()  # the caller saw the vCPUs parked; see all they did before
    geo = s.geo
    for page in range(geo.table_pages):
        seen[page] = geo.start_level if page < geo.root_pages else NOT_SEEN
    for level in range(geo.start_level, LAST_LEVEL + 1):
        for page in range(geo.table_pages):
            if seen[page] == level:
                visit(s, page, level, seen, who)
    used = 0
    for page in range(geo.table_pages):
        if s.page_level[page] != FREE:
            used += 1
            if seen[page] == NOT_SEEN:
                report(s, _LEAK, who, 0, s.page_level[page], page, s.page_count[page], 0)
    # Every free page stands in the ring once.
    head, tail = s.control[POOL_HEAD], s.control[POOL_TAIL]
    if tail - head != geo.table_pages - used:
        report(s, _DOUBLE_FREE, who, 0, FREE, tail - head, geo.table_pages - used, 0)
    for at in range(head, tail):
        page = s.free_ring[at % geo.table_pages]
        if s.page_level[page] != FREE or seen[page] == IN_RING:
            report(s, _DOUBLE_FREE, who, 0, FREE, page, 0, 0)
        seen[page] = IN_RING
    return used
