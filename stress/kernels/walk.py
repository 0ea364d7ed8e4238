"""The vCPU's hardware walk: from the deepest cached table pointer down to a leaf or an invalid entry.

What it reads may be changing under it. Nothing of it counts before the access is validated, so a pointer that
leads out of the pool just ends the walk: it reads as poison, as a freed table does.
"""

from __future__ import annotations

from stress.arch.descriptors import POISON
from stress.arch.geometry import LAST_LEVEL
from stress.kernels.descriptor import is_table, next_page
from stress.kernels.tlb import CACHED, Cpu
from stress.shm.atomics import load
from stress.shm.jit import inline
from stress.shm.layout import Machine


@inline
def walk(s: Machine, cpu: Cpu, gfn: int) -> tuple[int, int, int]:
    """(descriptor, level, level of the table the walk started from) for guest frame ``gfn``.

    Leaves the pages of the tables it passed in ``cpu.path``.
    """
    geo = s.geo
    bits = geo.index_bits
    level = geo.start_level
    page = 0
    for cached in range(LAST_LEVEL, 0, -1):
        if cached <= geo.start_level:
            break
        key = gfn >> ((LAST_LEVEL + 1 - cached) * bits)
        slot = cached * CACHED + (key & (CACHED - 1))
        if cpu.walk_key[slot] == key:
            level = cached
            page = cpu.walk_page[slot]
            break
    first = level
    slot = gfn >> ((LAST_LEVEL - level) * bits)
    if level > geo.start_level:
        slot &= (1 << bits) - 1
    while True:
        descriptor = load(s.tables, (page << bits) + slot)
        if not is_table(descriptor, level):
            break
        page = next_page(geo, descriptor)
        if page < 0 or page >= geo.table_pages:
            descriptor = POISON
            break
        level += 1
        cpu.path[level] = page
        slot = (gfn >> ((LAST_LEVEL - level) * bits)) & ((1 << bits) - 1)
    return descriptor, level, first


@inline
def cache_walk(cpu: Cpu, bits: int, gfn: int, first: int, level: int) -> None:
    """Keep the table pointers of a validated walk from ``first`` down to ``level``."""
    for cached in range(first + 1, level + 1):
        key = gfn >> ((LAST_LEVEL + 1 - cached) * bits)
        slot = cached * CACHED + (key & (CACHED - 1))
        cpu.walk_key[slot] = key
        cpu.walk_page[slot] = cpu.path[cached]
