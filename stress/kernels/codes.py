"""What kernels say to each other and to Python: outcomes of a fault, and detail codes of evidence."""

from __future__ import annotations

#: Fault classes; indices into ``stress.results.data.FAULT_CLASSES``.
WINDOW, SPURIOUS, POPULATION, PERMISSION, REBUILT, RETRY, CONFLICT = range(7)
# What else a handler can say.
STOPPED = -1  # the run stops
POOL_EXHAUSTED = -2  # by a leak
NO_SLOT = -3  # no memslot there: KVM would exit to the VMM
ENDLESS = -4  # said to be resolved, but the access would fault for ever
POOL_DRY = -5  # tables that others are about to free will do: try again, without mmu_lock
LOST_RACE = -6  # somebody else was faster: back to the guest

#: What a handler did to the table; indices of counters from C_MAPPED_BLOCKS on, SPLIT counting a page as well.
MAPPED_BLOCK, MAPPED_PAGE, RELAXED, SPLIT = range(4)
NOTHING = -1

# Detail codes of stale-translation evidence.
WRONG_FRAME, OUTSIDE_MEMORY, NOT_THE_HOSTS, WRONG_ATTRIBUTES, STILL_FORBIDDEN, NEVER_INVALIDATED = range(6)
STILL_REACHED = 6
# Detail codes of table-use-after-free evidence.
WALKED, FREED_TOO_EARLY, LINKED_WHEN_FREE, WALKED_BY_HANDLER, NOT_POISONED, WALKED_WITHOUT_LOCK = range(6)
FREED_WITHOUT_GRACE, LINKED_UNWRITTEN = 6, 7
# Detail codes of lost-dirty evidence.
COPY_DIFFERS, NOT_LOGGED, STILL_WRITABLE = range(3)
# Detail codes of refcount evidence.
COUNT, LINKED_TWICE, WRONG_LEVEL = range(3)
# Detail codes of not-at-poc evidence.
ACCESSED, BECAME_VALID, MAPPED = range(3)
# Detail codes of not-installed evidence.
LEFT_INVALID, LEFT_NT, FOUND_NT, LEFT_UNLINKED = range(4)
# Detail codes of table-leak evidence.
NOT_REACHABLE, POOL_RAN_DRY = range(2)
