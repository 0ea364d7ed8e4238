"""The rebuild: one interpreter for every order's steps, timed inside compiled code.

Who rebuilds is the hypervisor process, or a vCPU in its fault handler. Under a shared mmu_lock the first step that
changes the entry decides who rebuilds it; who comes too late leaves a void record.
"""

from __future__ import annotations

from stress.kernels.clean import clean_frames
from stress.kernels.codes import STOPPED
from stress.kernels.descriptor import pages_at
from stress.kernels.holding import drop_lock, take_lock
from stress.kernels.records import close_inside, open_record
from stress.kernels.steps import LOST, MOVED, STOPPED_WAITING, look, perform, table_of, unlock
from stress.kernels.teardown import count_mapped
from stress.orders import Step, mask_of
from stress.shm.accounts import (
    AT_STEP,
    COSTS_CUT,
    K_ORDER,
    R_CLEANED,
    R_END_NS,
    R_INVALID_NS,
    R_LEFT,
    R_LOCKED_NS,
    R_MAPPED,
    R_ORDER,
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
    B_CLOCK,
    B_FRAME,
    B_GFN,
    B_GONE,
    B_HOLD_NS,
    B_LEVEL,
    B_LOCKED_NS,
    B_LOCKS,
    B_NEXT_STATE,
    B_NUMBER,
    B_ORDER,
    B_WAIT_NS,
    CYCLE,
    ORDER_WORDS,
    SEQUENCE,
)

_DWELL = int(State.DWELL)
_LOCK = Step.LOCK.code
_UNLOCK = Step.UNLOCK.code
_OPENS = mask_of(lambda facts: facts.opens)
_INSTALLS = mask_of(lambda facts: facts.installs)
_UNLINKS = mask_of(lambda facts: facts.unlinks)
DONE = 0
NOT_A_TABLE = 1
VOID = 2


@kernel
def begin(s: Machine, who: int, next_state: int) -> None:
    """Before ``who`` rebuilds: nothing is accounted for yet. It is in ``next_state`` once it gave mmu_lock back."""
    b = s.building[who]
    b[B_LOCKS] = b[B_WAIT_NS] = b[B_HOLD_NS] = b[B_LOCKED_NS] = 0
    b[B_NEXT_STATE] = next_state


@kernel
def carry_out(s: Machine, who: int, requested_ns: int, cleaned: int) -> int:
    """Rebuild what ``look`` noted by the order under test, and give mmu_lock back if held; DONE or VOID.

    ``cleaned`` bytes were cleaned for it already.
    """
    out_of_line()
    b = s.building[who]
    locked = b[B_LOCKED_NS] != 0
    number = open_record(s, who, b[B_GFN], requested_ns)
    row = number & (s.geo.record_rows - 1)
    record = s.records[row]
    order = record[R_ORDER]
    b[B_NUMBER] = number
    b[B_ORDER] = order
    record[R_CLEANED] = cleaned
    record[R_LOCKED_NS] = b[B_LOCKED_NS]
    first = 0
    if locked:
        if s.orders[order, 0] == _LOCK:
            first = 1
            record[R_MAPPED] = count_mapped(s, table_of(s, who), b[B_LEVEL] + 1)
        else:
            drop_lock(s, who)  # what comes first does not need it
    now = clock_ns()
    record[R_START_NS] = record[R_END_NS] = now
    for i in range(first, ORDER_WORDS):
        step = s.orders[order, i]
        if step < 0:
            break
        start = now
        store(s.states, (who, AT_STEP), step)
        if _OPENS >> step & 1:
            record[R_INVALID_NS] = start
        was_broken = b[B_BROKEN]
        going_on = perform(s, who, step)
        now = clock_ns()
        made = _INSTALLS >> step & 1 or (was_broken and not b[B_BROKEN])
        if made:
            record[R_VALID_NS] = now
        if b[B_CLOCK] < 0 and (_UNLINKS >> step & 1):
            b[B_CLOCK] = load(s.control, SEQUENCE)  # whichever comes first unlinked the table
        record[R_STEPS + i] = now - start
        if step != _UNLOCK:
            record[R_END_NS] = now
        if not going_on:
            record[R_VOID] = 1
            if b[B_GONE] == 0:
                b[B_GONE] = LOST
                fetch_add(s.totals, (order, T_LOST), 1)
            fetch_add(s.tally, VOIDED, 1)
            break
    if b[B_LOCKED_NS] != 0:
        unlock(s, who)
    if record[R_VOID] == 0 and load(s.tally, COSTS_CUT) != 0:  # it took less than on the platform
        record[R_VOID] = 1
        fetch_add(s.tally, VOIDED, 1)
    store(s.states, (who, AT_STEP), -1)
    close_inside(s, order)
    end_trace_with(s, number)
    store(s.ended, row, number)
    store(s.records, (row, R_LEFT), number)
    return VOID if record[R_VOID] != 0 else DONE


@kernel
def locks_first(s: Machine) -> bool:
    """Whether the order under test takes mmu_lock before it does anything."""
    return s.orders[s.cycles[load(s.control, CYCLE) & (s.geo.cycle_rows - 1), K_ORDER], 0] == _LOCK


@kernel
def rebuild_table(s: Machine, who: int, gfn: int) -> int:
    """Turn the table at the block level of ``gfn`` into a block, by the order under test.

    DONE, VOID if a vCPU was faster, STOPPED, or NOT_A_TABLE if there is nothing to rebuild.
    """
    b = s.building[who]
    while True:
        requested = clock_ns()
        begin(s, who, _DWELL)
        if locks_first(s) and not take_lock(s, who, requested):
            return STOPPED
        if not look(s, who, gfn, s.geo.block_level):
            if b[B_LOCKED_NS] != 0:
                drop_lock(s, who)
            return NOT_A_TABLE
        cleaned = 0
        if s.geo.cmo_per_fault != 0:  # before v5.14 that came before any walk
            cleaned = clean_frames(s, b[B_FRAME], pages_at(s.geo, b[B_LEVEL]), who)
        done = carry_out(s, who, requested, cleaned)
        if b[B_GONE] == STOPPED_WAITING:
            return STOPPED
        if b[B_GONE] != MOVED:
            return done


@entry
def rebuild(s: Machine, who: int, gfn: int) -> int:
    """``rebuild_table`` on its own."""
    return rebuild_table(s, who, gfn)
