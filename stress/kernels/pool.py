"""Table pages with KVM's reference counts.

A fresh table has count 1, each counted entry adds one, and the page is freed when the count returns to 0
(Linux 6.1 ``stage2_map_walk_leaf``, ``kvm_pgtable_stage2_free_removed``). We count valid entries: an entry that
was broken keeps a note for the oracle, which holds nothing. Callers hold mmu_lock.
"""

from __future__ import annotations

from stress.arch.descriptors import POISON
from stress.kernels.oracle import report
from stress.shm.atomics import fetch_add, store
from stress.shm.jit import kernel
from stress.shm.layout import FREE, POOL_HEAD, POOL_PEAK, POOL_TAIL, Kind, Machine

_DOUBLE_FREE = int(Kind.DOUBLE_FREE)


@kernel
def get_page(s: Machine, page: int) -> None:
    """Take a reference on a table page."""
    fetch_add(s.page_count, page, 1)


@kernel
def put_page(s: Machine, page: int) -> int:
    """Drop a reference; returns how many are left. The caller frees a page that has none."""
    return fetch_add(s.page_count, page, -1) - 1


@kernel
def allocate_table(s: Machine, level: int) -> int:
    """A zeroed table page with count 1 that serves ``level``; -1 if the pool is exhausted."""
    head = s.control[POOL_HEAD]
    tail = s.control[POOL_TAIL]
    if head == tail:
        return -1
    page = s.free_ring[head % s.geo.table_pages]
    s.control[POOL_HEAD] = head + 1
    s.control[POOL_PEAK] = max(s.control[POOL_PEAK], s.geo.table_pages - (tail - head - 1))
    bits = s.geo.index_bits
    for i in range(page << bits, (page + 1) << bits):
        s.tables[i] = 0
    s.page_level[page] = level
    store(s.page_count, page, 1)
    return page


@kernel
def free_table(s: Machine, page: int, gfn: int, who: int) -> None:
    """Drop the last reference of a table page, poison it and give it back to the pool."""
    level = s.page_level[page]
    if level == FREE:
        report(s, _DOUBLE_FREE, who, gfn, level, page, 0, 0)
        return
    if put_page(s, page) != 0:
        return
    bits = s.geo.index_bits
    for i in range(page << bits, (page + 1) << bits):
        s.tables[i] = POISON
    s.page_level[page] = FREE
    tail = s.control[POOL_TAIL]
    s.free_ring[tail % s.geo.table_pages] = page
    store(s.control, POOL_TAIL, tail + 1)
