"""A vCPU: guest accesses through TLB and walk, each validated against the TLBI sequence before it counts.

One access: translate (TLB, else walk), touch the frame's cell, load the sequence number again. If it moved, nothing
happened: apply the invalidations and redo. The load that validates one access opens the next one's interval. A
guest store is a compare-and-swap from the cell just checked, so it cannot land in a frame that has moved.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from stress.arch.bbm import MAY_ABORT
from stress.arch.descriptors import POISON
from stress.arch.geometry import LAST_LEVEL
from stress.bugs import NO_LOCAL_TLBI
from stress.kernels.codes import (
    ACCESSED,
    ENDLESS,
    NO_SLOT,
    NOT_LOGGED,
    OUTSIDE_MEMORY,
    POOL_EXHAUSTED,
    SPURIOUS,
    STILL_FORBIDDEN,
    STOPPED,
    WALKED,
    WRONG_FRAME,
)
from stress.kernels.conflict import fill_block
from stress.kernels.descriptor import READ, first_frame, is_leaf, pages_at, permissions
from stress.kernels.dirty import unlogged
from stress.kernels.fault import handle, phase_now
from stress.kernels.inject import injected
from stress.kernels.lockless import look_around
from stress.kernels.oracle import report
from stress.kernels.pattern import draw_accesses
from stress.kernels.tlb import (
    CHUNK,
    CPU_LEFT,
    CPU_NUMBER,
    CPU_PAGE,
    CPU_RANDOM,
    CPU_SEEN,
    MISS,
    Cpu,
    catch_up,
    evict_pointers,
    fill,
    flush_page,
    lookup,
    sizes_held,
)
from stress.kernels.walk import cache_walk, walk
from stress.kernels.workload import Workload
from stress.shm.accounts import (
    AT_GFN,
    C_ACCESSES,
    C_HITS,
    C_REDONE,
    C_WALKS,
    C_WRITES,
    FIRST_ACCESS_NS,
    HEARTBEAT,
    PHASE_SLOT_MASK,
    STATE,
    Kind,
    State,
)
from stress.shm.atomics import compare_exchange, load, pause, store
from stress.shm.jit import entry, inline, kernel
from stress.shm.layout import (
    Geo,
    Machine,
)
from stress.shm.placement import cold, likely, out_of_line, unlikely
from stress.shm.syscalls import clock_ns, fence, sched_yield
from stress.shm.words import (
    FENCED,
    LOGGED,
    NOT_AT_POC,
    PARK,
    PARKED,
    SEQUENCE,
    SLOT_BASE,
    STAGE,
    STAGE_BEGINS_NS,
    STOP,
    TAG_SHIFT,
    VALUE_MASK,
)

# What `run` returns, besides STOPPED and POOL_EXHAUSTED.
RAN = 0
FINISHED = 1  # the stage's accesses are done

#: The hypervisor looks every 0.5 ms whether all are ready. Where it lacks a core to do so, yields let it have one.
_KEEPS_CORE_NS = 1_000_000

_NUMBERS = (1 << 16) - 1  # more than there are vCPUs
_GUEST, _PARKED = int(State.GUEST), int(State.PARKED)
_STALE = int(Kind.STALE_TRANSLATION)
_AFTER_FREE = int(Kind.TABLE_USE_AFTER_FREE)
_AT_POC = int(Kind.NOT_AT_POC)
_LOST_DIRTY = int(Kind.LOST_DIRTY)


@kernel
def park(s: Machine, vcpu: int) -> None:
    """Wait at a quiescent point until the hypervisor lets the vCPUs go on."""
    cold()
    store(s.states, (vcpu, STATE), _PARKED)
    store(s.procs, (vcpu, PARKED), 1)
    while load(s.control, PARK) != 0 and load(s.control, STOP) == 0:
        s.states[vcpu, HEARTBEAT] += 1
        sched_yield()
    store(s.procs, (vcpu, PARKED), 0)
    store(s.states, (vcpu, STATE), _GUEST)


@entry
def await_stage(s: Machine, vcpu: int, stage: int, tries: int) -> int:
    """Wait for a stage other than ``stage``; its number, ``stage`` itself after ``tries``, or STOPPED."""
    for _ in range(tries):
        if load(s.control, STOP) != 0:
            return STOPPED
        if load(s.control, PARK) != 0:
            park(s, vcpu)
        now = load(s.control, STAGE)
        if now != stage:
            return now
        s.states[vcpu, HEARTBEAT] += 1
        sched_yield()
    return stage


@entry
def await_beginning(s: Machine, vcpu: int) -> int:
    """Wait for the moment at which the stage begins that all vCPUs are ready for: RAN, or STOPPED.

    A vCPU that yields to other work, if only to a nice one, gets its core back a time slice of 3 ms later, which would
    be part of the stage. So it keeps the core once it is told the moment, and for a while before.
    """
    yields = clock_ns() + _KEEPS_CORE_NS
    while True:
        begins = load(s.control, STAGE_BEGINS_NS)
        now = clock_ns()
        if begins != 0 and now >= begins:
            return RAN
        if load(s.control, STOP) != 0:
            return STOPPED
        s.states[vcpu, HEARTBEAT] += 1
        if begins == 0 and now >= yields:
            sched_yield()
        else:
            pause()


@inline
def counted_up(cell: int) -> int:
    """The cell after a guest write: each makes another value, so that a copy shows which writes it has."""
    return (cell & ~VALUE_MASK) | ((cell + 1) & VALUE_MASK)


@inline
def translate(geo: Geo, descriptor: int, level: int, gfn: int) -> int:
    """Translation of ``gfn`` by what its walk met; MISS if that maps nothing, or something else than memory."""
    if unlikely(not is_leaf(descriptor, level)):
        return MISS
    pages = pages_at(geo, level)
    frame = first_frame(geo, descriptor, level)
    if unlikely(frame < 0) or unlikely(frame + pages > geo.frames):
        return MISS
    return (frame + (gfn & (pages - 1))) << 2 | permissions(descriptor)


@inline
def touch(
    s: Machine, frame: int, page: int, write: int, expected: int, watched: int, logged: bool
) -> tuple[int, bool, bool]:
    """Access a frame's cell: (what it held, whether a write landed, whether the dirty log lacks that write)."""
    cell = load(s.cells, frame)
    stored, lost = True, False
    if write and (cell ^ expected) & watched == 0:
        stored = compare_exchange(s.cells, frame, cell, counted_up(cell))
        lost = logged and unlogged(s, page)
    return cell, stored, lost


@kernel
def judge_cell(s: Machine, vcpu: int, gfn: int, cell: int, expected: int) -> None:
    """Report what is wrong with the cell that a committed access met."""
    cold()
    if cell >> TAG_SHIFT != expected >> TAG_SHIFT:
        report(s, _STALE, vcpu, gfn, -1, cell, expected, WRONG_FRAME)
    elif s.geo.poc_checked != 0 and cell & NOT_AT_POC != 0:
        report(s, _AT_POC, vcpu, gfn, -1, cell, expected, ACCESSED)


@kernel
def missed(
    s: Machine,
    cpu: Cpu,
    vcpu: int,
    gfn: int,
    write: bool,
    translation: int,
    descriptor: int,
    level: int,
    seen: int,
) -> int:
    """A validated access found no usable translation: report what no correct order shows, then fault.

    ``seen`` is the TLBI number that the access was validated with. Returns RAN if the access is to be tried again, else
    STOPPED, POOL_EXHAUSTED, NO_SLOT or ENDLESS.
    """
    out_of_line()
    if load(s.control, STOP) != 0:
        return STOPPED
    if level >= 0 and descriptor == POISON:
        report(s, _AFTER_FREE, vcpu, gfn, level, descriptor, 0, WALKED)
    elif level >= 0 and translation == MISS and is_leaf(descriptor, level):
        report(s, _STALE, vcpu, gfn, level, descriptor, 0, OUTSIDE_MEMORY)
    outcome = handle(s, vcpu, gfn, write, descriptor, level)
    if outcome == STOPPED or outcome == POOL_EXHAUSTED or outcome == ENDLESS or outcome == NO_SLOT:
        return outcome
    if outcome == SPURIOUS and level < 0:
        if s.geo.shared == 0 and load(s.control, SEQUENCE) == seen:
            # Who changed the entry held mmu_lock alone until its TLBI was complete, and we held it since.
            report(s, _STALE, vcpu, gfn, -1, translation, 0, STILL_FORBIDDEN)
        if s.geo.shared != 0 and injected(s, NO_LOCAL_TLBI):
            return RAN  # somebody else relaxed it, and so nobody invalidates here
    # A cached table pointer may be evicted at any time. After a fault it is: were it stale (a wrong order left out
    # its TLBI), the same walk would fault for ever.
    flush_page(cpu, s.geo.index_bits, gfn)
    return RAN


def build_run(checked: bool) -> Callable[..., Any]:
    """The vCPU loop; ``checked=False`` leaves the oracle out, for the benchmark that tells its cost."""

    def run(s: Machine, cpu: Cpu, work: Workload, vcpu: int, chunks: int) -> int:
        """Run ``chunks`` chunks of accesses; RAN, FINISHED, STOPPED or POOL_EXHAUSTED."""
        vcpu &= _NUMBERS  # as it is; but the compiler then knows that no index is negative
        geo = s.geo
        bits = geo.index_bits
        fenced = load(s.control, FENCED) != 0
        watched = (~VALUE_MASK) if geo.poc_checked != 0 else ~(VALUE_MASK | NOT_AT_POC)
        if not checked:
            watched = 0
        cpu.registers[CPU_NUMBER] = vcpu
        seen = cpu.registers[CPU_SEEN]
        page = cpu.registers[CPU_PAGE]
        random = cpu.registers[CPU_RANDOM]
        left = cpu.registers[CPU_LEFT]
        status = RAN
        for _ in range(chunks):
            if load(s.control, STOP) != 0:
                status = STOPPED
                break
            if load(s.control, PARK) != 0:
                park(s, vcpu)
            if geo.lockless != 0 and s.states[vcpu, HEARTBEAT] & 15 == 0:
                look_around(s, vcpu, load(s.memslots, (0, SLOT_BASE)) + page)
            logged = checked and load(s.control, LOGGED) & 1 != 0
            slot = phase_now(s) & PHASE_SLOT_MASK
            base = load(s.memslots, (0, SLOT_BASE))
            page, random = draw_accesses(work, cpu.upcoming, page, random)
            length = CHUNK
            if left >= 0:
                length = min(CHUNK, left)
                left -= length
                if length == 0:
                    status = FINISHED
                    break
            sizes = sizes_held(cpu)
            done, writes, walks, redone, faulted = 0, 0, 0, 0, False
            while done < length:
                # Validated, unsuspicious TLB hits, as long as they last. Anything else starts over below.
                while done < length:
                    access = cpu.upcoming[done & (CHUNK - 1)]  # masked: cannot be negative, so Numba need not check
                    write = access & 1
                    expected = ((access >> 1) + 1) << TAG_SHIFT
                    translation = lookup(cpu, bits, base + (access >> 1), sizes)
                    if (READ | write << 1) & ~translation != 0:
                        break
                    frame = translation >> 2
                    cell = load(s.cells, frame)
                    if (cell ^ expected) & watched != 0:
                        break
                    if write:
                        if not compare_exchange(s.cells, frame, cell, counted_up(cell)):
                            break
                        if logged and unlogged(s, access >> 1):
                            break
                    if fenced:
                        fence()
                    if load(s.control, SEQUENCE) != seen:
                        break
                    done += 1
                    writes += write
                # One access in full, and those that follow it until one hits the TLB.
                while done < length:
                    access = cpu.upcoming[done & (CHUNK - 1)]
                    write = access & 1
                    needed = READ | write << 1
                    gfn = base + (access >> 1)
                    expected = ((access >> 1) + 1) << TAG_SHIFT
                    translation = lookup(cpu, bits, gfn, sizes)
                    level, first, descriptor = -1, 0, 0
                    cell, stored, lost, touched = expected, True, False, False
                    if translation == MISS:
                        descriptor, level, first = walk(s, cpu, gfn)
                        if likely(level == LAST_LEVEL):  # the usual case apart, with its level a constant
                            translation = translate(geo, descriptor, LAST_LEVEL, gfn)
                            touched = translation & needed == needed
                            if likely(touched):
                                cell, stored, lost = touch(
                                    s, translation >> 2, access >> 1, write, expected, watched, logged
                                )
                                if fenced:
                                    fence()
                                usual = stored and not lost and not faulted and (cell ^ expected) & watched == 0
                                if likely(usual) and likely(load(s.control, SEQUENCE) == seen):
                                    fill(cpu, LAST_LEVEL, bits, gfn, translation)
                                    sizes |= 1 << LAST_LEVEL
                                    if unlikely(first != LAST_LEVEL):
                                        cache_walk(cpu, bits, gfn, first, LAST_LEVEL)
                                    walks += 1
                                    done += 1
                                    writes += write
                                    continue
                        else:
                            translation = translate(geo, descriptor, level, gfn)
                    allowed = translation & needed == needed
                    if allowed and not touched:
                        cell, stored, lost = touch(s, translation >> 2, access >> 1, write, expected, watched, logged)
                    if fenced:
                        fence()
                    if load(s.control, SEQUENCE) != seen or not stored:
                        seen = catch_up(s, cpu, seen)
                        sizes = sizes_held(cpu)
                        redone += 1
                        continue
                    # Validated: from here on it counts.
                    if not allowed:
                        faulted = True
                        status = missed(s, cpu, vcpu, gfn, write, translation, descriptor, level, seen)
                        if status == NO_SLOT:  # the memslot moved: so does the guest
                            base = load(s.memslots, (0, SLOT_BASE))
                            status = RAN
                        elif status == ENDLESS:  # reported; a real guest would stay here for ever
                            done += 1
                            status = RAN
                        if status != RAN:
                            break
                        sizes = sizes_held(cpu)
                        continue
                    if level == LAST_LEVEL:
                        fill(cpu, LAST_LEVEL, bits, gfn, translation)
                        sizes |= 1 << LAST_LEVEL
                        if first != LAST_LEVEL:
                            cache_walk(cpu, bits, gfn, first, LAST_LEVEL)
                        walks += 1
                    elif level >= 0:
                        fill_block(s, cpu, vcpu, level, gfn, translation, descriptor, write, checked)
                        sizes = sizes_held(cpu)
                        if first != level:
                            cache_walk(cpu, bits, gfn, first, level)
                        walks += 1
                    if faulted or lost or (cell ^ expected) & watched != 0:
                        if faulted:  # a chunk of long faults takes long
                            s.states[vcpu, HEARTBEAT] += 1
                            faulted = False
                        if (cell ^ expected) & watched != 0:
                            judge_cell(s, vcpu, gfn, cell, expected)
                        if lost:
                            report(s, _LOST_DIRTY, vcpu, gfn, level, cell, counted_up(cell), NOT_LOGGED)
                    done += 1
                    writes += write
                    if level < 0:
                        break
                if status != RAN:
                    break
            counters = s.counters[vcpu, slot]
            counters[C_WRITES] += writes
            counters[C_WALKS] += walks
            counters[C_HITS] += done - walks
            counters[C_REDONE] += redone
            store(s.counters, (vcpu, slot, C_ACCESSES), counters[C_ACCESSES] + done)
            s.states[vcpu, HEARTBEAT] += 1
            s.states[vcpu, AT_GFN] = base + (cpu.upcoming[(length - 1) & (CHUNK - 1)] >> 1)
            if geo.bbm_level == MAY_ABORT:  # else a pointer to the old table hides the block to its TLBI
                evict_pointers(cpu, bits, s.states[vcpu, AT_GFN])
            if s.states[vcpu, FIRST_ACCESS_NS] == 0:
                s.states[vcpu, FIRST_ACCESS_NS] = clock_ns()
            if status != RAN:
                break
        cpu.registers[CPU_SEEN] = seen
        cpu.registers[CPU_PAGE] = page
        cpu.registers[CPU_RANDOM] = random
        cpu.registers[CPU_LEFT] = left
        return status

    return entry(run)


run = build_run(True)
