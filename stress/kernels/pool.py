"""Table pages with KVM's reference counts.

A fresh table has count 1, each counted entry adds one, and the page is freed when the count returns to 0
(Linux 6.1 ``stage2_map_walk_leaf``, ``kvm_pgtable_stage2_free_removed``). We count valid entries: an entry that
was broken keeps a note for the oracle, which holds nothing.
"""

from __future__ import annotations

from stress.arch.descriptors import POISON
from stress.kernels.codes import POOL_DRY, POOL_EXHAUSTED, POOL_RAN_DRY
from stress.kernels.oracle import broke_rule, report
from stress.shm.accounts import INSIDE, POOL_LEAKED, POOL_PEAK, Kind
from stress.shm.atomics import compare_exchange, exchange, fetch_add, get, load, pause, put, store
from stress.shm.jit import kernel
from stress.shm.layout import Machine
from stress.shm.syscalls import sched_yield
from stress.shm.trace_log import trace
from stress.shm.traced import Traced
from stress.shm.words import DEFERRED_HEAD, DEFERRED_TAIL, FREE, POOL_HEAD, POOL_LOCK, POOL_TAIL, STOP, STOP_ABORT

_DOUBLE_FREE = int(Kind.DOUBLE_FREE)
_TABLE_LEAK = int(Kind.TABLE_LEAK)
_ALLOCATE = int(Traced.ALLOCATE)
_FREE = int(Traced.FREE)
_SPINS = 64


@kernel
def get_page(s: Machine, page: int) -> None:
    """Take a reference on a table page."""
    fetch_add(s.page_count, page, 1)


@kernel
def put_page(s: Machine, page: int) -> int:
    """Drop a reference; returns how many are left. The caller frees a page that has none."""
    return fetch_add(s.page_count, page, -1) - 1


@kernel
def lock_pool(s: Machine, who: int) -> None:
    """Take the pool's own lock: tables come and go under a shared mmu_lock, and after mmu_lock is given back."""
    spins = 0
    while not compare_exchange(s.control, POOL_LOCK, 0, who + 1):
        spins += 1
        if spins < _SPINS:
            pause()
        else:
            sched_yield()
            if load(s.control, STOP) == STOP_ABORT:
                return  # the lock's owner may be dead; nothing counts any more


@kernel
def unlock_pool(s: Machine) -> None:
    """Give the pool's lock back."""
    store(s.control, POOL_LOCK, 0)


@kernel
def dry_by_a_leak(s: Machine) -> bool:
    """Whether a pool without a free page, whose lock the caller holds, proves that tables were forgotten.

    The pool has pages for the tables that map all of memory as pages, and for those that may be detached or not linked
    yet besides (`stress.shm.layout.geo_for`). More are in use only by a leak, unless tables wait for a grace period, or
    for a tear-down under way, which gives them back before its rebuild counts as over.
    """
    return load(s.tally, INSIDE) == 0 and load(s.control, DEFERRED_HEAD) == load(s.control, DEFERRED_TAIL)


@kernel
def take_table(s: Machine, level: int, who: int, wanted: int) -> int:
    """A table page with count 1 for ``level``, if ``wanted`` pages are free; else POOL_DRY, or POOL_EXHAUSTED (a leak).

    The entries of the page are what they were before. A caller that excludes all others that take tables can take the
    rest of the ``wanted`` pages afterwards.
    """
    lock_pool(s, who)
    head = get(s.control, POOL_HEAD)
    tail = get(s.control, POOL_TAIL)
    page = -1
    short = tail - head < wanted
    leak = short and dry_by_a_leak(s)
    if not short:
        page = get(s.free_ring, head % s.geo.table_pages)
        put(s.control, POOL_HEAD, head + 1)
        put(s.tally, POOL_PEAK, max(get(s.tally, POOL_PEAK), s.geo.table_pages - (tail - head - 1)))
    unlock_pool(s)
    if page < 0:
        # Reported at once: the run may not live to see its last audit.
        if leak and exchange(s.tally, POOL_LEAKED, 1) == 0:
            report(s, _TABLE_LEAK, who, 0, level, s.geo.table_pages, 0, POOL_RAN_DRY)
        return POOL_EXHAUSTED if leak else POOL_DRY
    trace(s, _ALLOCATE, who, page, level)
    put(s.page_level, page, level)
    store(s.page_count, page, 1)
    return page


@kernel
def clear_table(s: Machine, page: int) -> None:
    """Write 0 to every entry of a table page."""
    bits = s.geo.index_bits
    for i in range(page << bits, (page + 1) << bits):
        put(s.tables, i, 0)


@kernel
def allocate_table(s: Machine, level: int, who: int) -> int:
    """A zeroed table page, as `take_table` returns one, or its reason why there is none."""
    page = take_table(s, level, who, 1)
    if page >= 0:
        clear_table(s, page)
    return page


@kernel
def free_table(s: Machine, page: int, gfn: int, who: int) -> bool:
    """Drop the last reference of a table page, poison it and give it back; False if references are left."""
    level = load(s.page_level, page)
    if level == FREE:
        broke_rule(s, _DOUBLE_FREE, who, gfn, level, page, 0, 0)
        return False
    if put_page(s, page) != 0:
        return False
    trace(s, _FREE, who, page, level)  # before another process can take it
    bits = s.geo.index_bits
    for i in range(page << bits, (page + 1) << bits):
        put(s.tables, i, POISON)
    put(s.page_level, page, FREE)
    lock_pool(s, who)
    tail = get(s.control, POOL_TAIL)
    put(s.free_ring, tail % s.geo.table_pages, page)
    store(s.control, POOL_TAIL, tail + 1)
    unlock_pool(s)
    return True
