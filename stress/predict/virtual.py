"""The machine in virtual time, as arrays: what the event loop reads and writes. Times and costs in ps.

Picoseconds are integers, so that two states of the machine are equal or not, and a cost of half a nanosecond adds up.

An **actor** is a vCPU, or behind them the hypervisor. A **block** is as large as the scenario's blocks, whatever maps
it; guest memory that ends within one has a last block that is never mapped as one.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from stress.orders import MAX_STEPS, SPLIT_STEPS
from stress.results.data import COUNTERS, FAULT_CLASSES
from stress.shm.accounts import HISTOGRAM_BUCKETS

Words = npt.NDArray[np.int64]

#: No prediction is longer: 30 days, in ps. One cost is at most a second, and comes at most 2**18 times in a row.
LONGEST_PS: Final = 30 * 24 * 3600 * 10**12

# -- the event loop ----------------------------------------------------------------------
#: What it returns.
DONE, MORE, STUCK, TOO_LONG = range(4)
#: Who begins something: the vCPUs their programs; or the hypervisor a task, by number from TASKS on.
NOBODY, PROGRAMS, TASKS = range(3)
TO_DWELL, TO_SPLIT, TO_PROTECT, TO_REBUILD, TO_UNMAP, TO_MAP = range(6)

# -- phases of an actor ------------------------------------------------------------------
IDLE = 0  # its program is done
GUEST = 1  # accesses memory
EXIT = 2  # on its way to the fault handler
LOOK = 3  # waits for mmu_lock, then looks what its fault is about
CLEAN = 4  # cleans before it acts (--cmo per-fault)
MAP = 5  # writes an entry
RELAX = 6  # gives write permission, waits for the TLBI
SPLIT_STEP = 7  # does a step of a split
SPLIT = 8  # maps the page that faulted in the table that is there now
STEP = 9  # does a step of a rebuild
GRACE = 10  # waits for the end of others' read-side sections
SPIN = 11  # faults again and again, until an entry's owner is done with it
YIELD = 12  # gave mmu_lock up in a tear-down, and waits to get it back
CONFLICT = 13  # its TLB met both sizes of a block, and aborted
BEFORE = 14  # cleans what it is to rebuild (--cmo per-fault)
# Of the hypervisor alone, see `stress.predict.tasks`:
DWELL = 15  # lets the guest run
SPLIT_LOCK = 16  # waits for mmu_lock, to split
PROTECT = 17  # waits for mmu_lock, takes write permission from blocks or their pages
PROTECTED = 18  # waits for the TLBI of that
APPROACH = 19  # waits for mmu_lock, if its rebuild begins with it
INVALIDATE = 20  # waits for mmu_lock, takes blocks from the table
INVALIDATED = 21  # waits for the TLBIs of that
COPIES = 22  # moves the contents of frames
MOVED = 23  # waits for mmu_lock, lets faults map what has moved
# Of any:
READY = 24  # waits for a core, see `stress.predict.cores`
GATHER = 25  # looks at what it is to rebuild

# -- words of an actor -------------------------------------------------------------------
(
    A_PHASE,
    A_AT,  # index in the agenda; -1: it waits for another
    A_TIME,  # of its next event
    A_TURN,  # who was put on the agenda first is first
    A_PAGE,  # where it is in its program
    A_LEFT,  # pages from there on to access in turn
    A_WRITES,
    A_GROUP,
    A_PART,  # of the group: 0 its head is next, 1 its run
    A_SINCE,  # begin of its accesses in a row, or of its spinning
    A_PLANNED,  # accesses in a row that do not fault, as far as is known
    A_COUNTED,  # of them
    A_PRICE,  # of each, in ps; on average, where pages are drawn
    A_LONG,  # they are many, and share memory with others' like them
    A_START,  # of its fault
    A_ASKED,  # for mmu_lock
    A_LOCKED,  # since when it holds it; -1: it does not
    A_ALONE,  # it holds or wants it alone, not for reading
    A_AFTER,  # what it does once it has mmu_lock takes so long
    A_READS,  # it is in a read-side section
    A_MET,  # its walk met an entry that was broken for the rebuild of row A_MET - 1 of ``draft``
    A_LEVEL,  # at which its walk ended
    A_LEAF,  # its walk ended at a leaf
    A_INSIDE,  # its fault came within a rebuild
    A_ACTION,
    A_KEY,  # what it spins for: a page, or -1 - block
    A_WAIT,  # for mmu_lock, in its fault
    A_HOLD,
    A_LOCKS,  # acquisitions, in its fault
    A_ENDED,  # its program, at this time
    A_CORE,  # since when it is on a core; -1: it is on none
    A_BEGUN,  # of the access that it was at when it lost its core so much time has passed; -1: it repeats the last
    A_MEETS,  # 1 + the block whose new entry it meets while that is mixed with pages; 0: none
    # of its rebuild
    A_SIZE,  # blocks of the batch
    A_STEP,
    A_STEP_START,
    A_TABLES,  # that it detached
    A_VISITED,  # entries of these, by the end of the chunk under way
    A_GRACE_LEFT,  # actors whose sections it waits for
    A_CLEANED,  # bytes, before its first step
    A_STALE,  # it unlinked the table, and no TLBI of the VMID has followed
    # of its split
    A_BLOCK,
    A_VERSION,  # of the block, when it looked
    A_BROKEN,  # it made the entry invalid
    A_ENTRIES,  # of the new table that it writes before it links that
    # its program
    P_GROUPS,
    P_GROUP,
    P_FIRST,
    P_HEAD,
    P_HEAD_WRITES,
    P_SKIP,
    P_RUN,
    P_RUN_WRITES,
    # or its pattern, see `stress.predict.roaming`
    P_PATTERN,
    A_NEXT,  # page that it may fault at, once the accesses planned are done
    A_NEXT_WRITES,
    A_LEAVES,  # of 2**WEIGHT_BITS accesses drawn, those to blocks
    A_RANDOM,  # state of its generator
    ACTOR_WORDS,
) = range(59)

#: What an actor does in the guest: its program once, or accesses by a pattern without end.
ONCE, LAPS, UNIFORM, ZIPF = range(4)
WEIGHT_BITS: Final = 30

# -- words of a block --------------------------------------------------------------------
(
    B_KIND,
    B_WRITABLE,
    B_OWNER,  # actor + 1 who made the entry invalid
    B_WINDOW,  # row + 1 of ``draft`` with the rebuild for which that was done
    B_VERSION,  # counts stores to the entry
    B_ALLOWED,  # it may be mapped as a block
    B_HOST,  # from this time on the host's memory is there; -1: nobody has touched it
    B_SPINNERS,
    B_MAPPED,  # pages that its table maps; kept where vCPUs roam
    B_READ_ONLY,  # of them, those that may not be written
    B_FILLED,  # all tables below it are there, whatever they map: it was split at once
    B_WEIGHT,  # of 2**WEIGHT_BITS accesses drawn, those to it
    B_NT,  # no TLB keeps it
    B_MIXED,  # it became valid while TLBs hold pages of it, which aborts vCPUs that meet it
    B_MOVING,  # the host moves its frames: faults try again
    BLOCK_WORDS,
) = range(16)
EMPTY, LEAF, TABLE = range(3)

#: States of a page below a table; the host's memory behind it is there if HAS_HOST is set, too.
UNMAPPED, READ_ONLY, WRITABLE, LOCKED = range(4)
STATE, HAS_HOST = 3, 4

# -- words of the machine ----------------------------------------------------------------
(
    NOW,
    EVENTS,  # on the agenda
    TURN,
    HOLDER,  # actor who has mmu_lock alone; -1: nobody
    READERS,
    QUEUE_HEAD,
    QUEUED,
    TLBI_FREE,  # the broadcast TLBIs asked for are done at this time
    TLBI_WAITING,  # cores that wait for theirs
    MMU_WORD,  # mmu_lock's word may move to another reader at this time,
    MMU_WORD_AT,  # from the one that has it in its cache; -1: nobody
    MMAP_WORD,  # the same of mmap_lock, which every fault takes for reading
    MMAP_WORD_AT,
    INSIDE,  # rebuilds under way
    INSIDE_SINCE,
    GRACE_WAITERS,
    RUNNING,  # vCPUs whose program is not done
    KEPT,  # rows of faults kept one by one
    KEPT_STRIDE,
    KEPT_SKIP,
    REBUILT,  # records written
    BEYOND,  # records for which there was no room
    REFERENCE,  # vCPU from whose place in its program one sees whether the machine repeats itself
    PLAYED,  # events
    MOVES,  # of what the host maps, or of the memslot
    CORES_FREE,
    READY_HEAD,
    READY_COUNT,  # actors that wait for a core
    REPEATABLE,  # nothing but vCPUs' programs goes on
    LONG_ROWS,  # under way
    # the configuration
    VCPUS,
    BLOCK_PAGES,
    TABLE_PAGES,
    BLOCK_LEVEL,
    GRANULE,
    LOGGING,
    SHARED,
    FWB,
    BBM_LEVEL,
    CMO_PER_FAULT,
    VCPU_REBUILDS,
    YIELD_EVERY,  # entries that a tear-down visits before it gives mmu_lock up to who waits; 0: it never does
    BATCH,  # blocks that are rebuilt together
    PAGE_BACKED,  # the host's memory comes page by page
    CORES,  # of the machine; 0: nobody ever waits for one
    CYCLE,
    PAGES,  # of guest memory
    STRIDE,  # pages from one access to the next, where vCPUs make laps
    SCATTER,  # spreads Zipf's popular ranks
    WRITE_BELOW,  # of ALWAYS accesses by a pattern, those that write
    SHARE,  # of 2**20 pages of a block, those that a split maps
    TASK,  # of the hypervisor
    TASK_BLOCK,  # of the hypervisor's task; its first
    TASK_END,  # behind its last
    TASK_SETS,  # from its end on what is written is logged, frames move, or the host's page is huge; a split maps first
    TASK_PS,
    CONTROL_WORDS,
) = range(57)

# -- sums over a stage or a run ----------------------------------------------------------
S_TLBIS, S_CLEANED, S_ALLOCATED, S_FREED, S_RESTARTS, S_YIELDS, S_VOID, S_REBUILDS, S_INSIDE_PS, SUM_WORDS = range(10)

# -- costs in ps, or ps per unit ---------------------------------------------------------
(
    K_EXIT,
    K_CONFLICT,
    K_FAULT,
    K_MAP,  # per entry
    K_SPLIT,
    K_ZERO_PAGE,
    K_ZERO_BLOCK,
    K_COPY_PAGE,
    K_CLEAN_PAGE,
    K_CLEAN_BLOCK,
    K_ICACHE,  # per range cleaned
    K_TLBI,
    K_TLBI_IPA,
    K_TLBI_LOCAL,  # -1: permission is given by a broadcast one
    K_TLBI_WAITING,  # more, per core that waits
    K_UNMAP_TABLE,  # per table, with all its entries
    K_HAND_OVER,
    K_HAND_OVER_WAITING,  # more, per vCPU that waits on
    K_SHARE,  # a lock's word moves to another reader
    K_HIT,
    K_WALK,
    K_START,  # of a stage
    K_REBUILD,  # per block of a batch
    COST_WORDS,
) = range(24)

# -- words of a rebuild's record ---------------------------------------------------------
(
    R_CYCLE,
    R_BLOCK,
    R_REQUESTED,
    R_LOCKED,
    R_UNLOCKED,
    R_START,
    R_END,
    R_INVALID,  # -1: the entry was never invalid
    R_VALID,  # -1: it was left invalid
    R_MAPPED,
    R_FAULTS,
    R_YIELDED,  # time in which it had given mmu_lock up
    R_STEPS,
) = range(13)
RECORD_WORDS = R_STEPS + MAX_STEPS + 2  # an order may leave lock and unlock out
#: More, while it goes on.
(
    D_VERSION,  # of the block, when it was looked at
    D_BROKEN,  # the rebuilder made the entry invalid
    D_TABLES,  # detached
    D_GONE,  # another was faster
    D_MOVES,  # of the host, when it was looked at
    DRAFT_WORDS,
) = range(RECORD_WORDS, RECORD_WORDS + 6)

# -- rows of faults that are kept one by one: as `stress.results.data.STALL_ROW`, in ps
F_CYCLE, F_CLASS, F_STALL, F_WAIT, FAULT_WORDS = range(5)
FAULTS_KEPT = 1 << 16

#: What the machine was at two moments, to see whether it repeats itself: after a page, and after a table.
UNITS = 2

#: Actors at most: as many vCPUs as a configuration may have, the hypervisor, and the scheduler's timer.
ACTORS: Final = 514
_CLASSES: Final = len(FAULT_CLASSES)
_SIGNED: Final = ACTORS * 33 + ACTORS + 8

#: What is as large whatever the configuration: compiled code gets one pointer to it. As arguments of their own, a dozen
#: and a half arrays took most of the time to compile.
STATE_TYPE: Final = np.dtype(
    [
        ("control", np.int64, CONTROL_WORDS),
        ("cost", np.int64, COST_WORDS),
        ("zipf", np.float64, 1),  # its exponent
        ("access", np.int64, ACTORS),  # to a page that no cache holds: ps while so many vCPUs do nothing else
        ("actor", np.int64, (ACTORS, ACTOR_WORDS)),
        ("agenda", np.int64, ACTORS),  # a heap of those with a next event
        ("queue", np.int64, ACTORS),  # a ring of those who wait for mmu_lock
        ("ready", np.int64, ACTORS),  # a ring of those who wait for a core
        ("grace", np.int64, (ACTORS, ACTORS)),  # [a, b]: a waits for the end of b's section
        ("order", np.int64, MAX_STEPS + 2),  # step codes, -1 behind the last
        ("split", np.int64, len(SPLIT_STEPS) + 1),  # the same of the split order
        ("sums", np.int64, SUM_WORDS),
        ("counters", np.int64, (ACTORS, 2, len(COUNTERS))),  # outside and inside of rebuilds; times in ps
        ("stalls", np.int64, (_CLASSES, HISTOGRAM_BUCKETS)),  # of ns
        ("seen", np.int64, (UNITS + 1, _SIGNED)),  # the state then, and now
        ("then_actor", np.int64, (UNITS, ACTORS, ACTOR_WORDS)),
        ("then_sums", np.int64, (UNITS, SUM_WORDS)),
        ("then_counters", np.int64, (UNITS, ACTORS, 2, len(COUNTERS))),
        ("then_stalls", np.int64, (UNITS, _CLASSES, HISTOGRAM_BUCKETS)),
        ("watch", np.int64, (UNITS, 4)),  # see `stress.predict.repeats`
    ]
)


class World(NamedTuple):
    """Everything: the state, and what depends on the size of memory."""

    s: Any  # a record of STATE_TYPE
    block: Words  # (blocks, BLOCK_WORDS)
    page: npt.NDArray[np.uint8]  # (pages,)
    record: Words  # (rebuilds, RECORD_WORDS)
    draft: Words  # (actors * batch, DRAFT_WORDS) of the blocks that each is rebuilding
    faults: Words  # (FAULTS_KEPT, FAULT_WORDS)


def empty_world(blocks: int, pages: int, rebuilds: int, drafts: int = 1) -> World:
    """A world in which nothing has happened, with room for this much."""
    made = World(
        s=np.zeros(1, STATE_TYPE).view(np.recarray)[0],
        block=np.zeros((blocks, BLOCK_WORDS), np.int64),
        page=np.zeros(pages, np.uint8),
        record=np.zeros((rebuilds, RECORD_WORDS), np.int64),
        draft=np.zeros((drafts, DRAFT_WORDS), np.int64),
        faults=np.zeros((FAULTS_KEPT, FAULT_WORDS), np.int64),
    )
    made.s.control[HOLDER] = made.s.control[MMU_WORD_AT] = made.s.control[MMAP_WORD_AT] = -1
    made.s.control[KEPT_STRIDE] = 1
    made.s.order[:] = made.s.split[:] = -1
    made.s.actor[:, A_AT] = made.s.actor[:, A_LOCKED] = -1
    made.s.actor[:, A_CORE] = made.s.actor[:, A_BEGUN] = -1
    made.block[:, B_HOST] = -1
    return made
