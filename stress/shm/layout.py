"""Layout of the segment: its regions, their shapes, and the integers that describe a configuration.

The segment is an array of int64 words cut into named regions. Compiled code receives all of them as one
``Machine``, a named tuple of array views. What each word means is in ``stress.shm.words``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from stress.arch.descriptors import POISON, leaf_attributes
from stress.arch.geometry import LAST_LEVEL, MEMSLOT_BASE, Geometry
from stress.shm.accounts import (
    AT_STEP,
    COUNTER_WORDS,
    CYCLE_WORDS,
    EVENT_INDEX_WORDS,
    EVENT_WORDS,
    EVIDENCE_WORDS,
    FAULT_KINDS,
    HISTOGRAM_BUCKETS,
    LIFE_CYCLE,
    PHASE,
    POOL_PEAK,
    RECORD_WORDS,
    STAGE_WORDS,
    STATE_WORDS,
    TALLY_WORDS,
    TOTAL_WORDS,
    Kind,
)
from stress.shm.traced import TRACE_WORDS
from stress.shm.words import (
    BATCH_WORDS,
    BUILDING_WORDS,
    CONTROL_WORDS,
    DEFERRED_WORDS,
    DIRTY_SHIFT,
    FREE,
    LINE,
    MEMORY_PA,
    NOT_AT_POC,
    ORDER_WORDS,
    POISONED_CELL,
    POOL_TAIL,
    PROC_WORDS,
    PROGRAM_WORDS,
    SLOT_BASE,
    SLOT_FIRST,
    SLOT_PAGES,
    TABLES_PA,
    TAG_SHIFT,
    TLBI_WORDS,
)


class Rings(NamedTuple):
    """Rows of the rings, each a power of two, and rows of evidence that are kept."""

    tlbi_rows: int = 64
    deferred_rows: int = 1 << 14
    record_rows: int = 1 << 14
    cycle_rows: int = 1 << 14
    event_rows: int = 1 << 15  # of each vCPU
    stage_rows: int = 1024
    evidence_rows: int = 16  # of each violation kind


class Geo(NamedTuple):
    """Geometry, platform and policy as integers; frame numbers (gfn, pfn) are addresses shifted by the granule."""

    granule_shift: int
    index_bits: int
    start_level: int
    root_pages: int
    block_level: int  # level of the blocks that a scenario works on
    blocks: int  # whole ones
    base_gfn: int  # guest frame of the first page, at the start
    pages: int  # of guest memory
    frames: int  # of host memory: the pages and what is needed to move some
    memslots: int
    tables_pfn: int
    table_pages: int
    memory_pfn: int
    leaf_attributes: int
    backing_level: int  # largest mapping that the host's own page size allows
    backing_thp: int  # host pages are huge where region "huge" says so
    fwb: int
    poc_checked: int  # guest caches off and no FWB: the guest sees what is at the PoC
    bbm_level: int
    cmo_per_fault: int  # before v5.14: every fault cleans what it is about to map
    shared: int  # fault handlers take mmu_lock for reading (Linux 6.2)
    lockless: int  # walkers that take no lock run beside orders that tear down outside of mmu_lock
    vcpu_rebuilds: int  # a vCPU that wants a block and meets a table rebuilds
    split_order: int  # the steps by which a block becomes a table (stress.splits), in one word; 0: build-first
    yield_every: int  # entries that a tear-down visits before it gives mmu_lock up to who waits; 0: it never does
    batch: int  # adjacent tables that are rebuilt together
    inject: int  # flags of stress.bugs
    clean_ps_per_page: int  # modelled costs, spun; 0: none
    icache_ns: int
    unmap_ns_per_table: int
    tlbi_ns: int  # by VMID
    tlbi_ipa_ns: int
    exit_ns: int
    conflict_ns: int  # of a TLB conflict abort: exit, TLBI of one core, way back
    fail_fast: int
    hypervisor: int  # process number of the hypervisor; vCPUs are 0 to this
    copies: int  # pages of region "copy": all of them in a migration
    trace_rows: int  # of region "trace"; 0: page-table changes are not traced
    trace_rebuilds: int  # the trace ends with this rebuild
    tlbi_rows: int  # see Rings
    deferred_rows: int
    record_rows: int
    cycle_rows: int
    event_rows: int
    stage_rows: int
    evidence_rows: int


#: Regions whose words decide what happens. Kernels access these by functions of `stress.shm.atomics` only, because
#: others may access them at the same time.
PROTOCOL: Final = (
    "control",
    "procs",
    "ended",
    "tlbi",
    "tables",
    "page_count",
    "page_level",
    "free_ring",
    "deferred",
    "memslots",
    "host",
    "huge",
    "dirty",
    "cells",
    "unclean",
)
#: Regions whose words only record what happened.
RECORDS: Final = (
    "tally",
    "states",
    "counters",
    "stalls",
    "events",
    "event_index",
    "hits",
    "totals",
    "records",
    "cycles",
    "stages",
    "life",
    "evidence",
    "trace",
)


class Machine(NamedTuple):
    """Every region of the segment as an int64 view, plus the geometry."""

    control: npt.NDArray[np.int64]  # (CONTROL_WORDS,)
    procs: npt.NDArray[np.int64]  # (vcpus + 1, PROC_WORDS)
    ended: npt.NDArray[np.int64]  # (record_rows,) number of a rebuild whose rebuilder is through with the entry
    tlbi: npt.NDArray[np.int64]  # (tlbi_rows, TLBI_WORDS)
    tables: npt.NDArray[np.int64]  # (table_pages * entries,) descriptors
    page_count: npt.NDArray[np.int64]  # (table_pages,) references, as KVM's page_count()
    page_level: npt.NDArray[np.int64]  # (table_pages,) level it serves, or FREE
    free_ring: npt.NDArray[np.int64]  # (table_pages,) FIFO, so that a freed page stays poisoned for long
    deferred: npt.NDArray[np.int64]  # (deferred_rows, DEFERRED_WORDS)
    memslots: npt.NDArray[np.int64]  # (memslots, LINE)
    host: npt.NDArray[np.int64]  # (pages,) frame, or HOST_MOVING
    huge: npt.NDArray[np.int64]  # (pages >> index_bits,) non-zero: the host maps this level 2 range with a huge page
    dirty: npt.NDArray[np.int64]  # (pages >> DIRTY_SHIFT,)
    copy: npt.NDArray[np.int64]  # (copies,) what a migration sent: the cell of each page
    cells: npt.NDArray[np.int64]  # (frames,)
    unclean: npt.NDArray[np.int64]  # (frames / block,) frames of each block whose cell says NOT_AT_POC
    tally: npt.NDArray[np.int64]  # (TALLY_WORDS,)
    states: npt.NDArray[np.int64]  # (vcpus + 1, STATE_WORDS)
    counters: npt.NDArray[np.int64]  # (vcpus, 2 * orders + 1, COUNTER_WORDS)
    stalls: npt.NDArray[np.int64]  # (vcpus, orders, fault classes, HISTOGRAM_BUCKETS)
    events: npt.NDArray[np.int64]  # (vcpus, event_rows, EVENT_WORDS)
    event_index: npt.NDArray[np.int64]  # (vcpus, EVENT_INDEX_WORDS)
    hits: npt.NDArray[np.int64]  # (orders,) rebuilds hit
    totals: npt.NDArray[np.int64]  # (orders, TOTAL_WORDS) sums over completed cycles, exact
    batches: npt.NDArray[np.int64]  # (vcpus + 1, BATCH_WORDS)
    building: npt.NDArray[np.int64]  # (vcpus + 1, batch, BUILDING_WORDS)
    records: npt.NDArray[np.int64]  # (record_rows, RECORD_WORDS)
    cycles: npt.NDArray[np.int64]  # (cycle_rows, CYCLE_WORDS)
    orders: npt.NDArray[np.int64]  # (orders, ORDER_WORDS) step codes, -1 behind the last
    programs: npt.NDArray[np.int64]  # (vcpus, PROGRAM_WORDS)
    stages: npt.NDArray[np.int64]  # (stage_rows, STAGE_WORDS)
    life: npt.NDArray[np.int64]  # (len(LIFE_CYCLE),)
    evidence: npt.NDArray[np.int64]  # (kinds, evidence_rows, EVIDENCE_WORDS)
    trace: npt.NDArray[np.int64]  # (trace_rows, TRACE_WORDS)
    geo: Geo


def table_pages_needed(geometry: Geometry, first: int, size: int) -> int:
    """Table pages if ``size`` bytes from IPA ``first`` on are mapped as pages: roots and all tables below."""
    last = first + size - 1
    total = geometry.root_pages
    for level in range(geometry.start_level, LAST_LEVEL):
        shift = geometry.level_shift(level)
        total += (last >> shift) - (first >> shift) + 1
    return total


def geo_for(
    geometry: Geometry,
    *,
    block_size: int,
    blocks: int,
    vcpus: int,
    fwb: bool,
    guest_caches: bool,
    pages: int | None = None,
    phys_offset: int = MEMSLOT_BASE,
    spare_blocks: int = 0,
    copies: bool = False,
    rings: Rings | None = None,
    **policy: int,
) -> Geo:
    """The integers that compiled code needs of a configuration.

    ``pages`` of guest memory (whole ``blocks`` if left out) start at IPA ``phys_offset``. ``policy`` has other fields
    of `Geo`, which are 0 if left out, but for one memslot, batches of one, and a backing as large as the blocks.
    """
    level = geometry.block_level(block_size)
    shift = geometry.granule_shift
    block_pages = geometry.pages_per(level)
    if pages is None:
        pages = blocks * block_pages
    # Beyond all pages mapped: a batch's tables that wait for a grace period, tables of vCPUs that lose a race, and
    # those that a moved memslot spans in addition.
    spare = geometry.tables_below(level) * min(policy.get("batch", 1), max(blocks, 1)) + 2 * vcpus + 2 * LAST_LEVEL
    derived = {
        "granule_shift": shift,
        "index_bits": geometry.index_bits,
        "start_level": geometry.start_level,
        "root_pages": geometry.root_pages,
        "block_level": level,
        "blocks": blocks,
        "base_gfn": phys_offset >> shift,
        "pages": pages,
        "frames": (-(-pages // block_pages) + spare_blocks) * block_pages,
        "tables_pfn": TABLES_PA >> shift,
        "table_pages": table_pages_needed(geometry, phys_offset, pages << shift) + spare,
        "memory_pfn": MEMORY_PA >> shift,
        "leaf_attributes": leaf_attributes(fwb),
        "fwb": int(fwb),
        "poc_checked": int(not fwb and not guest_caches),
        "hypervisor": vcpus,
        "copies": pages if copies else 1,
    }
    chosen = {name: 0 for name in Geo._fields if name not in derived}
    chosen |= {"memslots": 1, "batch": 1, "backing_level": level} | (rings or Rings())._asdict()
    return Geo(**derived, **(chosen | {name: int(value) for name, value in policy.items()}))


def _block_pages(geo: Geo) -> int:
    return 1 << (LAST_LEVEL - geo.block_level) * geo.index_bits


def shapes(geo: Geo, orders: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """(region, shape) of every region, in the order in which they lie."""
    vcpus = geo.hypervisor
    yield "control", (CONTROL_WORDS,)
    yield "procs", (vcpus + 1, PROC_WORDS)
    yield "ended", (geo.record_rows,)
    yield "tlbi", (geo.tlbi_rows, TLBI_WORDS)
    yield "tables", (geo.table_pages << geo.index_bits,)
    yield "page_count", (geo.table_pages,)
    yield "page_level", (geo.table_pages,)
    yield "free_ring", (geo.table_pages,)
    yield "deferred", (geo.deferred_rows, DEFERRED_WORDS)
    yield "memslots", (geo.memslots, LINE)
    yield "host", (geo.pages,)
    yield "huge", (-(-geo.pages // (1 << geo.index_bits)),)
    yield "dirty", (-(-geo.pages // (1 << DIRTY_SHIFT)),)
    yield "copy", (geo.copies,)
    yield "cells", (geo.frames,)
    yield "unclean", (-(-geo.frames // _block_pages(geo)),)
    yield "tally", (TALLY_WORDS,)
    yield "states", (vcpus + 1, STATE_WORDS)
    yield "counters", (vcpus, 2 * orders + 1, COUNTER_WORDS)
    yield "stalls", (vcpus, orders, FAULT_KINDS, HISTOGRAM_BUCKETS)
    yield "events", (vcpus, geo.event_rows, EVENT_WORDS)
    yield "event_index", (vcpus, EVENT_INDEX_WORDS)
    yield "hits", (orders,)
    yield "totals", (orders, TOTAL_WORDS)
    yield "batches", (vcpus + 1, BATCH_WORDS)
    yield "building", (vcpus + 1, geo.batch, BUILDING_WORDS)
    yield "records", (geo.record_rows, RECORD_WORDS)
    yield "cycles", (geo.cycle_rows, CYCLE_WORDS)
    yield "orders", (orders, ORDER_WORDS)
    yield "programs", (vcpus, PROGRAM_WORDS)
    yield "stages", (geo.stage_rows, STAGE_WORDS)
    yield "life", (len(LIFE_CYCLE),)
    yield "evidence", (len(Kind), geo.evidence_rows, EVIDENCE_WORDS)
    yield "trace", (geo.trace_rows, TRACE_WORDS)


def _inner_extents() -> Iterator[tuple[str, tuple[int | None, ...]]]:
    """(region, its extents behind the first one) of every region; None for one that a configuration decides."""
    one, other = (shapes(Geo(*[size] * len(Geo._fields)), orders=size) for size in (1, 2))
    for (name, shape), (_, other_shape) in zip(one, other, strict=True):
        pairs = zip(shape[1:], other_shape[1:], strict=True)
        yield name, tuple(extent if extent == other_extent else None for extent, other_extent in pairs)


#: Region -> its extents behind the first one, in the order in which they lie.
REGIONS: Final = dict(_inner_extents())

# The directory, behind the line that holds MAGIC: for each region its offset in the segment and its shape, in words,
# then the fields of Geo. Compiled code finds everything through it.
DIRECTORY = LINE
DIRECTORY_ENTRY = 5
DIRECTORY_WORDS = -(-(len(REGIONS) * DIRECTORY_ENTRY + len(Geo._fields)) // LINE) * LINE


def _words(shape: tuple[int, ...]) -> int:
    """Words a region occupies: whole cache lines, so that regions never share one."""
    return -(-int(np.prod(shape)) // LINE) * LINE


def segment_bytes(geo: Geo, orders: int) -> int:
    """Size of the segment."""
    return 8 * (DIRECTORY + DIRECTORY_WORDS + sum(_words(shape) for _, shape in shapes(geo, orders)))


def carve(buffer: Any, geo: Geo, orders: int) -> Machine:
    """Views of every region in ``buffer`` (writable, at least ``segment_bytes`` long)."""
    words: npt.NDArray[np.int64] = np.frombuffer(buffer, dtype=np.int64)
    at = DIRECTORY + DIRECTORY_WORDS
    views = {}
    directory = words[DIRECTORY:at]
    for place, (name, shape) in enumerate(shapes(geo, orders)):
        # Whoever attaches writes what is there already.
        directory[place * DIRECTORY_ENTRY : place * DIRECTORY_ENTRY + 1 + len(shape)] = (at, *shape)
        views[name] = words[at : at + int(np.prod(shape))].reshape(shape)
        at += _words(shape)
    directory[len(views) * DIRECTORY_ENTRY :][: len(geo)] = geo
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
    machine.tally[POOL_PEAK] = geo.root_pages
    machine.states[:, AT_STEP] = -1
    machine.tally[PHASE] = machine.counters.shape[1] - 1
    machine.orders[:] = -1
    machine.host[:] = np.arange(geo.pages)
    machine.huge[:] = geo.backing_thp
    for slot in range(geo.memslots):
        first = geo.pages * slot // geo.memslots
        machine.memslots[slot, SLOT_BASE] = geo.base_gfn + first
        machine.memslots[slot, SLOT_FIRST] = first
        machine.memslots[slot, SLOT_PAGES] = geo.pages * (slot + 1) // geo.memslots - first
    for start in range(geo.root_pages << geo.index_bits, machine.tables.size, _FILLED_AT_ONCE):
        machine.tables[start : start + _FILLED_AT_ONCE] = POISON
        yield
    # Without FWB: the VMM wrote the guest's image through its cache.
    dirty = 0 if geo.fwb else NOT_AT_POC
    for start in range(0, geo.frames, _FILLED_AT_ONCE):
        end = min(start + _FILLED_AT_ONCE, geo.frames)
        machine.cells[start:end] = (np.arange(start + 1, end + 1, dtype=np.int64) << TAG_SHIFT) | dirty
        yield
    machine.cells[geo.pages :] = POISONED_CELL
    if not geo.fwb:
        block = _block_pages(geo)
        machine.unclean[:] = np.clip(geo.pages - np.arange(len(machine.unclean)) * block, 0, block)
