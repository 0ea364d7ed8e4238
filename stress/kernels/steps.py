"""What each step of an order does to the block that a process is rebuilding: one function per step.

All that steps know of each other stands in the process's row of region "building", nothing in the interpreter. A step
returns False if another rebuilder was faster, or if what it was to work on moved: the rebuild is then given up.
"""

from __future__ import annotations

from stress.arch import bbm
from stress.bugs import ENTRY_READ_AGAIN, NO_CMO, NO_RECHECK, TABLE_LEVEL_HINT
from stress.kernels.clean import clean_frames, clean_unmapped, frame_not_at_poc
from stress.kernels.codes import FREED_TOO_EARLY, LEFT_INVALID, LEFT_NT
from stress.kernels.descriptor import (
    LOCKED,
    REBUILD_MASK,
    has_nt,
    is_leaf,
    is_table,
    leaf_descriptor,
    next_page,
    pages_at,
    window_of,
    with_nt,
)
from stress.kernels.entries import break_entry, find, page_of, set_entry, settle_entry, swap_entry
from stress.kernels.grace import grace, grace_clock
from stress.kernels.holding import drop_lock, take_lock
from stress.kernels.inject import injected
from stress.kernels.memslots import page_in_slot, slot_of
from stress.kernels.oracle import broke_rule
from stress.kernels.pool import get_page, put_page
from stress.kernels.teardown import count_mapped, defer, detach, tear_down
from stress.kernels.tlbi import tlbi_ipas, tlbi_range, tlbi_vmid
from stress.orders import Step, mask_of
from stress.shm.accounts import (
    R_CLEANED,
    R_FREED,
    R_LOCKED_NS,
    R_MAPPED,
    R_REQUESTED_NS,
    R_UNLOCKED_NS,
    T_RESTARTS,
    Kind,
)
from stress.shm.atomics import fetch_add, load, store
from stress.shm.jit import kernel
from stress.shm.layout import Machine
from stress.shm.syscalls import clock_ns
from stress.shm.traced import Traced
from stress.shm.words import (
    B_BROKEN,
    B_CLOCK,
    B_DETACHED,
    B_FRAME,
    B_GFN,
    B_GONE,
    B_HELD,
    B_INDEX,
    B_LEVEL,
    B_LOCKED_NS,
    B_NUMBER,
    B_OLD,
    B_ORDER,
    B_SEEN,
    B_YIELDED,
    HOST_SEQUENCE,
    ORDER_WORDS,
    TLBI_DONE,
    TLBI_HINT,
)

_AFTER_FREE = int(Kind.TABLE_USE_AFTER_FREE)
_BBM = int(Kind.BBM)
_NOT_INSTALLED = int(Kind.NOT_INSTALLED)
_TLBI_RANGE = int(Traced.TLBI_RANGE)
_INVALIDATE = Step.INVALIDATE.code
_TLBI = Step.TLBI.code
_TLBI_IPA = Step.TLBI_IPA.code
_CLEAN = Step.CLEAN.code
_CLEAN_UNMAPPED = Step.CLEAN_UNMAPPED.code
_INSTALL = Step.INSTALL.code
_INSTALL_NT = Step.INSTALL_NT.code
_CLEAR_NT = Step.CLEAR_NT.code
_UNMAP_DEFERRED = Step.UNMAP_DEFERRED.code
_LOCK = Step.LOCK.code
_UNLOCK = Step.UNLOCK.code
_TEAR_DOWNS = mask_of(lambda facts: facts.tears_down)

# Why a rebuild was given up (B_GONE); 0: it was not.
LOST = 1  # another rebuilder was faster
MOVED = 2  # the entry or the host's mapping moved while mmu_lock was not held
STOPPED_WAITING = 3  # the run ends


@kernel
def look(s: Machine, who: int, gfn: int, level: int) -> bool:
    """Note what the table and the host hold for the block around ``gfn``; False if no table stands there."""
    b = s.building[who]
    b[B_SEEN] = load(s.control, HOST_SEQUENCE)
    b[B_LEVEL] = level
    b[B_GFN] = gfn & ~(pages_at(s.geo, level) - 1)
    index, found = find(s, gfn, level)
    old = load(s.tables, index)
    slot = slot_of(s, gfn)
    if found != level or not is_table(old, level) or slot < 0:
        return False
    frame = load(s.host, page_in_slot(s, slot, gfn))
    b[B_INDEX] = index
    b[B_OLD] = b[B_HELD] = old
    b[B_FRAME] = frame & ~(pages_at(s.geo, level) - 1)
    b[B_BROKEN] = b[B_DETACHED] = b[B_GONE] = b[B_YIELDED] = 0
    b[B_CLOCK] = -1
    return frame >= 0


@kernel
def table_of(s: Machine, who: int) -> int:
    """Page of the old table."""
    return next_page(s.geo, s.building[who, B_OLD])


@kernel
def reachable(s: Machine, who: int) -> bool:
    """Whether a vCPU may still walk into the old table.

    It may while the table is linked, and after it was unlinked until a VMID-wide TLBI completes.
    """
    clock = s.building[who, B_CLOCK]
    return clock < 0 or load(s.control, TLBI_DONE) <= clock


@kernel
def lock(s: Machine, who: int) -> bool:
    """Take mmu_lock, and look again: what was done without it may have been for another entry, or another frame.

    As ``mmu_invalidate_retry`` in KVM's fault handlers (Linux 6.1): False if either moved, or if the run stops.
    """
    b = s.building[who]
    record = s.records[b[B_NUMBER] & (s.geo.record_rows - 1)]
    record[R_REQUESTED_NS] = clock_ns()
    if not take_lock(s, who, record[R_REQUESTED_NS]):
        b[B_GONE] = STOPPED_WAITING
        return False
    record[R_LOCKED_NS] = b[B_LOCKED_NS]
    frame = b[B_FRAME]
    moved = load(s.control, HOST_SEQUENCE) != b[B_SEEN] or load(s.tables, b[B_INDEX]) != b[B_OLD]
    if moved and s.geo.inject & NO_RECHECK != 0 and look(s, who, b[B_GFN], b[B_LEVEL]):
        moved = frame == b[B_FRAME] or not injected(s, NO_RECHECK)
        b[B_FRAME] = frame  # the entry as it is now, but the frame as it was
    if moved:
        fetch_add(s.totals, (b[B_ORDER], T_RESTARTS), 1)
        b[B_GONE] = MOVED
        return False
    record[R_MAPPED] = count_mapped(s, table_of(s, who), b[B_LEVEL] + 1)
    return True


@kernel
def unlock(s: Machine, who: int) -> bool:
    """Give mmu_lock back: the entry is what the order promised, and a table that others may still walk is detached."""
    b = s.building[who]
    if b[B_GONE] == 0:
        unlocked = False
        for i in range(ORDER_WORDS):
            code = s.orders[b[B_ORDER], i]
            if code < 0:
                break
            if unlocked and _TEAR_DOWNS >> code & 1:
                give_up_table(s, who)
            unlocked = unlocked or code == _UNLOCK
        judge_end(s, who)
    record = s.records[b[B_NUMBER] & (s.geo.record_rows - 1)]
    store(s.ended, b[B_NUMBER] & (s.geo.record_rows - 1), b[B_NUMBER])
    drop_lock(s, who)
    record[R_UNLOCKED_NS] = clock_ns()
    return True


@kernel
def judge_end(s: Machine, who: int) -> None:
    """A rebuild leaves the block that it promised, for good: valid, and without nT.

    Under a shared mmu_lock, or one that was given up meanwhile, the entry may be another's by now, so what counts is
    what our own steps left.
    """
    b = s.building[who]
    left = 0 if b[B_BROKEN] else b[B_HELD]
    there = left if s.geo.shared != 0 or b[B_YIELDED] != 0 else load(s.tables, b[B_INDEX])
    leaf = leaf_descriptor(s.geo, b[B_FRAME], b[B_LEVEL])
    if there != leaf:
        detail = LEFT_NT if is_leaf(there, b[B_LEVEL]) and has_nt(there) else LEFT_INVALID
        broke_rule(s, _NOT_INSTALLED, who, b[B_GFN], b[B_LEVEL], there, leaf, detail)


@kernel
def invalidate(s: Machine, who: int) -> bool:
    """Break the entry."""
    b = s.building[who]
    if not break_entry(s, b[B_INDEX], b[B_HELD], b[B_LEVEL], b[B_GFN], b[B_NUMBER], who):
        return False
    b[B_BROKEN] = 1
    put_page(s, page_of(s, b[B_INDEX]))
    return True


@kernel
def make(s: Machine, who: int, leaf: int) -> bool:
    """Make ``leaf`` the entry, which we broke or which is still what we know."""
    b = s.building[who]
    ours = True
    if b[B_BROKEN]:
        set_entry(s, b[B_INDEX], leaf, b[B_LEVEL], b[B_GFN], who)
        get_page(s, page_of(s, b[B_INDEX]))
    else:
        ours = swap_entry(s, b[B_INDEX], b[B_HELD], leaf, b[B_LEVEL], b[B_GFN], who)
    b[B_HELD] = leaf
    b[B_BROKEN] = 0
    return ours


@kernel
def install(s: Machine, who: int, nt: bool) -> bool:
    """Make the block the entry, with nT set if ``nt``."""
    leaf = leaf_descriptor(s.geo, s.building[who, B_FRAME], s.building[who, B_LEVEL])
    return make(s, who, with_nt(leaf) if nt else leaf)


@kernel
def clear_nt(s: Machine, who: int) -> bool:
    """Store the block once more without nT. If it is not there any more, neither is its nT."""
    b = s.building[who]
    leaf = leaf_descriptor(s.geo, b[B_FRAME], b[B_LEVEL])
    held = b[B_HELD]
    # Both sizes may be in a TLB from level 2 on (R_KFLJB, R_PVTFW).
    early = s.geo.bbm_level < bbm.ANY_SIZE and reachable(s, who)
    if b[B_BROKEN]:  # it was this very block: what TLBs may hold of it is right
        settle_entry(s, b[B_INDEX], b[B_LEVEL], b[B_GFN], LOCKED, who)
    make(s, who, leaf)
    if early:
        broke_rule(s, _BBM, who, b[B_GFN], b[B_LEVEL], held, leaf, bbm.NT_CLEARED)
    return True


@kernel
def clean(s: Machine, who: int, unmapped: bool) -> bool:
    """Clean the block to the PoC, or only what the old table does not map if ``unmapped``."""
    b = s.building[who]
    if s.geo.inject & NO_CMO != 0 and frame_not_at_poc(s, b[B_FRAME], b[B_LEVEL]) >= 0 and injected(s, NO_CMO):
        return True
    if s.geo.cmo_per_fault == 0:  # else whoever rebuilds has cleaned before
        if unmapped:
            cleaned = clean_unmapped(s, table_of(s, who), b[B_LEVEL] + 1, b[B_FRAME], who)
        else:
            cleaned = clean_frames(s, b[B_FRAME], pages_at(s.geo, b[B_LEVEL]), who)
        s.records[b[B_NUMBER] & (s.geo.record_rows - 1), R_CLEANED] += cleaned
    return True


@kernel
def give_up_table(s: Machine, who: int) -> None:
    """From here on the old tables are nobody's, and are torn down now or later."""
    b = s.building[who]
    b[B_DETACHED] = 1 + grace_clock(s)
    detach(s, table_of(s, who), b[B_LEVEL] + 1, who)


@kernel
def look_after_yield(s: Machine, who: int) -> bool:
    """mmu_lock was given up in the tear-down: False if the run stops, or if the block must not be made any more.

    The entry that we broke is ours as long as it names us: an unmap may have emptied it, or freed its table. It may
    not become the block that we noted once the host's mappings or dirty logging changed. A block that stands already is
    like any other, and whoever held mmu_lock may have changed it.
    """
    b = s.building[who]
    if b[B_LOCKED_NS] == 0:
        b[B_GONE] = STOPPED_WAITING
        return False
    if b[B_BROKEN] == 0:
        return True
    index, level = find(s, b[B_GFN], b[B_LEVEL])
    ours = index == b[B_INDEX] and level == b[B_LEVEL]
    ours = ours and window_of(load(s.tables, index)) == b[B_NUMBER] & REBUILD_MASK
    if (ours and load(s.control, HOST_SEQUENCE) == b[B_SEEN]) or injected(s, NO_RECHECK):
        return True
    fetch_add(s.totals, (b[B_ORDER], T_RESTARTS), 1)
    b[B_GONE] = MOVED
    return False


@kernel
def unmap(s: Machine, who: int, deferred: bool) -> bool:
    """Free the old tables, now or, if ``deferred``, after a grace period."""
    b = s.building[who]
    entry = load(s.tables, b[B_INDEX])
    if not is_table(entry, b[B_LEVEL]) and injected(s, ENTRY_READ_AGAIN):
        return True  # the walker lost the way to the children
    if b[B_DETACHED] == 0:
        give_up_table(s, who)
    table, level = table_of(s, who), b[B_LEVEL] + 1
    if reachable(s, who):
        broke_rule(s, _AFTER_FREE, who, b[B_GFN], b[B_LEVEL], b[B_OLD], entry, FREED_TOO_EARLY)
    clock = b[B_DETACHED] - 1
    if not deferred or not defer(s, table, level, b[B_GFN], b[B_ORDER], clock, who):
        if not grace(s, who):
            b[B_GONE] = STOPPED_WAITING
            return False
        freed = tear_down(s, table, level, b[B_GFN], clock, who)
        s.records[b[B_NUMBER] & (s.geo.record_rows - 1), R_FREED] += freed
        return b[B_YIELDED] == 0 or look_after_yield(s, who)
    return True


@kernel
def perform(s: Machine, who: int, step: int) -> bool:
    """Do one step; False if the rebuild is to be given up."""
    if step == _INVALIDATE:
        return invalidate(s, who)
    if step == _TLBI:
        if injected(s, TABLE_LEVEL_HINT):
            b = s.building[who]
            hint = b[B_LEVEL] << TLBI_HINT
            tlbi_ipas(s, b[B_GFN], (b[B_GFN] + pages_at(s.geo, b[B_LEVEL])) | hint, who, _TLBI_RANGE)
        else:
            tlbi_vmid(s, who)
        return True
    if step == _TLBI_IPA:
        tlbi_range(s, s.building[who, B_GFN], s.building[who, B_GFN] + 1, who)
        return True
    if step == _CLEAN or step == _CLEAN_UNMAPPED:
        return clean(s, who, step == _CLEAN_UNMAPPED)
    if step == _INSTALL or step == _INSTALL_NT:
        return install(s, who, step == _INSTALL_NT)
    if step == _CLEAR_NT:
        return clear_nt(s, who)
    if step == _LOCK:
        return lock(s, who)
    if step == _UNLOCK:
        return unlock(s, who)
    return unmap(s, who, step == _UNMAP_DEFERRED)
