"""A block becomes a table, by the steps of the run's split order: one interpreter, and one function per step.

At a write fault under dirty logging the new table is empty, as in KVM (``stage2_map_walk_leaf``): the page wanted is
mapped next, the others as they are met. Split eagerly, it maps what is asked for (``kvm_pgtable_stage2_split``). Tables
are taken before the first step, as KVM fills its cache of them: no step fails for want of one.

Judged here is what no store shows: whether the table was written when it was linked, whether it still is what the entry
holds, and whether a TLBI has covered the block since a walk does not find it any more.
"""

from __future__ import annotations

from stress.arch.geometry import LAST_LEVEL
from stress.kernels.codes import LEFT_UNLINKED, LINKED_UNWRITTEN, LOST_RACE, NEVER_INVALIDATED
from stress.kernels.descriptor import LOCKED, first_frame, pages_at, table_descriptor
from stress.kernels.entries import break_entry, page_of, set_entry, settle_entry, swap_entry, tlbi_entry
from stress.kernels.oracle import broke_rule
from stress.kernels.pool import clear_table, free_table, get_page, put_page, take_table
from stress.kernels.tlbi import tlbi_range, tlbi_vmid
from stress.kernels.unlinked import fill_table
from stress.orders import Step, mask_of
from stress.shm.accounts import AT_STEP, Kind
from stress.shm.atomics import load, store
from stress.shm.jit import kernel
from stress.shm.layout import Machine
from stress.shm.placement import out_of_line
from stress.shm.words import (
    EMPTY_TABLE,
    S_BROKEN,
    S_BUILT,
    S_CLOCK,
    S_FLUSHED,
    S_GFN,
    S_HELD,
    S_INDEX,
    S_LEVEL,
    S_OLD,
    S_SHARE,
    S_TABLE,
    S_WRITABLE,
    SEQUENCE,
    TLBI_DONE,
)
from stress.splits import BUILD_FIRST, STEP_BITS

_AFTER_FREE = int(Kind.TABLE_USE_AFTER_FREE)
_NOT_INSTALLED = int(Kind.NOT_INSTALLED)
_STALE = int(Kind.STALE_TRANSLATION)
_BUILD = Step.BUILD.code
_INVALIDATE = Step.INVALIDATE.code
_TLBI = Step.TLBI.code
_TLBI_IPA = Step.TLBI_IPA.code
_UNLINKS = mask_of(lambda facts: facts.unlinks)
_DEFAULT = BUILD_FIRST.word
_STEP = (1 << STEP_BITS) - 1


@kernel
def build(s: Machine, who: int) -> None:
    """Write every entry of the table."""
    b = s.splitting[who]
    clear_table(s, b[S_TABLE])
    if b[S_SHARE] != EMPTY_TABLE:
        first = first_frame(s.geo, b[S_OLD], b[S_LEVEL])
        fill_table(s, b[S_TABLE], b[S_LEVEL] + 1, first, b[S_SHARE], b[S_WRITABLE] != 0, who)
    b[S_BUILT] = 1


@kernel
def invalidate(s: Machine, who: int) -> bool:
    """Break the entry."""
    b = s.splitting[who]
    if not break_entry(s, b[S_INDEX], b[S_HELD], b[S_LEVEL], b[S_GFN], 0, who):
        return False
    b[S_BROKEN] = 1
    put_page(s, page_of(s, b[S_INDEX]))
    return True


@kernel
def tlbi_ipa(s: Machine, who: int) -> None:
    """Invalidate by IPA all that TLBs hold of the block. Of a broken block nothing is left then."""
    b = s.splitting[who]
    if b[S_BROKEN]:
        issued = tlbi_entry(s, b[S_INDEX], b[S_LEVEL], b[S_GFN], LOCKED, who)
    else:
        issued = tlbi_range(s, b[S_GFN], b[S_GFN] + 1, who)
    if issued:
        b[S_FLUSHED] = 1


@kernel
def link(s: Machine, who: int) -> bool:
    """Make the entry, which we broke or which is still what we know, point to the table."""
    b = s.splitting[who]
    table = table_descriptor(s.geo, b[S_TABLE])
    if b[S_BROKEN]:
        set_entry(s, b[S_INDEX], table, b[S_LEVEL], b[S_GFN], who)
        get_page(s, page_of(s, b[S_INDEX]))
    elif not swap_entry(s, b[S_INDEX], b[S_HELD], table, b[S_LEVEL], b[S_GFN], who):
        return False
    b[S_HELD] = table
    b[S_BROKEN] = 0
    if b[S_BUILT] == 0:
        held = load(s.tables, b[S_TABLE] << s.geo.index_bits)
        broke_rule(s, _AFTER_FREE, who, b[S_GFN], b[S_LEVEL], held, table, LINKED_UNWRITTEN)
    return True


@kernel
def perform_split(s: Machine, who: int, step: int) -> bool:
    """Do one step; False if another was faster."""
    if step == _BUILD:
        build(s, who)
    elif step == _INVALIDATE:
        return invalidate(s, who)
    elif step == _TLBI:
        tlbi_vmid(s, who)
    elif step == _TLBI_IPA:
        tlbi_ipa(s, who)
    else:
        return link(s, who)
    return True


@kernel
def judge_split(s: Machine, who: int) -> None:
    """A split leaves the table that it promised, and nothing of the block in any TLB."""
    b = s.splitting[who]
    table = table_descriptor(s.geo, b[S_TABLE])
    if b[S_BROKEN]:
        broke_rule(s, _NOT_INSTALLED, who, b[S_GFN], b[S_LEVEL], 0, table, LEFT_UNLINKED)
        if s.geo.shared != 0:  # else nobody could own it any more
            settle_entry(s, b[S_INDEX], b[S_LEVEL], b[S_GFN], 0, who)
    elif b[S_FLUSHED] == 0 and load(s.control, TLBI_DONE) <= b[S_CLOCK]:
        broke_rule(s, _STALE, who, b[S_GFN], b[S_LEVEL], b[S_OLD], table, NEVER_INVALIDATED)


@kernel
def split_block(s: Machine, index: int, old: int, level: int, gfn: int, share: int, writable: bool, who: int) -> int:
    """Put a table in place of block ``old``, which is entry ``index``, in which a walk for ``gfn`` ended.

    It maps ``share`` of 2**20 of the block's pages, or is an EMPTY_TABLE without any below. Returns its page,
    LOST_RACE, POOL_DRY or POOL_EXHAUSTED. Who asks for more than one table holds mmu_lock alone.
    """
    out_of_line()
    tables = 1
    if share != EMPTY_TABLE and level + 1 < LAST_LEVEL:
        tables += 1 << s.geo.index_bits
    page = take_table(s, level + 1, who, tables)
    if page < 0:
        return page
    b = s.splitting[who]
    b[S_GFN] = gfn & ~(pages_at(s.geo, level) - 1)
    b[S_LEVEL] = level
    b[S_INDEX] = index
    b[S_OLD] = b[S_HELD] = old
    b[S_TABLE] = page
    b[S_SHARE] = share
    b[S_WRITABLE] = 1 if writable else 0
    b[S_BUILT] = b[S_BROKEN] = b[S_FLUSHED] = 0
    b[S_CLOCK] = -1
    left = s.geo.split_order if s.geo.split_order != 0 else _DEFAULT
    going_on = True
    while left != 0 and going_on:
        step = (left & _STEP) - 1
        left >>= STEP_BITS
        store(s.states, (who, AT_STEP), step)
        going_on = perform_split(s, who, step)
        if b[S_CLOCK] < 0 and _UNLINKS >> step & 1:
            b[S_CLOCK] = load(s.control, SEQUENCE)  # whichever comes first unlinked the block
            b[S_FLUSHED] = 0
    if going_on:
        judge_split(s, who)
    store(s.states, (who, AT_STEP), -1)
    if not going_on and b[S_HELD] == old:
        free_table(s, page, gfn, who)
    return page if going_on else LOST_RACE
