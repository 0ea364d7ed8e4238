"""A rebuild in virtual time: each step of an order as what it costs, whom it waits for, and what others see of it."""

from __future__ import annotations

from stress.arch.bbm import MAY_ABORT
from stress.orders import Scope, Step, mask_of
from stress.predict import virtual as v
from stress.predict.accounting import (
    REBUILD,
    RETRY,
    clean,
    done,
    wake,
)
from stress.predict.agenda import ask, give_back, grace, schedule, tear_down, tlbi, tlbi_done
from stress.predict.chunks import keeps_lock, next_block
from stress.predict.decorators import kernel
from stress.predict.guest_time import cut_programs, cut_rows, enter_rebuild
from stress.predict.mapped_below import mapped_pages, tables_below, unmapped_ranges
from stress.predict.roaming import after_change, before_change, meets
from stress.predict.virtual import World

_LOCK = Step.LOCK.code
_UNLOCK = Step.UNLOCK.code
_CLEAN_UNMAPPED = Step.CLEAN_UNMAPPED.code
_INSTALL_NT = Step.INSTALL_NT.code
_CLEAR_NT = Step.CLEAR_NT.code
_CLEANS = mask_of(lambda facts: facts.cleans)
_OPENS = mask_of(lambda facts: facts.opens)
_INSTALLS = mask_of(lambda facts: facts.installs)
_TLBIS = mask_of(lambda facts: facts.tlbi)
_BY_IPA = mask_of(lambda facts: facts.tlbi is Scope.IPA)
_TEAR_DOWNS = mask_of(lambda facts: facts.tears_down)
_DEFERRED = mask_of(lambda facts: facts.deferred)


@kernel
def draft_of(w: World, who: int, entry: int) -> int:
    """Row of ``draft`` for an entry of the batch that ``who`` rebuilds."""
    return int(who * w.s.control[v.BATCH] + entry)


@kernel
def gather(w: World, who: int, number: int) -> int:
    """Note the blocks of the batch around ``number`` that are tables; how many they are."""
    first = number - number % w.s.control[v.BATCH]
    size = 0
    for each in range(first, min(first + w.s.control[v.BATCH], w.block.shape[0])):
        block = w.block[each]
        may = each == number or block[v.B_ALLOWED] != 0
        if may and block[v.B_KIND] == v.TABLE and block[v.B_OWNER] == 0:
            draft = w.draft[draft_of(w, who, size)]
            draft[:] = 0
            draft[v.R_BLOCK], draft[v.D_VERSION] = each, block[v.B_VERSION]
            draft[v.D_MOVES] = w.s.control[v.MOVES]
            size += 1
    w.s.actor[who, v.A_SIZE] = size
    return size


@kernel
def approach(w: World, who: int, number: int, cleaned: int, now: int) -> bool:
    """Rebuild the batch around ``number``; False if nothing of it is a table.

    Before v5.14 whoever does it cleans all its blocks first, but for ``cleaned`` of them, which it has cleaned already.
    """
    if gather(w, who, number) == 0:
        return False
    takes = 0
    if w.s.control[v.CMO_PER_FAULT] != 0:
        for _ in range(cleaned, w.s.actor[who, v.A_SIZE]):
            takes += clean(w, w.s.control[v.BLOCK_PAGES])
    w.s.actor[who, v.A_PHASE] = v.BEFORE
    if takes > 0:
        schedule(w, who, now + takes)
    else:
        begin_rebuild(w, who, now)
    return True


@kernel
def begin_rebuild(w: World, who: int, now: int) -> None:
    """Look at the batch that was gathered; a handler holds mmu_lock."""
    a = w.s.actor[who]
    for entry in range(a[v.A_SIZE]):
        draft = w.draft[draft_of(w, who, entry)]
        draft[v.R_CYCLE] = w.s.control[v.CYCLE]
        draft[v.R_INVALID] = draft[v.R_VALID] = -1
        draft[v.R_REQUESTED], draft[v.R_LOCKED] = a[v.A_ASKED], a[v.A_LOCKED]
        draft[v.D_TABLES] = tables_below(w, draft[v.R_BLOCK])
    a[v.A_STEP] = a[v.A_STALE] = 0
    count_tables(w, who)
    enter_rebuild(w, now, 1)
    takes = a[v.A_SIZE] * w.s.cost[v.K_REBUILD]
    if takes > 0:
        a[v.A_PHASE] = v.GATHER
        schedule(w, who, now + takes)
    else:
        go_through_steps(w, who, now)


@kernel
def go_through_steps(w: World, who: int, now: int) -> None:
    """Rebuild the batch. A handler's mmu_lock is given back by an order that does not begin with it."""
    a = w.s.actor[who]
    for entry in range(a[v.A_SIZE]):
        draft = w.draft[draft_of(w, who, entry)]
        draft[v.R_START] = draft[v.R_END] = now
    if a[v.A_LOCKED] >= 0:
        if w.s.order[0] == _LOCK:
            a[v.A_STEP] = 1
            for entry in range(a[v.A_SIZE]):
                draft = w.draft[draft_of(w, who, entry)]
                draft[v.R_MAPPED] = mapped_pages(w, draft[v.R_BLOCK])
        else:
            give_back(w, who, now)
    do_steps(w, who, now)


@kernel
def count_tables(w: World, who: int) -> int:
    """How many blocks of the batch are not given up; their tables are what there is to tear down."""
    a = w.s.actor[who]
    a[v.A_TABLES] = 0
    left = 0
    for entry in range(a[v.A_SIZE]):
        draft = w.draft[draft_of(w, who, entry)]
        if draft[v.D_GONE] == 0:
            a[v.A_TABLES] += draft[v.D_TABLES]
            left += 1
    return left


@kernel
def step_takes(w: World, who: int, code: int, now: int) -> int:
    """ps that a step takes which begins now, and needs mmu_lock or a grace period no more."""
    if _TLBIS >> code & 1 and not _BY_IPA >> code & 1:
        return tlbi(w, w.s.cost[v.K_TLBI], now) - now
    if _TEAR_DOWNS >> code & 1 and not _DEFERRED >> code & 1:
        return tear_down(w, who)
    at = now
    issued = False
    for entry in range(w.s.actor[who, v.A_SIZE]):
        draft = w.draft[draft_of(w, who, entry)]
        if draft[v.D_GONE] != 0:
            continue
        if _TLBIS >> code & 1:
            if issued:
                tlbi_done(w)  # the same core waits for the next
            at = tlbi(w, w.s.cost[v.K_TLBI_IPA], at)
            issued = True
        else:
            at = clean_done(w, draft[v.R_BLOCK], code, at)
    return at - now


@kernel
def clean_done(w: World, number: int, code: int, at: int) -> int:
    """When a step to one entry is done that begins at ``at``: it takes time if it cleans."""
    if not _CLEANS >> code & 1 or w.s.control[v.FWB] != 0 or w.s.control[v.CMO_PER_FAULT] != 0:
        return at
    if code != _CLEAN_UNMAPPED:
        return at + clean(w, w.s.control[v.BLOCK_PAGES])
    pages = w.s.control[v.BLOCK_PAGES] - mapped_pages(w, number)
    w.s.sums[v.S_CLEANED] += pages * w.s.control[v.GRANULE]
    # In proportion: a page's share of a block's clean, not a rounded page many times over.
    share = pages * (w.s.cost[v.K_CLEAN_BLOCK] // w.s.control[v.BLOCK_PAGES])
    return int(at + share + unmapped_ranges(w, number) * w.s.cost[v.K_ICACHE])


@kernel
def do_steps(w: World, who: int, now: int) -> None:
    """Do the steps that come next, until one takes time."""
    a = w.s.actor[who]
    while True:
        code = w.s.order[a[v.A_STEP]] if a[v.A_STEP] < w.s.order.size else -1
        if code < 0:
            end_rebuild(w, who, now)
            return
        a[v.A_STEP_START] = now
        a[v.A_PHASE] = v.STEP
        a[v.A_VISITED] = 0
        if code == _LOCK:
            ask(w, who, now, 0, int(w.s.control[v.SHARED] == 0))
            return
        waits = _TEAR_DOWNS >> code & 1 and not _DEFERRED >> code & 1 and w.s.control[v.SHARED] != 0
        if waits and grace(w, who, now):
            a[v.A_PHASE] = v.GRACE
            return
        takes = step_takes(w, who, code, now)
        if takes > 0:
            schedule(w, who, now + takes)
            return
        if not end_step(w, who, now):
            end_rebuild(w, who, now)
            return


@kernel
def step_done(w: World, who: int, now: int) -> None:
    """A step that took time is done, or a chunk of it: on with the next."""
    a = w.s.actor[who]
    if 0 < a[v.A_VISITED] < a[v.A_TABLES] * w.s.control[v.TABLE_PAGES]:
        if w.s.control[v.QUEUED] > 0:
            w.s.sums[v.S_YIELDS] += 1
            note_yielded(w, who, -now)
            a[v.A_PHASE] = v.YIELD
            give_back(w, who, now)
            ask(w, who, now, 0, a[v.A_ALONE])
        else:
            schedule(w, who, now + tear_down(w, who))
    elif end_step(w, who, now):
        do_steps(w, who, now)
    else:
        end_rebuild(w, who, now)


@kernel
def note_yielded(w: World, who: int, time: int) -> None:
    """Add to the time in which a batch has given mmu_lock up."""
    for entry in range(w.s.actor[who, v.A_SIZE]):
        w.draft[draft_of(w, who, entry), v.R_YIELDED] += time


@kernel
def regained(w: World, who: int, now: int) -> None:
    """An actor has mmu_lock again, which it had given up: the tear-down goes on."""
    note_yielded(w, who, now)
    w.s.actor[who, v.A_PHASE] = v.STEP
    schedule(w, who, now + tear_down(w, who))


@kernel
def forget_block(w: World, number: int, now: int) -> None:
    """The table of a block is gone, and nothing takes its place."""
    before_change(w, now)
    block, size = w.block[number], w.s.control[v.BLOCK_PAGES]
    for page in range(number * size, (number + 1) * size):
        w.page[page] &= v.HAS_HOST
    block[v.B_KIND], block[v.B_OWNER], block[v.B_WINDOW] = v.EMPTY, 0, 0
    block[v.B_MAPPED] = block[v.B_READ_ONLY] = block[v.B_FILLED] = 0
    block[v.B_VERSION] += 1
    wake(w, number, -1 - number, now)
    after_change(w, now)


@kernel
def mix(w: World, who: int, number: int, now: int) -> None:
    """The block is valid: at FEAT_BBM level 2 who meets it before the TLBI aborts, for its TLB may hold pages of it."""
    block = w.block[number]
    if w.s.control[v.BBM_LEVEL] == MAY_ABORT and w.s.actor[who, v.A_STALE] != 0 and block[v.B_NT] == 0:
        block[v.B_MIXED] = 1
        for vcpu in range(w.s.control[v.VCPUS]):
            a = w.s.actor[vcpu]
            if meets(w, vcpu, number):
                a[v.A_MEETS] = number + 1
            elif a[v.A_MEETS] == number + 1:
                a[v.A_MEETS] = 0
        cut_programs(w, number, now)


@kernel
def end_step(w: World, who: int, now: int) -> bool:
    """What a step has brought about; False if all is to be given up, for others were faster."""
    a = w.s.actor[who]
    code = w.s.order[a[v.A_STEP]]
    if code == _UNLOCK:
        if not keeps_lock(w, who, v.APPROACH):
            give_back(w, who, now)
    elif _TLBIS >> code & 1:
        tlbi_done(w)
        if not _BY_IPA >> code & 1:
            a[v.A_STALE] = 0
    elif _TEAR_DOWNS >> code & 1:
        w.s.sums[v.S_FREED] += a[v.A_TABLES]
    for entry in range(a[v.A_SIZE]):
        row = draft_of(w, who, entry)
        draft = w.draft[row]
        if draft[v.D_GONE] != 0:
            continue
        end_entry(w, who, row, code, now)
        draft[v.R_STEPS + a[v.A_STEP]] = now - a[v.A_STEP_START]
        if code != _UNLOCK:
            draft[v.R_END] = now
    a[v.A_STEP] += 1
    return count_tables(w, who) > 0


@kernel
def end_entry(w: World, who: int, row: int, code: int, now: int) -> None:
    """What a step has brought about for the block of a row of ``draft``."""
    draft = w.draft[row]
    number = draft[v.R_BLOCK]
    block = w.block[number]
    moved = block[v.B_VERSION] != draft[v.D_VERSION] or (block[v.B_OWNER] != 0 and draft[v.D_BROKEN] == 0)
    host_moved = draft[v.D_MOVES] != w.s.control[v.MOVES]
    if code == _LOCK:
        draft[v.R_REQUESTED], draft[v.R_LOCKED] = w.s.actor[who, v.A_ASKED], now
        if w.s.actor[who, v.A_STEP] == 0:
            draft[v.R_START] = now
        if moved or host_moved:
            w.s.sums[v.S_RESTARTS] += 1
            draft[v.D_GONE] = 1
        draft[v.R_MAPPED] = mapped_pages(w, number)
    elif code == _UNLOCK:
        draft[v.R_UNLOCKED] = now
    elif _OPENS >> code & 1:
        if moved:
            draft[v.D_GONE] = 1
            return
        w.s.actor[who, v.A_STALE] = 1
        draft[v.D_TABLES] = tables_below(w, number) if block[v.B_KIND] == v.TABLE else draft[v.D_TABLES]
        block[v.B_OWNER], block[v.B_WINDOW] = who + 1, row + 1
        block[v.B_VERSION] += 1
        draft[v.D_VERSION], draft[v.D_BROKEN] = block[v.B_VERSION], 1
        draft[v.R_INVALID] = now
        cut_rows(w, number, now)
    elif _INSTALLS >> code & 1:
        if moved:
            draft[v.D_GONE] = 1
            return
        if draft[v.D_BROKEN] == 0:
            draft[v.D_TABLES] = tables_below(w, number)
        before_change(w, now)
        size = w.s.control[v.BLOCK_PAGES]
        for page in range(number * size, (number + 1) * size):
            w.page[page] &= v.HAS_HOST
        block[v.B_KIND], block[v.B_WRITABLE], block[v.B_OWNER] = v.LEAF, 1, 0
        block[v.B_NT] = int(code == _INSTALL_NT)
        block[v.B_MAPPED] = block[v.B_READ_ONLY] = block[v.B_FILLED] = 0
        block[v.B_VERSION] += 1
        if draft[v.D_BROKEN] == 0:
            w.s.actor[who, v.A_STALE] = 1
        draft[v.D_VERSION], draft[v.D_BROKEN] = block[v.B_VERSION], 0
        mix(w, who, number, now)
        draft[v.R_VALID] = now
        wake(w, number, -1 - number, now)
        block[v.B_WINDOW] = 0
        after_change(w, now)
    elif code == _CLEAR_NT:
        if not moved:
            before_change(w, now)
            block[v.B_NT] = 0
            mix(w, who, number, now)
            after_change(w, now)
    elif _TLBIS >> code & 1 and not _BY_IPA >> code & 1:
        if block[v.B_MIXED] != 0:
            before_change(w, now)
            block[v.B_MIXED] = 0
            after_change(w, now)
    elif _TEAR_DOWNS >> code & 1 and draft[v.D_BROKEN] != 0 and (w.s.control[v.LOGGING] != 0 or host_moved):
        w.s.sums[v.S_RESTARTS] += 1  # logging is on, or frames have moved, from while mmu_lock was given up
        forget_block(w, number, now)
        draft[v.D_GONE] = 1


@kernel
def end_rebuild(w: World, who: int, now: int) -> None:
    """The batch is done, or given up: its records, and back to the guest."""
    a = w.s.actor[who]
    locked = a[v.A_LOCKED] >= 0
    if locked and not keeps_lock(w, who, v.APPROACH):
        give_back(w, who, now)
    enter_rebuild(w, now, -1)
    rebuilt = 0
    for entry in range(a[v.A_SIZE]):
        draft = w.draft[draft_of(w, who, entry)]
        if a[v.A_STALE] != 0:  # an order without its TLBI: let its aborts have an end
            w.block[draft[v.R_BLOCK], v.B_MIXED] = 0
        if draft[v.D_GONE] != 0:
            w.s.sums[v.S_VOID] += 1
            continue
        rebuilt += 1
        if locked:
            draft[v.R_UNLOCKED] = now
        w.s.sums[v.S_REBUILDS] += 1
        if w.s.control[v.REBUILT] < w.record.shape[0]:
            for word in range(v.RECORD_WORDS):
                w.record[w.s.control[v.REBUILT], word] = draft[word]
            w.s.control[v.REBUILT] += 1
        else:
            w.s.control[v.BEYOND] += 1
    if who == w.s.control[v.VCPUS]:
        next_block(w, v.APPROACH, now)
        return
    done(w, who, REBUILD if rebuilt > 0 else RETRY, now)
