"""What happens to a detached table: at once, by its rebuilder after mmu_lock, or after a grace period."""

from __future__ import annotations

from stress.arch.geometry import LAST_LEVEL
from stress.bugs import FREED_TWICE, NO_GRACE, ROOT_TABLE_KEPT
from stress.kernels.cost import spend
from stress.kernels.descriptor import is_table, next_page
from stress.kernels.grace import judge_free, synchronize
from stress.kernels.holding import entries_at_once, offer_lock
from stress.kernels.inject import injected
from stress.kernels.pool import free_table, lock_pool, put_page, unlock_pool
from stress.shm.accounts import LIFE_CYCLE, T_FREED
from stress.shm.atomics import fetch_add, get, load, put, store
from stress.shm.jit import entry, kernel
from stress.shm.layout import Machine
from stress.shm.trace_log import trace
from stress.shm.traced import Traced
from stress.shm.words import D_CLOCK, D_GFN, D_LEVEL, D_ORDER, D_PAGE, DEFERRED_HEAD, DEFERRED_TAIL

_DEFERRED = LIFE_CYCLE.index("tables_deferred")
_DETACH = int(Traced.DETACH)


@kernel
def count_mapped(s: Machine, page: int, level: int) -> int:
    """How many pages a block's table maps, by the reference counts: all of them if each page_count is entries + 1."""
    if level == LAST_LEVEL:
        return load(s.page_count, page) - 1
    bits = s.geo.index_bits
    mapped = 0
    for index in range(page << bits, (page + 1) << bits):
        descriptor = load(s.tables, index)
        if is_table(descriptor, level):
            mapped += load(s.page_count, next_page(s.geo, descriptor)) - 1
    return mapped


@kernel
def detach(s: Machine, page: int, level: int, who: int) -> None:
    """Tell the trace that a table and those below it are given up, under mmu_lock, to be torn down now or later.

    Nothing is stored to the tables: their entries stay as they are until the table is freed.
    """
    trace(s, _DETACH, who, page, level)


@kernel
def unmap_last(s: Machine, page: int, gfn: int, who: int) -> int:
    """Drop a reference per page that a level 3 table maps, then free the table; 1 if it was freed."""
    bits = s.geo.index_bits
    first, end = page << bits, (page + 1) << bits
    while first < end:
        last = min(end, first + entries_at_once(s, who))
        for index in range(first, last):
            if load(s.tables, index) & 1:
                put_page(s, page)
        visited = last - first  # at most a table's entries, so that neither product overflows
        cost = visited * (s.geo.unmap_ns_per_table >> bits)
        spend(s, who, cost + (visited * (s.geo.unmap_ns_per_table & (1 << bits) - 1) >> bits))
        offer_lock(s, who, visited)
        first = last
    return 1 if free_table(s, page, gfn, who) else 0


@kernel
def unmap_table(s: Machine, page: int, level: int, gfn: int, who: int) -> int:
    """Visit a detached table and those below it, drop a reference per counted entry; returns the tables freed.

    That takes what it costs on the platform. If ``who`` holds mmu_lock it gives it up now and then for others who wait.
    As ``stage2_map_walk_leaf`` and ``stage2_map_walk_table_post`` do under an anchor (Linux 5.10): entries keep their
    values until the page is freed, because a walker may still read them. Blocks exist at levels 1 and 2 only, so a
    detached subtree has one or two levels of tables.
    """
    freed = 0
    bits = s.geo.index_bits
    if level < LAST_LEVEL:
        for index in range(page << bits, (page + 1) << bits):
            descriptor = load(s.tables, index)
            if descriptor & 1:
                if is_table(descriptor, level):
                    freed += unmap_last(s, next_page(s.geo, descriptor), gfn, who)
                put_page(s, page)
            offer_lock(s, who, 1)
        spend(s, who, s.geo.unmap_ns_per_table)
    if injected(s, ROOT_TABLE_KEPT):
        return freed  # v6.2 to v6.3 forgot the reference that the table was created with
    if level == LAST_LEVEL:
        freed = unmap_last(s, page, gfn, who)
    elif free_table(s, page, gfn, who):
        freed += 1
    if injected(s, FREED_TWICE):
        free_table(s, page, gfn, who)
    return freed


@kernel
def tear_down(s: Machine, page: int, level: int, gfn: int, clock: int, who: int) -> int:
    """Free a table detached at ``clock``, and those below it; the tables freed."""
    judge_free(s, clock, gfn, level - 1, who)
    return unmap_table(s, page, level, gfn, who)


@kernel
def defer(s: Machine, page: int, level: int, gfn: int, order: int, clock: int, who: int) -> bool:
    """Queue a table, detached at ``clock``, until a grace period is over (``call_rcu``); False if the queue is full."""
    lock_pool(s, who)
    tail = get(s.control, DEFERRED_TAIL)
    room = tail - load(s.control, DEFERRED_HEAD) < s.geo.deferred_rows
    if room:
        row = tail & (s.geo.deferred_rows - 1)
        put(s.deferred, (row, D_PAGE), page)
        put(s.deferred, (row, D_LEVEL), level)
        put(s.deferred, (row, D_GFN), gfn)
        put(s.deferred, (row, D_ORDER), order)
        put(s.deferred, (row, D_CLOCK), clock)
        store(s.control, DEFERRED_TAIL, tail + 1)
    unlock_pool(s)
    return bool(room)


@entry
def reap(s: Machine, who: int) -> int:
    """Free every table that was queued before now, after one grace period; returns how many were queued.

    It frees none if the run is cut short meanwhile. Only the hypervisor process does this: it plays the kernel's RCU
    callbacks.
    """
    head, tail = get(s.control, DEFERRED_HEAD), load(s.control, DEFERRED_TAIL)
    if head == tail:
        return 0
    if not injected(s, NO_GRACE) and not synchronize(s, who):
        return 0
    for at in range(head, tail):
        row = at & (s.geo.deferred_rows - 1)
        page, level, gfn = (
            get(s.deferred, (row, D_PAGE)),
            get(s.deferred, (row, D_LEVEL)),
            get(s.deferred, (row, D_GFN)),
        )
        freed = tear_down(s, page, level, gfn, get(s.deferred, (row, D_CLOCK)), who)
        fetch_add(s.totals, (get(s.deferred, (row, D_ORDER)), T_FREED), freed)
    store(s.control, DEFERRED_HEAD, tail)
    s.life[_DEFERRED] += tail - head
    return tail - head
