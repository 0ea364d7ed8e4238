"""What a row of the trace of page-table changes says (``stress.shm.trace_log``)."""

from __future__ import annotations

from enum import IntEnum

# Region "trace": every change of the page table in the one order in which they happened, the row's number.
W_KIND = 0  # Traced; written last, 0 in a row that is not complete
W_WHO = 1  # process number
W_AT = 2
W_VALUE = 3
TRACE_WORDS = 4


class Traced(IntEnum):
    """What a row of the trace says, with what stands in W_AT and W_VALUE."""

    LOCK = 1  # mmu_lock taken alone
    UNLOCK = 2
    # These change the table.
    ALLOCATE = 3  # table page, its level
    FREE = 4  # table page
    DETACH = 5  # table page, its level: it and all below belong to nobody any more
    FILL = 6  # index, descriptor: a plain store into a table that is not linked yet
    SET = 7  # index, descriptor: store-release
    SWAP = 8  # index, descriptor: compare-and-swap
    BREAK = 9  # index: a valid entry made invalid by compare-and-swap
    # And these what has been read from it.
    TLBI_VMID = 10
    TLBI_ENTRY = 11  # first guest frame of one entry's range, guest frame behind its last
    TLBI_RANGE = 12  # first guest frame, what of the last is in TLBI_END
    DSB = 13  # the TLBI before it is complete
