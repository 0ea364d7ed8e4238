"""The meaning of the words that decide what happens: indices into the regions of the protocol, and their values.

What the other regions record is in `stress.shm.accounts`. Words that different processes write sit on different cache
lines.
"""

from __future__ import annotations

MAGIC = 0x5354_5245_5353_000D  # "STRESS", layout version 13
LINE = 8  # words per 64-byte cache line

# Region "control". The first line is read on every access and written only at TLBIs.
SEQUENCE = 0  # TLBIs published so far; the number of the newest
STOP = 1  # STOP_DONE or STOP_ABORT: every process leaves at once
STOP_DONE, STOP_ABORT = 1, 2  # ended in order by the hypervisor; cut short by the supervisor
PARK = 2  # non-zero: vCPUs wait at their next chunk
STAGE = 3  # staged scenarios: number of the stage that vCPUs are to run
CYCLE = 4  # number of the cycle under way, from 1; 0 before the first
LOGGED = 5  # odd: a guest write must find its dirty bit set; even: logging is off, or being switched, or harvested
LOCK = 1 * LINE  # mmu_lock: 0 free, n + 1 held by process n, -n held for reading by n processes
LOCK_WRITERS = 1 * LINE + 1  # processes that wait to hold it alone: readers let them pass
LOCK_PASSED = 1 * LINE + 2  # times that one of those got it
TLBI_DONE = 2 * LINE  # number of the newest completed VMID-wide TLBI
FENCED = 2 * LINE + 1  # non-zero: no membarrier here, every access fences
BARRIER_REFUSED = 2 * LINE + 2  # non-zero: a membarrier failed, so a TLBI was not complete when it seemed to be
HOST_SEQUENCE = 2 * LINE + 3  # grows whenever host mappings, memslots or dirty logging change (mmu_invalidate_seq)
GRACE_BEGUN = 2 * LINE + 4  # grace periods begun; the number of the newest
GRACE_DONE = 2 * LINE + 5  # number of the newest one that ended
POOL_HEAD = 3 * LINE  # free ring: next page to hand out (monotonic; under POOL_LOCK, as the rest of the line)
POOL_TAIL = 3 * LINE + 1  # free ring: next place to put a freed page
POOL_LOCK = 3 * LINE + 2  # held for a few instructions by whoever takes or gives back a page
DEFERRED_HEAD = 3 * LINE + 3  # detached tables that wait for a grace period: next one to free
DEFERRED_TAIL = 3 * LINE + 4
FINISH = 4 * LINE  # non-zero: the hypervisor winds up and sets STOP
FINISH_ASKED, FINISH_EXHAUSTED = 1, 2  # by the user or fail-fast; because the table pool ran dry
STAGE_BEGINS_NS = 4 * LINE + 1  # clock at which vCPUs begin the stage that they are ready for; 0: not yet known
REBUILDS = 5 * LINE  # numbers handed out to rebuilds; the newest
TLBI_PENDING = 5 * LINE + 1  # only with the injected bug missing-dsb: the TLBI that has not taken effect, or 0
CONTROL_WORDS = 6 * LINE

# Region "procs", one row per process: vCPUs first, the hypervisor last.
PARKED = 0
STAGE_DONE = 1  # number of the stage it has run to its end
STAGE_READY = 2  # number of the stage that it is ready to begin
WALKING = LINE  # odd while it walks without excluding others (an RCU read-side section)
PROC_WORDS = 2 * LINE

# Region "tlbi": ring of the last invalidations, one row each.
TLBI_NUMBER = 0  # its sequence number; a row that shows another was overwritten or is not written yet
TLBI_START = 1  # first guest frame
TLBI_END = 2  # guest frame behind the last, with TLBI_LOCAL and TLBI_HINT from these bits on; 0: the whole VMID
TLBI_WORDS = LINE
TLBI_LOCAL = 40  # not broadcast (non-shareable): 1 + the vCPU whose TLB alone it reaches, or 0
TLBI_HINT = 56  # TTL (DDI 0487 D8.14): only leaf entries of this level go, and nothing of the walk cache; or 0
TLBI_FRAMES = (1 << TLBI_LOCAL) - 1  # what of TLBI_END is a frame

# Region "batches", one row per process: the rebuild it is in, and mmu_lock meanwhile.
BATCH_SIZE = 0  # tables that it rebuilds together
BATCH_NEXT_STATE = 1  # of the process, once mmu_lock is given back
BATCH_LOCKED_NS = 2  # clock when it got mmu_lock; 0 while it does not hold it
BATCH_LOCKS = 3  # times that it took mmu_lock, and the time spent waiting for it and holding it
BATCH_WAIT_NS = 4
BATCH_HOLD_NS = 5
BATCH_VISITED = 6  # entries that its tear-down visited since it last offered mmu_lock to others
BATCH_YIELDED = 7  # non-zero: it gave mmu_lock up in its tear-down
BATCH_KEEPS = 8  # non-zero: the process keeps mmu_lock from one rebuild to the next
BATCH_KEPT_NS = 9  # clock when it got the mmu_lock that it keeps; 0 while it keeps none
BATCH_WORDS = 2 * LINE

# Region "building", rows of a process for each entry of its batch, or for the block that it splits: what steps work on.
B_NUMBER = 0  # of the rebuild; 0: it is a split
B_ORDER = 1
B_GFN = 2  # first guest frame of the block
B_LEVEL = 3
B_INDEX = 4  # of the entry
B_OLD = 5  # the entry when it was looked at: a table, or a block that is split
B_HELD = 6  # the entry as we know it
B_FRAME = 7  # first frame of the block
B_SEEN = 8  # HOST_SEQUENCE when it was looked at
B_BROKEN = 9  # non-zero: by us, and not made since
B_CLOCK = 10  # newest TLBI when that was unlinked, or LINKED, or COVERED
LINKED, COVERED = -1, -2  # not unlinked yet; by a TLBI of its range that has completed
B_DETACHED = 11  # 1 + GRACE_BEGUN when the old tables were given up, or 0
B_GONE = 12  # why the rebuild was given up, or 0
B_CLEANED = 13  # bytes that were cleaned for it before its first step
B_TABLE = 14  # page of the table that takes a block's place
B_SHARE = 15  # of 2**20 of the block's pages those that it maps, or EMPTY_TABLE
EMPTY_TABLE = -1
B_WRITABLE = 16  # non-zero: those may be written
B_BUILT = 17  # non-zero: the table's entries were written
B_ASKED = 18  # guest frame for which a table was looked at: of a fault, the one that faulted
BUILDING_WORDS = 3 * LINE

# Guest memory: one cell per frame, (tag << 32) | not-at-PoC | value. The tag is 1 + the guest frame's offset in
# the memslot, and 0 in a frame that backs nothing.
TAG_SHIFT = 32
NOT_AT_POC = 1 << 31
VALUE_MASK = NOT_AT_POC - 1

#: Cell of a frame that was moved away or given back: no page has such a tag.
POISONED_CELL = 0x6B6B6B6B << TAG_SHIFT

# Page level of a page that is in no table.
FREE = -1

#: Host physical addresses of table pages and of guest memory: disjoint, so no table passes for a frame.
TABLES_PA = 1 << 32
MEMORY_PA = 1 << 40

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
