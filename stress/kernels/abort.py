"""What to do about a stage-2 abort: KVM's ``user_mem_abort`` (Linux 6.1), under mmu_lock.

=====================  ==========================  =============================================================
the table holds        wanted: the same size       wanted: another size
=====================  ==========================  =============================================================
a leaf                 relax it if it forbids the  smaller (dirty logging): replace the block by a table if it
                       access, else spurious       forbids the access; larger: rebuild, or leave that to others
nothing                map it                      larger, and a table is in the way: rebuild, or map a page
=====================  ==========================  =============================================================
"""

from __future__ import annotations

from stress.arch.geometry import LAST_LEVEL
from stress.bugs import WRONG_FAULT_LEVEL
from stress.kernels.batch import begin, gather
from stress.kernels.clean import clean_frames
from stress.kernels.codes import (
    ENDLESS,
    LOST_RACE,
    MAPPED_BLOCK,
    MAPPED_PAGE,
    NO_SLOT,
    NOTHING,
    PERMISSION,
    POOL_DRY,
    POOL_EXHAUSTED,
    POPULATION,
    REBUILT,
    RELAXED,
    RETRY,
    SPLIT,
    SPURIOUS,
)
from stress.kernels.descriptor import WRITE, is_leaf, is_table, pages_at, permissions
from stress.kernels.dirty import mark_dirty
from stress.kernels.entries import find
from stress.kernels.holding import own_lock
from stress.kernels.inject import injected
from stress.kernels.mapping import BLOCK_SPLIT, map_leaf, not_ours, relax
from stress.kernels.memslots import mapping_level, page_in_slot, slot_of
from stress.kernels.oracle import report
from stress.kernels.rebuild import DONE, carry_out, clean_before
from stress.shm.accounts import Kind, State
from stress.shm.atomics import load
from stress.shm.jit import inline, kernel
from stress.shm.layout import Machine
from stress.shm.placement import out_of_line
from stress.shm.words import SLOT_LOGGING

_ENDLESS_FAULT = int(Kind.ENDLESS_FAULT)
_GUEST = int(State.GUEST)

# What to do.
DO_NOTHING, DO_RELAX, DO_MAP, DO_MAP_PAGE, DO_SPLIT, DO_REBUILD = range(6)


@inline
def decide(leaf: bool, level: int, wanted: int, allowed: bool, rebuilds: bool) -> int:
    """What to do about a fault whose walk ended at ``level`` with a leaf or nothing; ``wanted`` is the level to map at.

    ``allowed``: the leaf permits the access. ``rebuilds``: a vCPU turns a table in the way of a block into that block.
    """
    if level > wanted:
        if rebuilds:
            return DO_REBUILD
        wanted = level if leaf else LAST_LEVEL
    if not leaf:
        return DO_MAP if level <= wanted and wanted < LAST_LEVEL else DO_MAP_PAGE
    if allowed:
        return DO_NOTHING
    return DO_RELAX if level == wanted else DO_SPLIT


@kernel
def wrong_level(s: Machine, permission: bool, logging: int, write: bool) -> bool:
    """With the injected bug wrong-fault-level: v5.10-rc relaxed permissions whatever size the entry had."""
    return permission and not (logging != 0 and write) and injected(s, WRONG_FAULT_LEVEL)


@kernel
def rebuild_under_lock(
    s: Machine, gfn: int, wanted: int, who: int, requested_ns: int, locked_ns: int, cleaned: int
) -> tuple[int, int]:
    """Turn the table in the way of the block at level ``wanted`` into that block, and those beside it in its batch.

    Returns (REBUILT or RETRY, 1 if mmu_lock was given back, else 0).
    """
    out_of_line()
    begin(s, who, _GUEST)
    if gather(s, who, gfn, wanted) == 0:
        return RETRY, 0
    own_lock(s, who, requested_ns, locked_ns)
    clean_before(s, who, gfn, cleaned)
    done = carry_out(s, who, requested_ns)
    return (REBUILT if done == DONE else RETRY), 1


@inline
def resolve(
    s: Machine, gfn: int, write: bool, who: int, requested_ns: int, locked_ns: int
) -> tuple[int, int, int, int]:
    """Handle an abort on guest frame ``gfn`` under mmu_lock.

    Returns (fault class or another outcome, what was done to the table, level found, 1 if it was left to a rebuild,
    which gave mmu_lock back, else 0).
    """
    slot = slot_of(s, gfn)
    if slot < 0:
        return NO_SLOT, NOTHING, 0, 0
    page = page_in_slot(s, slot, gfn)
    frame = load(s.host, page)
    if frame < 0:
        return RETRY, NOTHING, 0, 0  # mmu_invalidate_retry
    logging = load(s.memslots, (slot, SLOT_LOGGING))
    wanted = mapping_level(s, slot, page)
    index, level = find(s, gfn, LAST_LEVEL)
    old = load(s.tables, index)
    if not_ours(s, old, level, gfn, who) or is_table(old, level):
        return RETRY, NOTHING, level, 0
    leaf = is_leaf(old, level)
    permission = leaf and write and permissions(old) & WRITE == 0
    action = decide(leaf, level, wanted, not permission, s.geo.vcpu_rebuilds != 0)
    cleaned = 0
    if s.geo.cmo_per_fault != 0 and action != DO_RELAX:
        # Before v5.14 every handler cleaned, also if the mapping was there. (That kernel left the clean out when a
        # permission fault made it rebuild, so pages that were never mapped were not cleaned: here they are.)
        pages = pages_at(s.geo, wanted if level <= wanted or action == DO_REBUILD else LAST_LEVEL)
        cleaned = clean_frames(s, frame & ~(pages - 1), pages, who)
    if level != wanted and wrong_level(s, permission, logging, write):
        aligned = gfn & ~(pages_at(s.geo, wanted) - 1)
        index, level = find(s, aligned, LAST_LEVEL)
        old = load(s.tables, index)
        action = DO_RELAX if is_leaf(old, level) else DO_NOTHING
    if write and logging != 0:
        mark_dirty(s, page)  # before the store: a vCPU that shares the mapping may write right after it
    kind, did = SPURIOUS, NOTHING
    if action == DO_RELAX:
        if relax(s, index, old, level, gfn, who) == LOST_RACE:
            return RETRY, NOTHING, level, 0
        kind, did = PERMISSION, RELAXED
    elif action == DO_REBUILD:
        kind, gave_back = rebuild_under_lock(s, gfn, wanted, who, requested_ns, locked_ns, cleaned)
        return kind, NOTHING, wanted if gave_back else level, gave_back
    elif action != DO_NOTHING:
        target = LAST_LEVEL if action == DO_MAP_PAGE else wanted
        done = map_leaf(s, gfn, frame, target, write or logging == 0, action == DO_SPLIT, who)
        if done == LOST_RACE or done == POOL_DRY:
            return RETRY, NOTHING, level, 0
        if done == POOL_EXHAUSTED:
            return POOL_EXHAUSTED, NOTHING, level, 0
        kind = PERMISSION if permission else POPULATION
        did = SPLIT if done == BLOCK_SPLIT else MAPPED_PAGE if target == LAST_LEVEL else MAPPED_BLOCK
    if permission:
        # The handler takes the fault for resolved, and nobody takes the permission away while we hold mmu_lock.
        index, reached = find(s, gfn, LAST_LEVEL)
        now = load(s.tables, index)
        if is_leaf(now, reached) and permissions(now) & WRITE == 0:
            report(s, _ENDLESS_FAULT, who, gfn, reached, now, old, 0)
            return ENDLESS, did, level, 0
    return kind, did, level, 0
