"""The rebuild: one interpreter for every order's steps, timed inside compiled code.

The rebuilder is the hypervisor process, or a vCPU in its fault handler. It takes a batch of adjacent tables, and does
each step for all of them before the next. Under a shared mmu_lock the first step that changes an entry decides which
process rebuilds it; one that comes too late leaves a void record, and goes on with the others of its batch.
"""

from __future__ import annotations

from stress.kernels.batch import begin, gather, record_row, table_of
from stress.kernels.clean import clean_frames
from stress.kernels.codes import STOPPED
from stress.kernels.descriptor import pages_at
from stress.kernels.holding import drop_lock, take_lock
from stress.kernels.records import close_inside, open_records
from stress.kernels.steps import LOST, MOVED, STOPPED_WAITING, look_after_yield, perform, perform_together, unlock
from stress.kernels.teardown import count_mapped
from stress.orders import Step, mask_of
from stress.shm.accounts import (
    AT_STEP,
    COSTS_CUT,
    K_ORDER,
    R_END_NS,
    R_INVALID_NS,
    R_LEFT,
    R_MAPPED,
    R_START_NS,
    R_STEPS,
    R_VALID_NS,
    R_VOID,
    T_LOST,
    VOIDED,
    State,
)
from stress.shm.atomics import fetch_add, load, store
from stress.shm.jit import entry, kernel
from stress.shm.layout import Machine
from stress.shm.placement import out_of_line
from stress.shm.syscalls import clock_ns
from stress.shm.trace_log import end_trace_with
from stress.shm.words import (
    B_BROKEN,
    B_CLEANED,
    B_FRAME,
    B_GFN,
    B_GONE,
    B_LEVEL,
    B_NUMBER,
    B_ORDER,
    BATCH_LOCKED_NS,
    BATCH_SIZE,
    BATCH_YIELDED,
    CYCLE,
    ORDER_WORDS,
)

_DWELL = int(State.DWELL)
_LOCK = Step.LOCK.code
_UNLOCK = Step.UNLOCK.code
_OPENS = mask_of(lambda facts: facts.opens)
_INSTALLS = mask_of(lambda facts: facts.installs)
_TEAR_DOWNS = mask_of(lambda facts: facts.tears_down)
_TOGETHER = mask_of(lambda facts: facts.together)
DONE = 0
NOT_A_TABLE = 1
VOID = 2


@kernel
def step_of(s: Machine, who: int, one: int, step: int, start_ns: int) -> int:
    """Do a step to one entry, which takes time from ``start_ns`` on; returns the time when it is done."""
    b = s.building[who, one]
    record = s.records[record_row(s, who, one)]
    if _OPENS >> step & 1:
        record[R_INVALID_NS] = start_ns
    was_broken = b[B_BROKEN]
    going_on = perform(s, who, one, step)
    now = clock_ns()
    if _INSTALLS >> step & 1 or (was_broken and not b[B_BROKEN]):
        record[R_VALID_NS] = now
    if not going_on and b[B_GONE] == 0:
        b[B_GONE] = LOST
        fetch_add(s.totals, (b[B_ORDER], T_LOST), 1)
    return now


@kernel
def note_step(s: Machine, who: int, step: int, at: int, start_ns: int, end_ns: int) -> int:
    """Record the time of an order's step ``at``, which all entries share; returns how many of them are not given up."""
    left = 0
    for one in range(s.batches[who, BATCH_SIZE]):
        record = s.records[record_row(s, who, one)]
        if record[R_VOID] != 0:
            continue
        record[R_STEPS + at] = end_ns - start_ns
        if step != _UNLOCK:
            record[R_END_NS] = end_ns
        if s.building[who, one, B_GONE] == 0:
            left += 1
        else:
            record[R_VOID] = 1
            fetch_add(s.tally, VOIDED, 1)
    return left


@kernel
def carry_out(s: Machine, who: int, requested_ns: int) -> int:
    """Rebuild the batch by the order under test, and give mmu_lock back if held; DONE, or VOID if all is given up."""
    out_of_line()
    batch = s.batches[who]
    size = batch[BATCH_SIZE]
    order = open_records(s, who, requested_ns)
    first = 0
    if batch[BATCH_LOCKED_NS] != 0:
        if s.orders[order, 0] == _LOCK:
            first = 1
            for one in range(size):
                mapped = count_mapped(s, table_of(s, who, one), s.building[who, one, B_LEVEL] + 1)
                s.records[record_row(s, who, one), R_MAPPED] = mapped
        else:
            drop_lock(s, who)  # the order's first steps do not need mmu_lock
    now = clock_ns()
    for one in range(size):
        record = s.records[record_row(s, who, one)]
        record[R_START_NS] = record[R_END_NS] = now
    for i in range(first, ORDER_WORDS):
        step = s.orders[order, i]
        if step < 0:
            break
        start = now
        store(s.states, (who, AT_STEP), step)
        if _TOGETHER >> step & 1:
            perform_together(s, who, step)
            now = clock_ns()
        else:
            for one in range(size):
                if s.building[who, one, B_GONE] == 0:
                    now = step_of(s, who, one, step, now)
            if _TEAR_DOWNS >> step & 1 and batch[BATCH_YIELDED] != 0:
                look_after_yield(s, who)
        if note_step(s, who, step, i, start, now) == 0:
            break
    if batch[BATCH_LOCKED_NS] != 0:
        unlock(s, who)
    store(s.states, (who, AT_STEP), -1)
    return leave_records(s, who, order)


@kernel
def leave_records(s: Machine, who: int, order: int) -> int:
    """End the rebuilds of a batch; DONE, or VOID if none of their records counts."""
    size = s.batches[who, BATCH_SIZE]
    cut = load(s.tally, COSTS_CUT) != 0  # the rebuild took less than on the platform
    done = VOID
    for one in range(size):
        record = s.records[record_row(s, who, one)]
        if record[R_VOID] == 0 and cut:
            record[R_VOID] = 1
            fetch_add(s.tally, VOIDED, 1)
        if record[R_VOID] == 0:
            done = DONE
    close_inside(s, order)
    for one in range(size):
        number, row = s.building[who, one, B_NUMBER], record_row(s, who, one)
        end_trace_with(s, number)
        store(s.ended, row, number)
        store(s.records, (row, R_LEFT), number)
    return done


@kernel
def given_up(s: Machine, who: int, why: int) -> bool:
    """Whether an entry of the batch was given up for reason ``why``."""
    found = False
    for one in range(s.batches[who, BATCH_SIZE]):
        found = found or s.building[who, one, B_GONE] == why
    return found


@kernel
def clean_before(s: Machine, who: int, gfn: int, cleaned: int) -> None:
    """With ``--cmo per-fault``: the blocks are cleaned before their rebuild, as every fault did before v5.14.

    Of the block that begins at ``gfn`` the caller has cleaned ``cleaned`` bytes.
    """
    for one in range(s.batches[who, BATCH_SIZE]):
        b = s.building[who, one]
        pages = pages_at(s.geo, b[B_LEVEL])
        if gfn & ~(pages - 1) == b[B_GFN] and cleaned != 0:
            b[B_CLEANED] = cleaned
        elif s.geo.cmo_per_fault != 0:
            b[B_CLEANED] = clean_frames(s, b[B_FRAME], pages, who)


@kernel
def locks_first(s: Machine) -> bool:
    """Whether the order under test takes mmu_lock before it does anything."""
    return s.orders[s.cycles[load(s.control, CYCLE) & (s.geo.cycle_rows - 1), K_ORDER], 0] == _LOCK


@kernel
def rebuild_tables(s: Machine, who: int, gfn: int) -> int:
    """Turn the tables of the batch around ``gfn``, at the block level, into blocks by the order under test.

    DONE, VOID if vCPUs were faster, STOPPED, or NOT_A_TABLE if there is nothing to rebuild.
    """
    done = NOT_A_TABLE
    while True:
        requested = clock_ns()
        begin(s, who, _DWELL)
        if locks_first(s) and not take_lock(s, who, requested):
            return STOPPED
        if gather(s, who, gfn, s.geo.block_level) == 0:
            if s.batches[who, BATCH_LOCKED_NS] != 0:
                drop_lock(s, who)
            return done
        clean_before(s, who, gfn, 0)
        result = carry_out(s, who, requested)
        if done != DONE:
            done = result
        if given_up(s, who, STOPPED_WAITING):
            return STOPPED
        if not given_up(s, who, MOVED):
            return done


@entry
def rebuild(s: Machine, who: int, gfn: int) -> int:
    """``rebuild_tables`` for the hypervisor process; the same results."""
    return rebuild_tables(s, who, gfn)
