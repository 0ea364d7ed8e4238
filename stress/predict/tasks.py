"""The hypervisor as an actor in virtual time: it lets the guest run, splits, protects, rebuilds or unmaps blocks.

One task at a time, the other actors go on meanwhile. It takes mmu_lock alone, but for a rebuild under a shared one, and
keeps it over all blocks that a task splits or rebuilds.
"""

from __future__ import annotations

from stress.arch.geometry import LAST_LEVEL
from stress.orders import Step
from stress.predict import virtual as v
from stress.predict.accounting import clean, wake
from stress.predict.agenda import ask, schedule, tlbi, tlbi_done
from stress.predict.chunks import end_task, next_block
from stress.predict.cores import has_core
from stress.predict.decorators import kernel
from stress.predict.dividing import ALL_DONE, begin_split
from stress.predict.frame_moves import break_mappings, end_move, mappings_broken
from stress.predict.rebuilding import approach
from stress.predict.roaming import after_change, before_change, follow, pages_of, roams
from stress.predict.virtual import World

_LOCK = Step.LOCK.code


@kernel
def writable(w: World) -> int:
    """How many entries of the task's blocks the guest may write through."""
    found = 0
    for number in range(w.s.control[v.TASK_BLOCK], w.s.control[v.TASK_END]):
        block = w.block[number]
        if block[v.B_KIND] == v.LEAF:
            found += block[v.B_WRITABLE]
        else:
            found += block[v.B_MAPPED] - block[v.B_READ_ONLY]
    return found


@kernel
def begin_task(w: World, task: int, now: int) -> None:
    """Let the hypervisor begin a task."""
    control, cost = w.s.control, w.s.cost
    who = control[v.VCPUS]
    a = w.s.actor[who]
    a[v.A_WAIT] = a[v.A_HOLD] = a[v.A_LOCKS] = 0
    control[v.RUNNING], control[v.TASK] = 1, task
    if task == v.TO_DWELL:
        a[v.A_PHASE] = v.DWELL
        schedule(w, who, now + control[v.TASK_PS])
    elif not has_core(w, who, now):
        return
    elif task == v.TO_SPLIT:
        a[v.A_PHASE] = v.SPLIT_LOCK
        ask(w, who, now, 0, 1)
    elif task == v.TO_PROTECT:
        a[v.A_PHASE] = v.PROTECT
        ask(w, who, now, writable(w) * cost[v.K_MAP], 1)
    elif task == v.TO_UNMAP:
        a[v.A_PHASE] = v.INVALIDATE
        ask(w, who, now, 0, 1)
    elif task == v.TO_MAP:
        a[v.A_PHASE] = v.COPIES
        pages = (control[v.TASK_END] - control[v.TASK_BLOCK]) * control[v.BLOCK_PAGES]
        schedule(w, who, now + pages * cost[v.K_COPY_PAGE])
    else:
        a[v.A_PHASE] = v.APPROACH
        if w.s.order[0] == _LOCK:
            ask(w, who, now, 0, int(control[v.SHARED] == 0))
        else:
            a[v.A_ASKED] = now
            schedule(w, who, now)


@kernel
def tables_of_block(w: World) -> int:
    """How many tables an eagerly split block has: every last-level table is there, whatever it maps."""
    control = w.s.control
    return int(1 if control[v.BLOCK_LEVEL] == LAST_LEVEL - 1 else 1 + control[v.BLOCK_PAGES] // control[v.TABLE_PAGES])


@kernel
def maps_first(w: World, now: int) -> bool:
    """Clean and map the block that is to be split, where nothing is mapped yet; returns whether that is over."""
    a, block = w.s.actor[w.s.control[v.VCPUS]], w.block[w.s.control[v.TASK_BLOCK]]
    if a[v.A_CLEANED] == 0:
        a[v.A_CLEANED] = w.s.control[v.BLOCK_PAGES] * w.s.control[v.GRANULE]
        schedule(w, w.s.control[v.VCPUS], now + w.s.cost[v.K_MAP] + clean(w, w.s.control[v.BLOCK_PAGES]))
        return False
    a[v.A_CLEANED] = 0
    before_change(w, now)
    block[v.B_KIND], block[v.B_WRITABLE], block[v.B_NT] = v.LEAF, 1, 0
    block[v.B_VERSION] += 1
    after_change(w, now)
    return True


@kernel
def approach_split(w: World, now: int) -> None:
    """Look at the block that is to be split. One that is a table already stays one."""
    control = w.s.control
    block = w.block[control[v.TASK_BLOCK]]
    if block[v.B_KIND] == v.EMPTY and block[v.B_OWNER] == 0 and control[v.TASK_SETS] != 0 and not maps_first(w, now):
        return
    if block[v.B_KIND] != v.LEAF or block[v.B_OWNER] != 0:
        next_block(w, v.SPLIT_LOCK, now)
        return
    entries = (control[v.BLOCK_PAGES] * control[v.SHARE] >> 20) + tables_of_block(w) - 1
    if begin_split(w, control[v.VCPUS], control[v.TASK_BLOCK], entries, now) == ALL_DONE:
        linked(w, now)


@kernel
def linked(w: World, now: int) -> None:
    """End a split: a table is where the block was."""
    before_change(w, now)
    number, size, share = w.s.control[v.TASK_BLOCK], w.s.control[v.BLOCK_PAGES], w.s.control[v.SHARE]
    block = w.block[number]
    # Eager splitting leaves the pages as protected as the block was.
    state, mapped = v.WRITABLE if block[v.B_WRITABLE] != 0 else v.READ_ONLY, 0
    for page in range(size):
        there = ((page + 1) * share) >> 20 != (page * share) >> 20
        w.page[number * size + page] = v.HAS_HOST | (state if there else v.UNMAPPED)
        mapped += int(there)
    block[v.B_KIND], block[v.B_OWNER], block[v.B_MAPPED] = v.TABLE, 0, mapped
    block[v.B_READ_ONLY], block[v.B_FILLED] = mapped if state == v.READ_ONLY else 0, 1
    block[v.B_VERSION] += 1
    w.s.sums[v.S_ALLOCATED] += tables_of_block(w)
    wake(w, number, -1 - number, now)
    next_block(w, v.SPLIT_LOCK, now)
    after_change(w, now)


@kernel
def protected(w: World, now: int) -> None:
    """End a write protection: no TLB lets the guest write. From here on writes are logged, or faults may map blocks."""
    tlbi_done(w)
    before_change(w, now)
    size = w.s.control[v.BLOCK_PAGES]
    w.s.control[v.LOGGING] = w.s.control[v.TASK_SETS]
    for number in range(w.s.control[v.TASK_BLOCK], w.s.control[v.TASK_END]):
        block = w.block[number]
        if block[v.B_KIND] == v.LEAF:
            block[v.B_WRITABLE] = 0
        elif block[v.B_READ_ONLY] < block[v.B_MAPPED]:
            for page in range(number * size, number * size + pages_of(w, number)):
                if w.page[page] & v.STATE == v.WRITABLE:
                    w.page[page] = v.HAS_HOST | v.READ_ONLY
            block[v.B_READ_ONLY] = block[v.B_MAPPED]
    end_task(w, now)
    after_change(w, now)


@kernel
def go_on_with_task(w: World, phase: int, now: int) -> None:
    """Let the hypervisor go on: what it was at takes no longer."""
    who = w.s.control[v.VCPUS]
    if phase == v.DWELL:
        for vcpu in range(who):
            if roams(w, vcpu):
                follow(w, vcpu, now)  # the cycle may end here
        end_task(w, now)
    elif phase == v.SPLIT_LOCK:
        approach_split(w, now)
    elif phase == v.PROTECT:
        w.s.actor[who, v.A_PHASE] = v.PROTECTED
        schedule(w, who, tlbi(w, w.s.cost[v.K_TLBI], now))
    elif phase == v.PROTECTED:
        protected(w, now)
    elif phase == v.INVALIDATE:
        break_mappings(w, now)
    elif phase == v.INVALIDATED:
        mappings_broken(w, now)
    elif phase == v.COPIES:
        w.s.actor[who, v.A_PHASE] = v.MOVED
        ask(w, who, now, 0, 1)
    elif phase == v.MOVED:
        end_move(w, now)
    elif phase == v.APPROACH and not approach(w, who, w.s.control[v.TASK_BLOCK], 0, now):
        next_block(w, v.APPROACH, now)
