"""Layout of the segment: which words lie where, and what each one means.

The segment is an array of int64 words cut into named regions. Compiled code receives all of them as one
``Machine``, a named tuple of array views. Words that different processes write sit on different cache lines.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from stress.arch.descriptors import POISON
from stress.arch.geometry import MEMSLOT_BASE, Geometry

MAGIC = 0x5354_5245_5353_0001  # "STRESS", layout version 1
LINE = 8  # words per 64-byte cache line

# Region "control". The first line is read on every access and written only at TLBIs and phase changes.
SEQUENCE = 0  # TLBIs published so far; the number of the newest
PHASE = 1  # what the hypervisor does now: (rebuild number << 8) | counter slot
STOP = 2  # STOP_DONE or STOP_ABORT: every process leaves at once
STOP_DONE, STOP_ABORT = 1, 2  # ended in order by the hypervisor; cut short by the supervisor
PARK = 3  # non-zero: vCPUs wait at their next chunk
LOCK = 1 * LINE  # mmu_lock: 0 free, else 1 + process number of the owner
TLBI_DONE = 2 * LINE  # number of the newest completed VMID-wide TLBI
FENCED = 2 * LINE + 1  # non-zero: no membarrier here, every access fences
POOL_HEAD = 3 * LINE  # free ring: next page to hand out (monotonic; under mmu_lock, as the rest of the line)
POOL_TAIL = 3 * LINE + 1  # free ring: next place to put a freed page
POOL_PEAK = 3 * LINE + 2  # most table pages in use at once
FINISH = 4 * LINE  # non-zero: the hypervisor winds up and sets STOP
FINISH_ASKED, FINISH_EXHAUSTED = 1, 2  # by the user or fail-fast; because the table pool ran dry
VIOLATIONS = 5 * LINE  # count per violation kind
CONTROL_WORDS = 8 * LINE

# Region "procs", one row per process: vCPUs first, the hypervisor last.
STATE = 0
HEARTBEAT = 1  # grows as long as the process gets anywhere
PARKED = 2
FIRST_ACCESS_NS = 3  # CLOCK_MONOTONIC
AT_GFN = 4  # guest frame it works on
AT_STEP = 5  # step code the hypervisor is in, or -1
PROC_WORDS = 2 * LINE


class State(IntEnum):
    """What a process is doing, for the one who must explain its death."""

    STARTING = 0
    GUEST = 1  # running guest accesses
    FAULT = 2  # exited, in the fault handler
    LOCK_WAIT = 3  # waiting for mmu_lock
    LOCK_HELD = 4  # holding mmu_lock
    PARKED = 5
    DWELL = 6  # hypervisor lets the guest run
    AUDIT = 7
    DONE = 8


# Region "tlbi": ring of the last invalidations, one row each.
TLBI_RING = 64
TLBI_NUMBER = 0  # its sequence number; a row that shows another was overwritten or is not written yet
TLBI_START = 1  # first guest frame
TLBI_END = 2  # guest frame behind the last; 0: the whole VMID
TLBI_WORDS = LINE

# Region "records": ring of rebuild records.
RECORD_RING = 1 << 14
R_NUMBER = 0  # rebuild number, from 1; written first
R_DONE = 1  # rebuild number again once the row is complete; written last
R_ORDER = 2
R_BLOCK = 3
R_REQUESTED_NS = 4  # clock: mmu_lock asked for
R_LOCKED_NS = 5
R_UNLOCKED_NS = 6
R_START_NS = 7  # first step's start
R_END_NS = 8  # last step's end
R_INVALID_NS = 9  # clock just before the store that invalidates, 0 if none
R_VALID_NS = 10  # clock just after the store that installs
R_CYCLE_NS = 11
R_ACCESSES = 12  # of all vCPUs in the cycle
R_CLEANED = 13  # bytes
R_FREED = 14  # table pages
R_MAPPED = 15  # pages the table mapped when its rebuild began
R_STEPS = 16  # duration of each step in ns
R_FAULTS = 32  # window faults, added to by the vCPUs; a line of its own
RECORD_WORDS = 40

# Region "totals", one row per order.
T_REBUILDS = 0
T_CYCLE_NS = 1
T_INSIDE_NS = 2  # from asking for mmu_lock to giving it back
T_TLBIS = 3
T_CLEANED = 4  # bytes
T_ALLOCATED = 5  # table pages
T_FREED = 6

# Region "events": per vCPU a ring of fault events; region "event_index": its counters.
EVENT_RING = 1 << 15
E_TIME_NS = 0
E_GFN = 1
E_STALL_NS = 2
E_LOCK_WAIT_NS = 3
E_NUMBER = 4  # rebuild number of the cycle
E_WHAT = 5  # class | level << 4 | write << 8 | counter slot << 16
EVENT_WORDS = LINE
EVENT_HEAD = 0  # written by the vCPU
EVENT_DROPPED = 1
EVENT_LOGGED = 2  # all that were to be logged: head + dropped, counted on its own
EVENT_TAIL = LINE  # written by the collector
EVENT_INDEX_WORDS = 2 * LINE

# Region "evidence": the first pieces of evidence of each violation kind.
EVIDENCE_KEPT = 16
V_READY = 0
V_WHO = 1  # process number
V_GFN = 2
V_LEVEL = 3
V_STEP = 4  # step code, or -1
V_TIME_NS = 5
V_FOUND = 6
V_EXPECTED = 7
V_DETAIL = 8  # kind-specific code
EVIDENCE_WORDS = 2 * LINE


class Kind(IntEnum):
    """Violation kinds; ``label`` is the name users see."""

    STALE_TRANSLATION = 0
    TLB_CONFLICT = 1
    TABLE_USE_AFTER_FREE = 2
    BBM = 3
    NOT_AT_POC = 4
    REFCOUNT = 5
    TABLE_LEAK = 6
    DOUBLE_FREE = 7
    LOST_EVENT = 8

    @property
    def label(self) -> str:
        """Name in results."""
        return self.name.lower().replace("_", "-")


# Guest memory: one cell per frame, (tag << 32) | not-at-PoC | value. The tag is 1 + the guest frame's offset in
# the memslot, and 0 in a frame that backs nothing.
TAG_SHIFT = 32
NOT_AT_POC = 1 << 31
VALUE_MASK = NOT_AT_POC - 1

# Page level of a page that is in no table.
FREE = -1

HISTOGRAM_BUCKETS = 1280

#: Host physical addresses of table pages and of guest memory: disjoint, so no table passes for a frame.
TABLES_PA = 1 << 32
MEMORY_PA = 1 << 40

# Region "counters": per vCPU and slot. Slot 2 * order counts outside, 2 * order + 1 inside rebuilds of that order;
# the last slot what belongs to no order.
C_ACCESSES = 0
C_WRITES = 1
C_HITS = 2
C_WALKS = 3
C_REDONE = 4
C_LOCKS = 5
C_LOCK_WAIT_NS = 6
C_LOCK_HOLD_NS = 7
C_FAULTS = 8  # one per fault class
FAULT_KINDS = 4
C_DROPPED = C_FAULTS + FAULT_KINDS  # events the ring had no room for
COUNTER_WORDS = 2 * LINE


class Geo(NamedTuple):
    """Geometry and platform as integers; frame numbers (gfn, pfn) are addresses shifted by the granule."""

    granule_shift: int
    index_bits: int
    start_level: int
    root_pages: int
    block_level: int
    blocks: int
    base_gfn: int
    frames: int
    tables_pfn: int
    table_pages: int
    memory_pfn: int
    leaf_attributes: int
    fwb: int
    poc_checked: int  # guest caches off and no FWB: the guest sees what is at the PoC
    bbm_level: int
    fail_fast: int
    hypervisor: int  # process number of the hypervisor; vCPUs are 0 to this


class Machine(NamedTuple):
    """Every region of the segment as an int64 view, plus the geometry."""

    control: npt.NDArray[np.int64]  # (CONTROL_WORDS,)
    tlbi: npt.NDArray[np.int64]  # (TLBI_RING, TLBI_WORDS)
    tables: npt.NDArray[np.int64]  # (table_pages * entries,) descriptors
    page_count: npt.NDArray[np.int64]  # (table_pages,) references, as KVM's page_count()
    page_level: npt.NDArray[np.int64]  # (table_pages,) level it serves, or FREE
    free_ring: npt.NDArray[np.int64]  # (table_pages,) FIFO, so that a freed page stays poisoned for long
    cells: npt.NDArray[np.int64]  # (frames,)
    procs: npt.NDArray[np.int64]  # (vcpus + 1, PROC_WORDS)
    counters: npt.NDArray[np.int64]  # (vcpus, 2 * orders + 1, COUNTER_WORDS)
    stalls: npt.NDArray[np.int64]  # (vcpus, orders, fault classes, HISTOGRAM_BUCKETS)
    events: npt.NDArray[np.int64]  # (vcpus, EVENT_RING, EVENT_WORDS)
    event_index: npt.NDArray[np.int64]  # (vcpus, EVENT_INDEX_WORDS)
    hits: npt.NDArray[np.int64]  # (orders,) rebuilds hit
    totals: npt.NDArray[np.int64]  # (orders, LINE) sums over completed cycles, exact
    records: npt.NDArray[np.int64]  # (RECORD_RING, RECORD_WORDS)
    evidence: npt.NDArray[np.int64]  # (kinds, EVIDENCE_KEPT, EVIDENCE_WORDS)
    geo: Geo


def table_pages_needed(geometry: Geometry, block_level: int, blocks: int) -> int:
    """Table pages if every block is split into pages at once: roots, tables above the blocks, subtrees."""
    total = geometry.root_pages
    first = MEMSLOT_BASE
    last = MEMSLOT_BASE + blocks * geometry.level_size(block_level) - 1
    for level in range(geometry.start_level, block_level):
        shift = geometry.level_shift(level)
        total += (last >> shift) - (first >> shift) + 1
    return total + blocks * geometry.tables_below(block_level)


def geo_for(
    geometry: Geometry,
    *,
    block_size: int,
    blocks: int,
    vcpus: int,
    leaf_attributes: int,
    fwb: bool,
    guest_caches: bool,
    bbm_level: int = 0,
    fail_fast: bool = False,
) -> Geo:
    """The integers that compiled code needs of a configuration."""
    level = geometry.block_level(block_size)
    shift = geometry.granule_shift
    return Geo(
        granule_shift=shift,
        index_bits=geometry.index_bits,
        start_level=geometry.start_level,
        root_pages=geometry.root_pages,
        block_level=level,
        blocks=blocks,
        base_gfn=MEMSLOT_BASE >> shift,
        frames=blocks * geometry.pages_per(level),
        tables_pfn=TABLES_PA >> shift,
        table_pages=table_pages_needed(geometry, level, blocks),
        memory_pfn=MEMORY_PA >> shift,
        leaf_attributes=leaf_attributes,
        fwb=int(fwb),
        poc_checked=int(not fwb and not guest_caches),
        bbm_level=bbm_level,
        fail_fast=int(fail_fast),
        hypervisor=vcpus,
    )


def shapes(geo: Geo, orders: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """(region, shape) of every region, in the order in which they lie."""
    vcpus = geo.hypervisor
    yield "control", (CONTROL_WORDS,)
    yield "tlbi", (TLBI_RING, TLBI_WORDS)
    yield "tables", (geo.table_pages << geo.index_bits,)
    yield "page_count", (geo.table_pages,)
    yield "page_level", (geo.table_pages,)
    yield "free_ring", (geo.table_pages,)
    yield "cells", (geo.frames,)
    yield "procs", (vcpus + 1, PROC_WORDS)
    yield "counters", (vcpus, 2 * orders + 1, COUNTER_WORDS)
    yield "stalls", (vcpus, orders, FAULT_KINDS, HISTOGRAM_BUCKETS)
    yield "events", (vcpus, EVENT_RING, EVENT_WORDS)
    yield "event_index", (vcpus, EVENT_INDEX_WORDS)
    yield "hits", (orders,)
    yield "totals", (orders, LINE)
    yield "records", (RECORD_RING, RECORD_WORDS)
    yield "evidence", (len(Kind), EVIDENCE_KEPT, EVIDENCE_WORDS)


def _words(shape: tuple[int, ...]) -> int:
    """Words a region occupies: whole cache lines, so that regions never share one."""
    return -(-int(np.prod(shape)) // LINE) * LINE


def segment_bytes(geo: Geo, orders: int) -> int:
    """Size of the segment."""
    return 8 * (LINE + sum(_words(shape) for _, shape in shapes(geo, orders)))


def carve(buffer: Any, geo: Geo, orders: int) -> Machine:
    """Views of every region in ``buffer`` (writable, at least ``segment_bytes`` long)."""
    words: npt.NDArray[np.int64] = np.frombuffer(buffer, dtype=np.int64)
    at = LINE  # the first line holds MAGIC
    views = {}
    for name, shape in shapes(geo, orders):
        views[name] = words[at : at + int(np.prod(shape))].reshape(shape)
        at += _words(shape)
    return Machine(**views, geo=geo)


_FILLED_AT_ONCE = 1 << 24  # words


def initialise(machine: Machine) -> Iterator[None]:
    """Fill fresh (zeroed) views: an empty root, all other table pages free, all memory tagged.

    Yields now and then, because large ones take seconds; the machine is ready when it ends.
    """
    geo = machine.geo
    machine.page_level[:] = FREE
    machine.page_level[: geo.root_pages] = geo.start_level
    machine.page_count[: geo.root_pages] = 1
    free = geo.table_pages - geo.root_pages
    machine.free_ring[:free] = np.arange(geo.root_pages, geo.table_pages)
    machine.control[POOL_TAIL] = free
    machine.control[POOL_PEAK] = geo.root_pages
    machine.procs[:, AT_STEP] = -1
    machine.control[PHASE] = machine.counters.shape[1] - 1
    for start in range(geo.root_pages << geo.index_bits, machine.tables.size, _FILLED_AT_ONCE):
        machine.tables[start : start + _FILLED_AT_ONCE] = POISON
        yield
    # Without FWB: the VMM wrote the guest's image through its cache.
    dirty = 0 if geo.fwb else NOT_AT_POC
    for start in range(0, geo.frames, _FILLED_AT_ONCE):
        end = min(start + _FILLED_AT_ONCE, geo.frames)
        machine.cells[start:end] = (np.arange(start + 1, end + 1, dtype=np.int64) << TAG_SHIFT) | dirty
        yield
