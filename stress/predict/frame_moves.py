"""What takes blocks from the table in virtual time: the MMU notifier, as frames move, and moves of the memslot.

As ``stress.kernels.notifier``: mappings go under mmu_lock held alone, with a TLBI for all and one for each table freed.
The contents of frames move after that, without the lock, for as long as it takes to copy them.
"""

from __future__ import annotations

from stress.predict import virtual as v
from stress.predict.accounting import wake
from stress.predict.agenda import schedule, tlbi, tlbi_done
from stress.predict.chunks import end_task
from stress.predict.decorators import kernel
from stress.predict.mapped_below import tables_below
from stress.predict.rebuilding import forget_block
from stress.predict.virtual import World


@kernel
def break_mappings(w: World, now: int) -> None:
    """Take the task's blocks from the table, and their tables; an entry that a rebuilder broke is left to it."""
    control = w.s.control
    control[v.MOVES] += 1
    leaves = tables = 0
    for number in range(control[v.TASK_BLOCK], control[v.TASK_END]):
        block = w.block[number]
        block[v.B_MOVING] = control[v.TASK_SETS]
        if block[v.B_OWNER] != 0 or block[v.B_KIND] == v.EMPTY:
            continue
        leaves += int(block[v.B_KIND] == v.LEAF)
        tables += tables_below(w, number) if block[v.B_KIND] == v.TABLE else 0
        forget_block(w, number, now)
    w.s.sums[v.S_FREED] += tables
    who, at = control[v.VCPUS], now
    if leaves + tables > 0:
        at = tlbi(w, w.s.cost[v.K_TLBI_IPA], at + leaves * w.s.cost[v.K_MAP] + tables * w.s.cost[v.K_UNMAP_TABLE])
        for _ in range(tables):
            tlbi_done(w)  # the same core issues the next one
            at = tlbi(w, w.s.cost[v.K_TLBI_IPA], at)
    w.s.actor[who, v.A_PHASE] = v.INVALIDATED
    w.s.actor[who, v.A_STALE] = int(at > now)
    schedule(w, who, at)


@kernel
def mappings_broken(w: World, now: int) -> None:
    """Give mmu_lock back: no TLB has what was unmapped."""
    a = w.s.actor[w.s.control[v.VCPUS]]
    if a[v.A_STALE] != 0:
        a[v.A_STALE] = 0
        tlbi_done(w)
    end_task(w, now)


@kernel
def end_move(w: World, now: int) -> None:
    """End the move of the task's blocks: faults may map them again, and as blocks if their frames are huge."""
    w.s.control[v.MOVES] += 1
    for number in range(w.s.control[v.TASK_BLOCK], w.s.control[v.TASK_END]):
        block = w.block[number]
        block[v.B_MOVING], block[v.B_ALLOWED] = 0, w.s.control[v.TASK_SETS]
        wake(w, number, -1 - number, now)
    end_task(w, now)
