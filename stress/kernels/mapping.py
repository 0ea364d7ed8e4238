"""Mapping guest frames as KVM's map walker does (Linux 6.2 ``stage2_map_walk_leaf``, ``stage2_map_walker_try_leaf``).

Every function may lose a race under a shared mmu_lock: it then undoes its part and says LOST_RACE.
"""

from __future__ import annotations

from stress.arch.descriptors import POISON
from stress.bugs import LEAK_ON_UPDATE, NO_LOCAL_TLBI
from stress.kernels.clean import clean_frames
from stress.kernels.codes import LOST_RACE, WALKED_BY_HANDLER
from stress.kernels.descriptor import (
    entry_index,
    is_leaf,
    is_table,
    leaf_descriptor,
    make_writable,
    pages_at,
    table_descriptor,
    write_protected,
)
from stress.kernels.entries import find, lock_entry, owned, page_of, set_entry, swap_entry
from stress.kernels.inject import injected
from stress.kernels.oracle import report
from stress.kernels.pool import allocate_table, free_table, get_page
from stress.kernels.splitting import split_block
from stress.kernels.tlbi import tlbi_range
from stress.shm.accounts import Kind
from stress.shm.atomics import load
from stress.shm.jit import inline, kernel
from stress.shm.layout import Machine
from stress.shm.placement import out_of_line
from stress.shm.words import EMPTY_TABLE, TLBI_LOCAL

# Results.
MAPPED = 0
BLOCK_SPLIT = 1  # mapped, after a block in the way was replaced by a table

_AFTER_FREE = int(Kind.TABLE_USE_AFTER_FREE)


@inline
def not_ours(s: Machine, descriptor: int, level: int, gfn: int, who: int) -> bool:
    """Whether a walk that met ``descriptor`` must be given up: owned by another, or a freed table's word."""
    if descriptor == POISON:
        report(s, _AFTER_FREE, who, gfn, level, descriptor, 0, WALKED_BY_HANDLER)
        return True
    return owned(s, descriptor)


@kernel
def add_table(s: Machine, index: int, old: int, level: int, gfn: int, who: int) -> int:
    """Put an empty table where ``old``, nothing or a block, is at ``level``; its page, LOST_RACE, or why none is free.

    A block in the way is split; its pages other than the one wanted fault again later.
    """
    out_of_line()
    if is_leaf(old, level):
        return split_block(s, index, old, level, gfn, EMPTY_TABLE, False, who)
    page = allocate_table(s, level + 1, who)
    if page < 0:
        return page
    if swap_entry(s, index, old, table_descriptor(s.geo, page), level, gfn, who):
        get_page(s, page_of(s, index))
        return page
    free_table(s, page, gfn, who)
    return LOST_RACE


@inline
def map_leaf(s: Machine, gfn: int, frame: int, target: int, writable: bool, splits: bool, who: int) -> int:
    """Map ``gfn`` to ``frame`` (of this very page) at ``target`` level, adding tables on the way.

    MAPPED, BLOCK_SPLIT, LOST_RACE, POOL_DRY or POOL_EXHAUSTED. ``target`` is no higher than an existing table allows.
    """
    result = MAPPED
    index, level = find(s, gfn, target)
    old = load(s.tables, index)
    while level < target:
        if not_ours(s, old, level, gfn, who) or is_table(old, level):
            return LOST_RACE
        if is_leaf(old, level):
            if not splits:
                return LOST_RACE  # a rebuild put a block there since we looked
            result = BLOCK_SPLIT
        page = add_table(s, index, old, level, gfn, who)
        if page < 0:
            return page
        level += 1
        index = entry_index(s.geo, page, level, gfn)
        old = load(s.tables, index)
    if old & 1 or not_ours(s, old, level, gfn, who):
        return LOST_RACE
    if old == 0 and not lock_entry(s, index, level, gfn, who):
        return LOST_RACE
    pages = pages_at(s.geo, level)
    first = frame & ~(pages - 1)
    if s.geo.cmo_per_fault == 0:
        clean_frames(s, first, pages, who)
    leaf = leaf_descriptor(s.geo, first, level)
    if not writable:
        leaf = write_protected(leaf)
    if old == 0:
        set_entry(s, index, leaf, level, gfn, who)
    elif not swap_entry(s, index, old, leaf, level, gfn, who):  # a rebuild left it broken
        return LOST_RACE
    get_page(s, page_of(s, index))
    return result


@kernel
def relax(s: Machine, index: int, old: int, level: int, gfn: int, who: int) -> int:
    """Let the guest write through leaf ``old``; MAPPED or LOST_RACE (``kvm_pgtable_stage2_relax_perms``).

    That needs no break, but the old translation must leave the TLBs. The TLBI is broadcast, as before v6.4: a local one
    asks every other vCPU that has the old translation for one of its own, which the bug no-local-tlbi forgets.
    """
    if not swap_entry(s, index, old, make_writable(old), level, gfn, who):
        return LOST_RACE
    if injected(s, LEAK_ON_UPDATE):
        get_page(s, page_of(s, index))  # v5.10-rc: the map walker took one for a valid entry too
    local = who + 1 if s.geo.inject & NO_LOCAL_TLBI != 0 and s.geo.shared != 0 else 0
    tlbi_range(s, gfn, (gfn + 1) | local << TLBI_LOCAL, who)
    return MAPPED
