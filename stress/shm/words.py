"""What the words of the segment mean: indices into its regions, and their values.

Words that different processes write sit on different cache lines.
"""

from __future__ import annotations

from enum import IntEnum

MAGIC = 0x5354_5245_5353_0008  # "STRESS", layout version 8
LINE = 8  # words per 64-byte cache line

# Region "control". The first line is read on every access and written only at TLBIs and phase changes.
SEQUENCE = 0  # TLBIs published so far; the number of the newest
PHASE = 1  # (number of the cycle under way << PHASE_SLOT_BITS) | counter slot outside of rebuilds
STOP = 2  # STOP_DONE or STOP_ABORT: every process leaves at once
STOP_DONE, STOP_ABORT = 1, 2  # ended in order by the hypervisor; cut short by the supervisor
PARK = 3  # non-zero: vCPUs wait at their next chunk
INSIDE = 4  # 0, or (clock when the first of the rebuilds under way began << INSIDE_SHIFT) | how many there are
INSIDE_SHIFT = 10  # there are at most as many as processes: 513
INSIDE_MASK = (1 << INSIDE_SHIFT) - 1
CLOCK_MASK = (1 << 63 - INSIDE_SHIFT) - 1  # of the clock that INSIDE holds: differences to 104 days stay right
STAGE = 5  # staged scenarios: number of the stage that vCPUs are to run
CYCLE = 6  # number of the cycle under way, from 1; 0 before the first
LOGGED = 7  # odd: a guest write must find its dirty bit set; even: logging is off, or being switched, or harvested
LOCK = 1 * LINE  # mmu_lock: 0 free, n + 1 held by process n, -n held for reading by n processes
LOCK_WRITERS = 1 * LINE + 1  # processes that wait to hold it alone: readers let them pass
TLBI_DONE = 2 * LINE  # number of the newest completed VMID-wide TLBI
FENCED = 2 * LINE + 1  # non-zero: no membarrier here, every access fences
HOST_SEQUENCE = 2 * LINE + 3  # grows whenever host mappings, memslots or dirty logging change (mmu_invalidate_seq)
GRACE_BEGUN = 2 * LINE + 4  # grace periods begun; the number of the newest
GRACE_DONE = 2 * LINE + 5  # number of the newest one that ended
BARRIER_REFUSED = 2 * LINE + 2  # non-zero: a membarrier failed, so a TLBI was not complete when it seemed to be
POOL_HEAD = 3 * LINE  # free ring: next page to hand out (monotonic; under POOL_LOCK, as the rest of the line)
POOL_TAIL = 3 * LINE + 1  # free ring: next place to put a freed page
POOL_PEAK = 3 * LINE + 2  # most table pages in use at once
POOL_LOCK = 3 * LINE + 3  # held for a few instructions by whoever takes or gives back a page
POOL_LEAKED = 3 * LINE + 6  # non-zero: the pool ran dry although nothing waited to be freed, which was reported
DEFERRED_HEAD = 3 * LINE + 4  # detached tables that wait for a grace period: next one to free
DEFERRED_TAIL = 3 * LINE + 5
FINISH = 4 * LINE  # non-zero: the hypervisor winds up and sets STOP
STAGES_TAIL = 4 * LINE + 1  # stages that the collector has read
COSTS_END_NS = 4 * LINE + 2  # clock from which on no cost of the platform is spent; 0: no such moment
COSTS_CUT = 4 * LINE + 3  # non-zero: a cost was cut short, so times from here on are not the platform's
FINISH_ASKED, FINISH_EXHAUSTED = 1, 2  # by the user or fail-fast; because the table pool ran dry
VIOLATIONS = 5 * LINE  # count per violation kind, two lines
REBUILDS = 7 * LINE  # numbers handed out to rebuilds; the newest
CLOSED = 7 * LINE + 1  # every record up to this number is complete
TLBI_PENDING = 7 * LINE + 2  # only with the injected bug missing-dsb: the TLBI that has not taken effect, or 0
VOIDED = 7 * LINE + 3  # rebuilds whose record is void
STAGES_HEAD = 7 * LINE + 4  # stages measured so far
ACTED = 7 * LINE + 5  # times that the injected bug's flag changed what code did
TRACE_NEXT = 8 * LINE  # next row of region "trace"; beyond its last row: the trace is over
TRACE_ENDED = 8 * LINE + 1  # non-zero: over because it covers the rebuilds asked for, not because it is full
BY_RULE = 9 * LINE  # of VIOLATIONS those that a rule told at the step, two lines
CONTROL_WORDS = 11 * LINE

# PHASE and events: two counter slots per order and one for what belongs to none.
PHASE_SLOT_BITS = 16
PHASE_SLOT_MASK = (1 << PHASE_SLOT_BITS) - 1

# Region "procs", one row per process: vCPUs first, the hypervisor last.
STATE = 0
HEARTBEAT = 1  # grows as long as the process gets anywhere
PARKED = 2
FIRST_ACCESS_NS = 3  # CLOCK_MONOTONIC
AT_GFN = 4  # guest frame it works on
AT_STEP = 5  # step code of the rebuild the process is in, or -1
STAGE_DONE = 6  # number of the stage it has run to its end
STAGE_END_NS = 7
WALKING = LINE  # odd while it walks without excluding others (an RCU read-side section)
CHANGED = LINE + 1  # Traced kind of the last store it made to the table, 0 before the first
CHANGED_ROW = LINE + 2  # 1 + the store's row in the trace, 0 if it is not in it
LOOKED_NS = LINE + 3  # clock when it last walked without a lock
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
    READY = 9  # a vCPU waits, asleep, until all have started


# Region "tlbi": ring of the last invalidations, one row each.
TLBI_NUMBER = 0  # its sequence number; a row that shows another was overwritten or is not written yet
TLBI_START = 1  # first guest frame
TLBI_END = 2  # guest frame behind the last; 0: the whole VMID
TLBI_WORDS = LINE

# Region "records": ring of rebuild records.
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
R_CYCLE = 11  # number of the cycle under way when it began
R_CLEANED = 13  # bytes
R_FREED = 14  # table pages
R_MAPPED = 15  # pages the table mapped when its rebuild began
R_STEPS = 16  # duration in ns of each step executed
R_FAULTS = 40  # window faults, added to by the vCPUs; a line of its own
R_ENDED = 48  # rebuild number again once its rebuilder is through with the entry
R_VOID = 49  # non-zero: another rebuilder was faster, nothing was rebuilt
R_WHO = 50  # process number of the rebuilder
R_LEFT = 51  # rebuild number again once nothing of it is left to do
RECORD_WORDS = 7 * LINE

# Region "building", one row per process: the rebuild it is in, which its steps work on.
B_NUMBER = 0
B_ORDER = 1
B_GFN = 2  # first guest frame of the block
B_LEVEL = 3
B_INDEX = 4  # of the entry
B_OLD = 5  # the entry when it was looked at: a table
B_HELD = 6  # the entry as we know it
B_FRAME = 7  # first frame of the block
B_SEEN = 8  # HOST_SEQUENCE when it was looked at
B_BROKEN = 9  # non-zero: by us, and not made since
B_CLOCK = 10  # newest TLBI when the table was unlinked, or -1 while it is linked
B_DETACHED = 11  # 1 + GRACE_BEGUN when the old tables were given up, or 0
B_GONE = 12  # why the rebuild was given up, or 0
B_NEXT_STATE = 13  # of the process, once mmu_lock is given back
B_LOCKED_NS = 14  # clock when it got mmu_lock; 0 while it does not hold it
B_LOCKS = 15  # times that it took mmu_lock, and the time spent waiting for it and holding it
B_WAIT_NS = 16
B_HOLD_NS = 17
BUILDING_WORDS = 3 * LINE

# Region "totals", one row per order.
T_REBUILDS = 0
T_CYCLE_NS = 1
T_INSIDE_NS = 2  # while any rebuild was under way: from having mmu_lock to the end
T_TLBIS = 3
T_CLEANED = 4  # bytes
T_ALLOCATED = 5  # table pages
T_FREED = 6
T_CYCLES = 7
T_RESTARTS = 8  # rebuilds begun anew, because what was done without mmu_lock did not hold any more
TOTAL_WORDS = 2 * LINE

# Region "cycles": ring of cycles.
K_DONE = 0  # the cycle's number once the row is complete; written last
K_ORDER = 1  # index of the order under test, valid from the cycle's beginning on
K_TIME_NS = 2
K_ACCESSES = 3  # committed ones of all vCPUs
CYCLE_WORDS = LINE

# Region "events": per vCPU a ring of fault events; region "event_index": its counters.
E_TIME_NS = 0
E_GFN = 1
E_STALL_NS = 2
E_LOCK_WAIT_NS = 3
E_NUMBER = 4  # the rebuild whose window it fell into, or 0
E_WHAT = 5  # class | level << 4 | write << 8 | counter slot << WHAT_SLOT_SHIFT
WHAT_SLOT_SHIFT = 16
E_CYCLE = 6  # the cycle it is charged to
EVENT_WORDS = LINE
EVENT_HEAD = 0  # written by the vCPU
EVENT_DROPPED = 1
EVENT_LOGGED = 2  # all that were to be logged: head + dropped, counted on its own
EVENT_TAIL = LINE  # written by the collector
EVENT_INDEX_WORDS = 2 * LINE

# Region "evidence": the first pieces of evidence of each violation kind.
V_READY = 0
V_WHO = 1  # process number
V_GFN = 2
V_LEVEL = 3
V_STEP = 4  # step code, or -1
V_TIME_NS = 5
V_FOUND = 6
V_EXPECTED = 7
V_DETAIL = 8  # kind-specific code
V_RULE = 9  # non-zero: a step broke a rule; else an access, a walk or an audit met the consequence
V_CHANGED = 10  # CHANGED and CHANGED_ROW of the process
V_CHANGED_ROW = 11
V_ABOVE = 12  # at level n the entry above the one in question, 0 where the walk does not get
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
    LOST_DIRTY = 9
    ENDLESS_FAULT = 10
    NOT_INSTALLED = 11

    @property
    def label(self) -> str:
        """Name in results."""
        return self.name.lower().replace("_", "-")


# Guest memory: one cell per frame, (tag << 32) | not-at-PoC | value. The tag is 1 + the guest frame's offset in
# the memslot, and 0 in a frame that backs nothing.
TAG_SHIFT = 32
NOT_AT_POC = 1 << 31
VALUE_MASK = NOT_AT_POC - 1

#: Cell of a frame that was moved away or given back: no page has such a tag.
POISONED_CELL = 0x6B6B6B6B << TAG_SHIFT

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
FAULT_KINDS = 6
C_MAPPED_BLOCKS = C_FAULTS + FAULT_KINDS
C_MAPPED_PAGES = C_MAPPED_BLOCKS + 1
C_RELAXED = C_MAPPED_BLOCKS + 2
C_SPLITS = C_MAPPED_BLOCKS + 3
C_TRANSLATION = C_SPLITS + 1  # translation faults, one per lookup level
C_PERMISSION = C_TRANSLATION + 4  # permission faults, one per lookup level
C_DROPPED = C_PERMISSION + 4  # events the ring had no room for
COUNTER_WORDS = 4 * LINE

# Region "memslots", one row each (KVM's ``struct kvm_memory_slot``).
SLOT_BASE = 0  # guest frame of its first page
SLOT_PAGES = 1
SLOT_FIRST = 2  # page of guest memory that backs its first page: its userspace address
SLOT_LOGGING = 3  # non-zero: dirty pages are logged
SLOT_PROTECTED = 4  # non-zero: logging may have left leaves without write permission

# Region "host": frame that backs each page of guest memory, as the VMM's own page table would say.
HOST_MOVING = -1  # an MMU notifier's invalidation is in progress: fault handlers must retry

# Region "dirty": the dirty bitmap; 32 pages per word, so that no sign bit gets in the way.
DIRTY_SHIFT = 5
DIRTY_MASK = (1 << DIRTY_SHIFT) - 1

# Region "deferred": ring of detached tables.
D_PAGE = 0
D_LEVEL = 1
D_GFN = 2
D_ORDER = 3
D_CLOCK = 4  # GRACE_BEGUN when it was detached
DEFERRED_WORDS = 5

# Region "orders": the steps of each order.
ORDER_WORDS = 3 * LINE

# Region "programs": what each vCPU runs in a stage, fields of stress.kernels.workload.Workload.
P_FIRST = 0
P_GROUP = 1
P_HEAD = 2
P_SKIP = 3
P_RUN = 4
P_WRITE_BELOW = 5
P_ACCESSES = 6  # of a pattern also the number of pages that it is over
P_PATTERN = 7
PROGRAM_WORDS = LINE

# Region "stages": ring of what the hypervisor measured of each stage; it waits while the ring is full.
G_WHAT = 0  # index into STAGE_NAMES
G_ITERATION = 1
G_REPEAT = 2
G_DURATION_NS = 3
G_REBUILDS = 4
G_ORDER = 5
G_COUNTERS = LINE  # of all vCPUs
STAGE_WORDS = G_COUNTERS + COUNTER_WORDS

#: Stages of the selftests, as those call them, and "recover": what follows logging.
STAGE_NAMES = (
    "KVM_CREATE_MAPPINGS",
    "KVM_UPDATE_MAPPINGS",
    "KVM_ADJUST_MAPPINGS",
    "populate",
    "enable",
    "dirty",
    "get-dirty-log",
    "clear-dirty-log",
    "disable",
    "recover",
)

#: What scenarios count, in the order of region "life".
LIFE_CYCLE = (
    "logging_enabled",
    "logging_disabled",
    "harvests",
    "dirty_pages",
    "copied_pages",
    "migrations_completed",
    "migrations_cancelled",
    "collapses",
    "breakups",
    "frames_moved",
    "slot_moves",
    "blocks_split_eagerly",
    "tables_deferred",
)
