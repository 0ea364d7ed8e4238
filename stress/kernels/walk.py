"""The vCPU's hardware walk: from the deepest cached table pointer down to a leaf or an invalid entry.

What the walk reads may be changing under it. Nothing of it counts before the access is validated, so a pointer that
leads out of the pool just ends the walk: the walk returns poison, as if it had read a freed table.
"""

from __future__ import annotations

from stress.arch.descriptors import POISON
from stress.arch.geometry import LAST_LEVEL
from stress.kernels.descriptor import is_table, next_page
from stress.kernels.tlb import CACHED, Cpu
from stress.shm.atomics import load
from stress.shm.jit import inline
from stress.shm.layout import (
    Machine,
)
from stress.shm.placement import likely


@inline
def cached_page(cpu: Cpu, bits: int, gfn: int, level: int) -> int:
    """Pool index of the table that serves ``gfn`` at ``level``, or -1 if the walk cache has none."""
    key = gfn >> ((LAST_LEVEL + 1 - level) * bits)
    slot = level * CACHED + (key & (CACHED - 1))
    return cpu.walk_page[slot] if cpu.walk_key[slot] == key else -1


@inline
def descend(s: Machine, cpu: Cpu, gfn: int, level: int, page: int) -> tuple[int, int, int]:
    """Walk from table ``page``, which serves ``gfn`` at ``level``; result as ``walk``'s."""
    geo = s.geo
    bits = geo.index_bits
    mask = (1 << bits) - 1
    first = level
    slot = gfn >> ((LAST_LEVEL - level) * bits)
    if level > geo.start_level:  # root tables are concatenated: their index has more bits
        slot &= mask
    descriptor = load(s.tables, (page << bits) + slot)
    while is_table(descriptor, level):
        page = next_page(geo, descriptor)
        if page < 0 or page >= geo.table_pages:
            return POISON, level, first
        level += 1
        cpu.path[level & LAST_LEVEL] = page
        slot = (gfn >> ((LAST_LEVEL - level) * bits)) & mask
        descriptor = load(s.tables, (page << bits) + slot)
    return descriptor, level, first


@inline
def walk(s: Machine, cpu: Cpu, gfn: int) -> tuple[int, int, int]:
    """(descriptor, level, level of the table the walk started from) for guest frame ``gfn``.

    Leaves the pages of the tables it passed in ``cpu.path``. Each way in has its level as a constant.
    """
    bits = s.geo.index_bits
    start = s.geo.start_level
    if start < 3:
        page = cached_page(cpu, bits, gfn, 3)
        if likely(page >= 0):
            return load(s.tables, (page << bits) + (gfn & ((1 << bits) - 1))), 3, 3
    if start < 2:
        page = cached_page(cpu, bits, gfn, 2)
        if page >= 0:
            return descend(s, cpu, gfn, 2, page)
    if start < 1:
        page = cached_page(cpu, bits, gfn, 1)
        if page >= 0:
            return descend(s, cpu, gfn, 1, page)
    return descend(s, cpu, gfn, start, 0)


@inline
def cache_page(cpu: Cpu, bits: int, gfn: int, level: int) -> None:
    """Keep the page that the last walk found at ``level``."""
    key = gfn >> ((LAST_LEVEL + 1 - level) * bits)
    slot = level * CACHED + (key & (CACHED - 1))
    cpu.walk_key[slot] = key
    cpu.walk_page[slot] = cpu.path[level]


@inline
def cache_walk(cpu: Cpu, bits: int, gfn: int, first: int, level: int) -> None:
    """Keep the table pointers of a validated walk from ``first`` down to ``level``."""
    if first < 3 and level >= 3:
        cache_page(cpu, bits, gfn, 3)
    if first < 2 and level >= 2:
        cache_page(cpu, bits, gfn, 2)
    if first < 1 and level >= 1:
        cache_page(cpu, bits, gfn, 1)
