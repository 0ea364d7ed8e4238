"""What fault handlers do in virtual time: KVM's ``user_mem_abort``, as costs and effects.

The decision is that of ``stress.kernels.abort``; the machine here has no frames and no descriptors, only what decides
how long things take and who waits.
"""

from __future__ import annotations

from stress.arch.geometry import LAST_LEVEL
from stress.predict import virtual as v
from stress.predict.accounting import (
    C_MAPPED_BLOCKS,
    C_MAPPED_PAGES,
    C_RELAXED,
    C_SPLITS,
    PERMISSION,
    POPULATION,
    RETRY,
    SPURIOUS,
    clean,
    done,
    finish,
    wake,
)
from stress.predict.agenda import ask, schedule, tlbi, tlbi_done
from stress.predict.decorators import kernel
from stress.predict.dividing import ALL_DONE, LOST, begin_split
from stress.predict.guest_time import begin_to_spin, level_met
from stress.predict.rebuilding import approach
from stress.predict.roaming import after_change, before_change
from stress.predict.virtual import World

DO_NOTHING, DO_RETRY, DO_RELAX, DO_MAP_BLOCK, DO_MAP_PAGE, DO_SPLIT, DO_REBUILD = range(7)


@kernel
def decide(w: World, who: int) -> int:
    """What the fault leads to, by the state of the machine now."""
    a = w.s.actor[who]
    block = w.block[a[v.A_PAGE] // w.s.control[v.BLOCK_PAGES]]
    state = w.page[a[v.A_PAGE]] & v.STATE
    busy = block[v.B_OWNER] != 0 or block[v.B_MOVING] != 0
    if busy or (block[v.B_KIND] == v.TABLE and state == v.LOCKED):
        return DO_RETRY
    wants_block = block[v.B_ALLOWED] != 0 and w.s.control[v.LOGGING] == 0
    if block[v.B_KIND] == v.EMPTY:
        return DO_MAP_BLOCK if wants_block else DO_MAP_PAGE
    if block[v.B_KIND] == v.LEAF:
        if a[v.A_WRITES] == 0 or block[v.B_WRITABLE] != 0:
            return DO_NOTHING
        return DO_RELAX if wants_block else DO_SPLIT
    if wants_block and w.s.control[v.VCPU_REBUILDS] != 0:
        return DO_REBUILD
    if state == v.UNMAPPED:
        return DO_MAP_PAGE
    return DO_NOTHING if a[v.A_WRITES] == 0 or state == v.WRITABLE else DO_RELAX


@kernel
def leave(w: World, who: int, now: int) -> None:
    """Let a vCPU that has left the guest ask for mmu_lock."""
    a = w.s.actor[who]
    w.page[a[v.A_PAGE]] |= v.HAS_HOST
    a[v.A_PHASE] = v.LOOK
    a[v.A_WAIT] = a[v.A_HOLD] = a[v.A_LOCKS] = 0
    ask(w, who, now, w.s.cost[v.K_FAULT], int(w.s.control[v.SHARED] == 0))


@kernel
def look(w: World, who: int, now: int) -> None:
    """Let the handler find out what the fault is about. Before v5.14 it cleans next, whatever it will do then."""
    a = w.s.actor[who]
    action = decide(w, who)
    a[v.A_ACTION] = action
    a[v.A_CLEANED] = 0
    if w.s.control[v.CMO_PER_FAULT] != 0 and action != DO_RELAX and action != DO_RETRY:
        block = action == DO_MAP_BLOCK or action == DO_REBUILD
        block = block or (
            w.s.control[v.LOGGING] == 0 and w.block[a[v.A_PAGE] // w.s.control[v.BLOCK_PAGES], v.B_ALLOWED] != 0
        )
        takes = clean(w, w.s.control[v.BLOCK_PAGES] if block else 1)
        if takes > 0:
            a[v.A_PHASE] = v.CLEAN
            schedule(w, who, now + takes)
            return
    act(w, who, action, now)


@kernel
def act_after_clean(w: World, who: int, now: int) -> None:
    """Go on after the handler's clean; under a shared mmu_lock another actor may have changed the entry meanwhile."""
    act(w, who, decide(w, who), now)


@kernel
def act(w: World, who: int, action: int, now: int) -> None:
    """Begin what the handler decided."""
    a = w.s.actor[who]
    a[v.A_ACTION] = action
    page = a[v.A_PAGE]
    number = page // w.s.control[v.BLOCK_PAGES]
    block = w.block[number]
    per_install = w.s.control[v.CMO_PER_FAULT] == 0
    if action == DO_NOTHING:
        done(w, who, SPURIOUS, now)
    elif action == DO_RETRY and w.s.control[v.SHARED] == 0:
        done(w, who, RETRY, now)  # the entry's owner gave mmu_lock up for a while, and will want it back
    elif action == DO_RETRY:
        finish(w, who, RETRY, now)
        if block[v.B_OWNER] != 0 or block[v.B_MOVING] != 0:
            a[v.A_MET] = block[v.B_WINDOW]
            begin_to_spin(w, who, -1 - number, now)
        else:
            a[v.A_MET] = 0
            begin_to_spin(w, who, page, now)
    elif action == DO_RELAX:
        if block[v.B_KIND] == v.LEAF:
            block[v.B_WRITABLE] = 1
        else:
            block[v.B_READ_ONLY] -= int(w.page[page] & v.STATE == v.READ_ONLY)
            w.page[page] = w.page[page] & v.HAS_HOST | v.WRITABLE
        a[v.A_PHASE] = v.RELAX
        local = w.s.cost[v.K_TLBI_LOCAL]
        schedule(w, who, now + local if local >= 0 else tlbi(w, w.s.cost[v.K_TLBI_IPA], now))
    elif action == DO_MAP_BLOCK:
        block[v.B_OWNER] = who + 1
        block[v.B_VERSION] += 1
        a[v.A_PHASE] = v.MAP
        takes = clean(w, w.s.control[v.BLOCK_PAGES]) if per_install else 0
        schedule(w, who, now + w.s.cost[v.K_MAP] + takes)
    elif action == DO_MAP_PAGE:
        tables = 0
        if block[v.B_KIND] == v.EMPTY:
            block[v.B_KIND] = v.TABLE
            block[v.B_VERSION] += 1
            tables = LAST_LEVEL - w.s.control[v.BLOCK_LEVEL]
        elif level_met(w, page) < LAST_LEVEL:
            tables = 1
        w.s.sums[v.S_ALLOCATED] += tables
        w.page[page] = w.page[page] & v.HAS_HOST | v.LOCKED
        a[v.A_PHASE] = v.MAP
        schedule(w, who, now + (1 + tables) * w.s.cost[v.K_MAP] + (clean(w, 1) if per_install else 0))
    elif action == DO_SPLIT:
        went_on_splitting(w, who, begin_split(w, who, number, 0, now), now)
    else:
        approach(w, who, number, 1, now)


@kernel
def map_entry(w: World, who: int, now: int) -> None:
    """Write the entry that the handler has made."""
    a = w.s.actor[who]
    number = a[v.A_PAGE] // w.s.control[v.BLOCK_PAGES]
    block = w.block[number]
    writable = a[v.A_WRITES] != 0 or w.s.control[v.LOGGING] == 0
    if a[v.A_ACTION] == DO_MAP_BLOCK:
        block[v.B_KIND], block[v.B_NT] = v.LEAF, 0
        block[v.B_WRITABLE] = int(writable)
        block[v.B_OWNER] = 0
        block[v.B_VERSION] += 1
        w.s.counters[who, a[v.A_INSIDE], C_MAPPED_BLOCKS] += 1
        wake(w, number, -1 - number, now)
    else:
        w.page[a[v.A_PAGE]] = w.page[a[v.A_PAGE]] & v.HAS_HOST | (v.WRITABLE if writable else v.READ_ONLY)
        block[v.B_MAPPED] += 1
        block[v.B_READ_ONLY] += int(not writable)
        w.s.counters[who, a[v.A_INSIDE], C_MAPPED_PAGES] += 1
        wake(w, number, a[v.A_PAGE], now)
    done(w, who, POPULATION, now)


@kernel
def relaxed(w: World, who: int, now: int) -> None:
    """Give write permission: the TLBI of the change is complete."""
    if w.s.cost[v.K_TLBI_LOCAL] < 0:
        tlbi_done(w)
    w.s.counters[who, w.s.actor[who, v.A_INSIDE], C_RELAXED] += 1
    done(w, who, PERMISSION, now)


@kernel
def went_on_splitting(w: World, who: int, state: int, now: int) -> None:
    """Go on with a split. After its last step the page that faulted is mapped, in the table that is there then."""
    if state == LOST:
        done(w, who, RETRY, now)
    if state != ALL_DONE:
        return
    a = w.s.actor[who]
    below = LAST_LEVEL - w.s.control[v.BLOCK_LEVEL]
    w.s.sums[v.S_ALLOCATED] += below
    a[v.A_PHASE] = v.SPLIT
    takes = below * w.s.cost[v.K_MAP] + (clean(w, 1) if w.s.control[v.CMO_PER_FAULT] == 0 else 0)
    schedule(w, who, now + takes)


@kernel
def split(w: World, who: int, now: int) -> None:
    """The page that faulted is mapped in the new table."""
    a = w.s.actor[who]
    number = a[v.A_PAGE] // w.s.control[v.BLOCK_PAGES]
    block = w.block[number]
    before_change(w, now)
    block[v.B_KIND] = v.TABLE
    block[v.B_OWNER] = 0
    block[v.B_VERSION] += 1
    block[v.B_MAPPED], block[v.B_READ_ONLY] = 1, 0
    w.page[a[v.A_PAGE]] = w.page[a[v.A_PAGE]] & v.HAS_HOST | v.WRITABLE
    w.s.counters[who, a[v.A_INSIDE], C_SPLITS] += 1
    w.s.counters[who, a[v.A_INSIDE], C_MAPPED_PAGES] += 1
    wake(w, number, -1 - number, now)
    after_change(w, now)
    done(w, who, PERMISSION, now)
