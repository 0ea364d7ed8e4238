"""The meaning of the words that only record: indices into the regions outside of the protocol, and their values.

What processes do depends on none of them, but for what it costs and for the order under test. Words that different
processes write sit on different cache lines.
"""

from __future__ import annotations

from enum import IntEnum

from stress.shm.words import LINE

# Region "tally". The first line is read by every process and written when a cycle or a rebuild begins or ends.
PHASE = 0  # (number of the cycle under way << PHASE_SLOT_BITS) | counter slot outside of rebuilds
INSIDE = 1  # 0, or (clock when the first of the rebuilds under way began << INSIDE_SHIFT) | how many there are
INSIDE_SHIFT = 10  # there are at most as many as processes: 513
INSIDE_MASK = (1 << INSIDE_SHIFT) - 1
CLOCK_MASK = (1 << 63 - INSIDE_SHIFT) - 1  # of the clock that INSIDE holds: differences to 104 days stay right
POOL_PEAK = 1 * LINE  # most table pages in use at once
POOL_LEAKED = 1 * LINE + 1  # non-zero: the pool ran dry although nothing waited to be freed, which was reported
STAGES_TAIL = 2 * LINE  # stages that the collector has read
COSTS_END_NS = 2 * LINE + 1  # clock from which on no cost of the platform is spent; 0: no such moment
COSTS_CUT = 2 * LINE + 2  # non-zero: a cost was cut short, so times from here on are not the platform's
CLOSED = 3 * LINE  # every record up to this number is complete
VOIDED = 3 * LINE + 1  # rebuilds whose record is void
STAGES_HEAD = 3 * LINE + 2  # stages measured so far
ACTED = 3 * LINE + 3  # times that the injected bug's flag changed what code did
TRACE_NEXT = 4 * LINE  # next row of region "trace"; beyond its last row: the trace is over
TRACE_ENDED = 4 * LINE + 1  # non-zero: over because it covers the rebuilds asked for, not because it is full
VIOLATIONS = 5 * LINE  # count per violation kind, two lines
BY_RULE = 7 * LINE  # of VIOLATIONS those that a rule told at the step, two lines
TALLY_WORDS = 9 * LINE

# PHASE and events: two counter slots per order and one for what belongs to none.
PHASE_SLOT_BITS = 16
PHASE_SLOT_MASK = (1 << PHASE_SLOT_BITS) - 1

# Region "states", one row per process: vCPUs first, the hypervisor last.
STATE = 0
HEARTBEAT = 1  # grows as long as the process gets anywhere
FIRST_ACCESS_NS = 2  # CLOCK_MONOTONIC
AT_GFN = 3  # guest frame it works on
AT_STEP = 4  # step code of the rebuild the process is in, or -1
STAGE_END_NS = 5
CHANGED = LINE  # Traced kind of the last store it made to the table, 0 before the first
CHANGED_ROW = LINE + 1  # 1 + the store's row in the trace, 0 if it is not in it
LOOKED_NS = LINE + 2  # clock when it last walked without a lock
STATE_WORDS = 2 * LINE


class State(IntEnum):
    """What a process is doing: the supervisor names it if the process dies or hangs."""

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
R_YIELDED_NS = 12  # of its time with mmu_lock, what passed without: given up in the tear-down
R_CLEANED = 13  # bytes
R_FREED = 14  # table pages
R_MAPPED = 15  # pages the table mapped when its rebuild began
R_STEPS = 16  # duration in ns of each step executed
R_FAULTS = 40  # window faults, added to by the vCPUs; a line of its own
R_VOID = 48  # non-zero: another rebuilder was faster, nothing was rebuilt
R_WHO = 49  # process number of the rebuilder
R_LEFT = 50  # rebuild number again once nothing of it is left to do
RECORD_WORDS = 7 * LINE

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
T_YIELDS = 9  # times that a tear-down gave mmu_lock up for others
T_LOST = 10  # rebuilds given up, because another rebuilder changed the entry first
TOTAL_WORDS = 2 * LINE

# Region "cycles": ring of cycles.
K_DONE = 0  # the cycle's number once the row is complete; written last
K_ORDER = 1  # index of the order under test, valid from the cycle's beginning on
K_TIME_NS = 2
K_ACCESSES = 3  # committed ones of all vCPUs
K_RECOVERY_NS = 4  # from the end of dirty logging to the end of the last rebuild; 0 if there was none
K_RECOVERY_FAULTS = 5  # of all vCPUs from then to the end of the cycle
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
        """The kind's name in results."""
        return self.name.lower().replace("_", "-")


HISTOGRAM_BUCKETS = 1280

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
FAULT_KINDS = 7
C_MAPPED_BLOCKS = C_FAULTS + FAULT_KINDS
C_MAPPED_PAGES = C_MAPPED_BLOCKS + 1
C_RELAXED = C_MAPPED_BLOCKS + 2
C_SPLITS = C_MAPPED_BLOCKS + 3
C_TRANSLATION = C_SPLITS + 1  # translation faults, one per lookup level
C_PERMISSION = C_TRANSLATION + 4  # permission faults, one per lookup level
C_DROPPED = C_PERMISSION + 4  # events the ring had no room for
COUNTER_WORDS = 4 * LINE

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
