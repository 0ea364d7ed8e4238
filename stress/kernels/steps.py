"""What each step of an order does to the entries that a process is rebuilding, or splitting: one function per step.

All that steps know of each other stands in the process's rows of regions "batches" and "building", nothing in the
interpreter. A step works on one entry of the batch, or on all together; a split is a batch of one. A step returns
False if another process was faster: that entry is then given up, as it is if what the step was to work on moved.
"""

from __future__ import annotations

from stress.arch import bbm
from stress.bugs import ENTRY_READ_AGAIN, FIRST_OF_BATCH, NO_CMO, NO_RECHECK, RANGE_UNALIGNED, TABLE_LEVEL_HINT
from stress.kernels.batch import moved, reachable, record_row, still_ours, table_of
from stress.kernels.clean import clean_frames, clean_unmapped, frame_not_at_poc
from stress.kernels.codes import FREED_TOO_EARLY, LEFT_INVALID, LEFT_NT, LINKED_UNWRITTEN
from stress.kernels.descriptor import (
    LOCKED,
    first_frame,
    has_nt,
    is_leaf,
    is_table,
    leaf_descriptor,
    pages_at,
    table_descriptor,
    with_nt,
)
from stress.kernels.entries import break_entry, page_of, set_entry, settle_entry, swap_entry, tlbi_entry
from stress.kernels.grace import grace, grace_clock
from stress.kernels.holding import drop_lock, take_lock
from stress.kernels.inject import injected
from stress.kernels.oracle import broke_rule
from stress.kernels.pool import clear_table, get_page, put_page
from stress.kernels.teardown import count_mapped, defer, detach, tear_down
from stress.kernels.tlbi import tlbi_ipas, tlbi_range, tlbi_vmid
from stress.kernels.unlinked import fill_table
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
    B_ASKED,
    B_BROKEN,
    B_BUILT,
    B_CLOCK,
    B_DETACHED,
    B_FRAME,
    B_GFN,
    B_GONE,
    B_HELD,
    B_INDEX,
    B_LEVEL,
    B_NUMBER,
    B_OLD,
    B_ORDER,
    B_SHARE,
    B_TABLE,
    B_WRITABLE,
    BATCH_LOCKED_NS,
    BATCH_SIZE,
    BATCH_YIELDED,
    COVERED,
    EMPTY_TABLE,
    GRACE_DONE,
    LINKED,
    ORDER_WORDS,
    SEQUENCE,
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
_BUILD = Step.BUILD.code
_LINK = Step.LINK.code
_TEAR_DOWNS = mask_of(lambda facts: facts.tears_down)

# Why a rebuild was given up (B_GONE); 0: it was not.
LOST = 1  # another rebuilder was faster
MOVED = 2  # the entry or the host's mapping moved while mmu_lock was not held
STOPPED_WAITING = 3  # the run ends


@kernel
def lock(s: Machine, who: int) -> None:
    """Take mmu_lock, and look again: what was done without it may have been for another entry, or another frame.

    As ``mmu_invalidate_retry`` in KVM's fault handlers (Linux 6.1): an entry that moved is given up, and all entries
    are if the run stops.
    """
    requested = clock_ns()
    taken = take_lock(s, who, requested)
    for entry in range(s.batches[who, BATCH_SIZE]):
        b = s.building[who, entry]
        record = s.records[record_row(s, who, entry)]
        record[R_REQUESTED_NS] = requested
        record[R_LOCKED_NS] = s.batches[who, BATCH_LOCKED_NS]
        if not taken:
            b[B_GONE] = STOPPED_WAITING
        elif moved(s, who, entry):
            fetch_add(s.totals, (b[B_ORDER], T_RESTARTS), 1)
            b[B_GONE] = MOVED
        else:
            record[R_MAPPED] = count_mapped(s, table_of(s, who, entry), b[B_LEVEL] + 1)


@kernel
def unlock(s: Machine, who: int) -> None:
    """Give mmu_lock back: entries are what the order promised, and tables that others may still walk are detached."""
    unlocked = False
    for i in range(ORDER_WORDS):
        code = s.orders[s.building[who, 0, B_ORDER], i]
        if code < 0:
            break
        if unlocked and _TEAR_DOWNS >> code & 1:
            give_up_tables(s, who)
        unlocked = unlocked or code == _UNLOCK
    size = s.batches[who, BATCH_SIZE]
    for entry in range(size):
        if s.building[who, entry, B_GONE] == 0:
            judge_end(s, who, entry)
        store(s.ended, record_row(s, who, entry), s.building[who, entry, B_NUMBER])
    drop_lock(s, who)
    now = clock_ns()
    for entry in range(size):
        s.records[record_row(s, who, entry), R_UNLOCKED_NS] = now


@kernel
def judge_end(s: Machine, who: int, entry: int) -> None:
    """Report a rebuild that did not leave the block that it promised: valid, and without nT.

    Under a shared mmu_lock, or one that was given up meanwhile, the entry may belong to another process by now, so that
    only what this rebuild's own steps left counts.
    """
    b = s.building[who, entry]
    left = 0 if b[B_BROKEN] else b[B_HELD]
    there = left if s.geo.shared != 0 or s.batches[who, BATCH_YIELDED] != 0 else load(s.tables, b[B_INDEX])
    leaf = leaf_descriptor(s.geo, b[B_FRAME], b[B_LEVEL])
    if there != leaf:
        detail = LEFT_NT if is_leaf(there, b[B_LEVEL]) and has_nt(there) else LEFT_INVALID
        broke_rule(s, _NOT_INSTALLED, who, b[B_GFN], b[B_LEVEL], there, leaf, detail)


@kernel
def note_unlinked(s: Machine, who: int, entry: int) -> None:
    """Note the clock of the first store that replaced the entry: that store unlinked the table, or the block."""
    if s.building[who, entry, B_CLOCK] == LINKED:
        s.building[who, entry, B_CLOCK] = load(s.control, SEQUENCE)


@kernel
def invalidate(s: Machine, who: int, entry: int) -> bool:
    """Break the entry."""
    b = s.building[who, entry]
    if not break_entry(s, b[B_INDEX], b[B_HELD], b[B_LEVEL], b[B_GFN], b[B_NUMBER], who):
        return False
    b[B_BROKEN] = 1
    put_page(s, page_of(s, b[B_INDEX]))
    note_unlinked(s, who, entry)
    return True


@kernel
def tlbi(s: Machine, who: int) -> None:
    """Invalidate what TLBs hold of all the entries, with one TLBI."""
    size = s.batches[who, BATCH_SIZE]
    b = s.building[who, 0]
    end = s.building[who, size - 1, B_GFN] + pages_at(s.geo, b[B_LEVEL])
    table = is_table(b[B_OLD], b[B_LEVEL])
    late = b[B_ASKED] - b[B_GFN] if table else 0
    if table and injected(s, TABLE_LEVEL_HINT):
        tlbi_ipas(s, b[B_GFN], end | b[B_LEVEL] << TLBI_HINT, who, _TLBI_RANGE)
    elif late != 0 and injected(s, RANGE_UNALIGNED):
        tlbi_ipas(s, b[B_ASKED], end + late, who, _TLBI_RANGE)
    elif size > 1 and injected(s, FIRST_OF_BATCH):
        if tlbi_range(s, b[B_GFN], b[B_GFN] + pages_at(s.geo, b[B_LEVEL]), who) and b[B_CLOCK] != LINKED:
            b[B_CLOCK] = COVERED
            if b[B_BROKEN]:
                settle_entry(s, b[B_INDEX], b[B_LEVEL], b[B_GFN], LOCKED, who)
    else:
        tlbi_vmid(s, who)


@kernel
def tlbi_ipa(s: Machine, who: int, entry: int) -> bool:
    """Invalidate by one IPA: all that TLBs hold of a block, of what a table maps one page."""
    b = s.building[who, entry]
    block = is_leaf(b[B_OLD], b[B_LEVEL])
    if block and b[B_BROKEN]:
        covered = tlbi_entry(s, b[B_INDEX], b[B_LEVEL], b[B_GFN], LOCKED, who)
    else:
        covered = tlbi_range(s, b[B_GFN], b[B_GFN] + 1, who)
    if block and covered and b[B_CLOCK] != LINKED:
        b[B_CLOCK] = COVERED
    return True


@kernel
def make(s: Machine, who: int, entry: int, new: int) -> bool:
    """Store ``new`` to the entry, which this process broke, or which is still as it knows it."""
    b = s.building[who, entry]
    ours = True
    if b[B_BROKEN]:
        set_entry(s, b[B_INDEX], new, b[B_LEVEL], b[B_GFN], who)
        get_page(s, page_of(s, b[B_INDEX]))
    else:
        ours = swap_entry(s, b[B_INDEX], b[B_HELD], new, b[B_LEVEL], b[B_GFN], who)
    b[B_HELD] = new
    b[B_BROKEN] = 0
    if ours:
        note_unlinked(s, who, entry)
    return ours


@kernel
def install(s: Machine, who: int, entry: int, nt: bool) -> bool:
    """Make the block the entry, with nT set if ``nt``."""
    b = s.building[who, entry]
    leaf = leaf_descriptor(s.geo, b[B_FRAME], b[B_LEVEL])
    return make(s, who, entry, with_nt(leaf) if nt else leaf)


@kernel
def build(s: Machine, who: int, entry: int) -> bool:
    """Write every entry of the new table, which is to take the block's place."""
    b = s.building[who, entry]
    clear_table(s, b[B_TABLE])
    if b[B_SHARE] != EMPTY_TABLE:
        first = first_frame(s.geo, b[B_OLD], b[B_LEVEL])
        fill_table(s, b[B_TABLE], b[B_LEVEL] + 1, first, b[B_SHARE], b[B_WRITABLE] != 0, who)
    b[B_BUILT] = 1
    return True


@kernel
def link(s: Machine, who: int, entry: int) -> bool:
    """Let the entry point to the new table, which must have been written."""
    b = s.building[who, entry]
    table = table_descriptor(s.geo, b[B_TABLE])
    ours = make(s, who, entry, table)
    if ours and b[B_BUILT] == 0:
        held = load(s.tables, b[B_TABLE] << s.geo.index_bits)
        broke_rule(s, _AFTER_FREE, who, b[B_GFN], b[B_LEVEL], held, table, LINKED_UNWRITTEN)
    return ours


@kernel
def clear_nt(s: Machine, who: int, entry: int) -> bool:
    """Store the block once more without nT. If the block is not there any more, neither is its nT."""
    b = s.building[who, entry]
    leaf = leaf_descriptor(s.geo, b[B_FRAME], b[B_LEVEL])
    held = b[B_HELD]
    # Both sizes may be in a TLB from level 2 on (R_KFLJB, R_PVTFW).
    early = s.geo.bbm_level < bbm.ANY_SIZE and reachable(s, who, entry)
    if b[B_BROKEN]:  # the entry was this very block before, so what TLBs may hold of it is right
        settle_entry(s, b[B_INDEX], b[B_LEVEL], b[B_GFN], LOCKED, who)
    make(s, who, entry, leaf)
    if early:
        broke_rule(s, _BBM, who, b[B_GFN], b[B_LEVEL], held, leaf, bbm.NT_CLEARED)
    return True


@kernel
def clean(s: Machine, who: int, entry: int, unmapped: bool) -> bool:
    """Clean the block to the PoC, or only what the old table does not map if ``unmapped``."""
    b = s.building[who, entry]
    if s.geo.inject & NO_CMO != 0 and frame_not_at_poc(s, b[B_FRAME], b[B_LEVEL]) >= 0 and injected(s, NO_CMO):
        return True
    if s.geo.cmo_per_fault == 0:  # else the rebuilder has cleaned before its steps
        if unmapped:
            cleaned = clean_unmapped(s, table_of(s, who, entry), b[B_LEVEL] + 1, b[B_FRAME], who)
        else:
            cleaned = clean_frames(s, b[B_FRAME], pages_at(s.geo, b[B_LEVEL]), who)
        s.records[record_row(s, who, entry), R_CLEANED] += cleaned
    return True


@kernel
def give_up_tables(s: Machine, who: int) -> None:
    """Detach the old tables for good: they are torn down now or later, all after one grace period."""
    for entry in range(s.batches[who, BATCH_SIZE]):
        b = s.building[who, entry]
        if b[B_GONE] == 0:
            b[B_DETACHED] = 1 + grace_clock(s)
            detach(s, table_of(s, who, entry), b[B_LEVEL] + 1, who)


@kernel
def look_after_yield(s: Machine, who: int) -> None:
    """After mmu_lock was given up in a tear-down: give up all if the run stops, else what must not become a block.

    An entry that this process broke is its own as long as the entry names its rebuild: an unmap may have emptied the
    entry, or freed its table. The entry may not become the noted block once the host's mappings or dirty logging
    changed. A block that stands already is like any other, and another holder of mmu_lock may have changed it. All
    tables are torn down by now.
    """
    for entry in range(s.batches[who, BATCH_SIZE]):
        b = s.building[who, entry]
        if b[B_GONE] != 0:
            continue
        if s.batches[who, BATCH_LOCKED_NS] == 0:
            b[B_GONE] = STOPPED_WAITING
        elif b[B_BROKEN] != 0 and not still_ours(s, who, entry) and not injected(s, NO_RECHECK):
            fetch_add(s.totals, (b[B_ORDER], T_RESTARTS), 1)
            b[B_GONE] = MOVED


@kernel
def unmap(s: Machine, who: int, entry: int, deferred: bool) -> bool:
    """Free the old tables, now or, if ``deferred``, after a grace period."""
    b = s.building[who, entry]
    there = load(s.tables, b[B_INDEX])
    if not is_table(there, b[B_LEVEL]) and injected(s, ENTRY_READ_AGAIN):
        return True  # the walker lost its way to the tables below
    if b[B_DETACHED] == 0:
        give_up_tables(s, who)
    table, level = table_of(s, who, entry), b[B_LEVEL] + 1
    if reachable(s, who, entry):
        broke_rule(s, _AFTER_FREE, who, b[B_GFN], b[B_LEVEL], b[B_OLD], there, FREED_TOO_EARLY)
    clock = b[B_DETACHED] - 1
    if not deferred or not defer(s, table, level, b[B_GFN], b[B_ORDER], clock, who):
        if (entry == 0 or load(s.control, GRACE_DONE) <= clock) and not grace(s, who):
            b[B_GONE] = STOPPED_WAITING
            return False
        freed = tear_down(s, table, level, b[B_GFN], clock, who)
        s.records[record_row(s, who, entry), R_FREED] += freed
    return True


@kernel
def perform(s: Machine, who: int, entry: int, step: int) -> bool:
    """Do one step of a rebuild to one entry; False if that is to be given up."""
    if step == _INVALIDATE:
        return invalidate(s, who, entry)
    if step == _TLBI_IPA:
        return tlbi_ipa(s, who, entry)
    if step == _CLEAN or step == _CLEAN_UNMAPPED:
        return clean(s, who, entry, step == _CLEAN_UNMAPPED)
    if step == _INSTALL or step == _INSTALL_NT:
        return install(s, who, entry, step == _INSTALL_NT)
    if step == _CLEAR_NT:
        return clear_nt(s, who, entry)
    return unmap(s, who, entry, step == _UNMAP_DEFERRED)


@kernel
def perform_together(s: Machine, who: int, step: int) -> None:
    """Do one step to all entries at once."""
    if step == _TLBI:
        tlbi(s, who)
    elif step == _LOCK:
        lock(s, who)
    else:
        unlock(s, who)


@kernel
def perform_split(s: Machine, who: int, step: int) -> bool:
    """Do one step of a split, whose callers need not compile those of rebuilds; False if it is to be given up."""
    if step == _INVALIDATE:
        return invalidate(s, who, 0)
    if step == _TLBI_IPA:
        return tlbi_ipa(s, who, 0)
    if step == _BUILD:
        return build(s, who, 0)
    if step == _LINK:
        return link(s, who, 0)
    tlbi(s, who)
    return True
