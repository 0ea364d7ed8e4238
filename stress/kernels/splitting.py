"""A block becomes a table, by the steps of the run's split order, of which each is as in ``stress.kernels.steps``.

At a write fault under dirty logging the new table is empty, as in KVM (``stage2_map_walk_leaf``): the wanted page is
mapped next, others when they fault. A table made by an eager split maps the pages asked for
(``kvm_pgtable_stage2_split``). Tables are taken from the pool before the first step, as KVM fills its cache of them: no
step fails for want of one. All is done under mmu_lock, and no record is kept.
"""

from __future__ import annotations

from stress.arch.geometry import LAST_LEVEL
from stress.kernels.batch import note, reachable
from stress.kernels.codes import LEFT_UNLINKED, LOST_RACE, NEVER_INVALIDATED
from stress.kernels.descriptor import pages_at, table_descriptor
from stress.kernels.entries import settle_entry
from stress.kernels.oracle import broke_rule
from stress.kernels.pool import free_table, take_table
from stress.kernels.steps import perform_split
from stress.shm.accounts import AT_STEP, Kind
from stress.shm.atomics import store
from stress.shm.jit import kernel
from stress.shm.layout import Machine
from stress.shm.placement import out_of_line
from stress.shm.words import (
    B_BROKEN,
    B_CLOCK,
    B_GFN,
    B_INDEX,
    B_LEVEL,
    B_NUMBER,
    B_OLD,
    B_SHARE,
    B_TABLE,
    B_WRITABLE,
    BATCH_SIZE,
    EMPTY_TABLE,
    LINKED,
)
from stress.splits import BUILD_FIRST, STEP_BITS

_NOT_INSTALLED = int(Kind.NOT_INSTALLED)
_STALE = int(Kind.STALE_TRANSLATION)
_DEFAULT = BUILD_FIRST.word
_STEP = (1 << STEP_BITS) - 1


@kernel
def judge_split(s: Machine, who: int) -> None:
    """Report a split that left no table, or left something of the block in a TLB."""
    b = s.building[who, 0]
    table = table_descriptor(s.geo, b[B_TABLE])
    if b[B_BROKEN]:
        broke_rule(s, _NOT_INSTALLED, who, b[B_GFN], b[B_LEVEL], 0, table, LEFT_UNLINKED)
        if s.geo.shared != 0:  # else no other process could own the entry
            settle_entry(s, b[B_INDEX], b[B_LEVEL], b[B_GFN], 0, who)
    elif reachable(s, who, 0):
        broke_rule(s, _STALE, who, b[B_GFN], b[B_LEVEL], b[B_OLD], table, NEVER_INVALIDATED)


@kernel
def split_block(s: Machine, index: int, old: int, level: int, gfn: int, share: int, writable: bool, who: int) -> int:
    """Put a table in place of block ``old``, which is entry ``index``, in which a walk for ``gfn`` ended.

    It maps ``share`` of 2**20 of the block's pages, or is an EMPTY_TABLE without any below. Returns its page,
    LOST_RACE, POOL_DRY or POOL_EXHAUSTED. A caller that asks for more than one table holds mmu_lock alone.
    """
    out_of_line()
    tables = 1
    if share != EMPTY_TABLE and level + 1 < LAST_LEVEL:
        tables += 1 << s.geo.index_bits
    page = take_table(s, level + 1, who, tables)
    if page < 0:
        return page
    note(s, who, 0, gfn & ~(pages_at(s.geo, level) - 1), level, index, old)
    s.batches[who, BATCH_SIZE] = 1
    b = s.building[who, 0]
    b[B_NUMBER] = 0
    b[B_TABLE] = page
    b[B_SHARE] = share
    b[B_WRITABLE] = 1 if writable else 0
    left = s.geo.split_order if s.geo.split_order != 0 else _DEFAULT
    going_on = True
    while left != 0 and going_on:
        step = (left & _STEP) - 1
        left >>= STEP_BITS
        store(s.states, (who, AT_STEP), step)
        going_on = perform_split(s, who, step)
    if going_on:
        judge_split(s, who)
    store(s.states, (who, AT_STEP), -1)
    if b[B_CLOCK] == LINKED:
        free_table(s, page, gfn, who)
    return page if going_on else LOST_RACE
