"""TLBI and DSB: publish an invalidation, then wait until no vCPU can commit an access begun before it.

The wait is a membarrier, not an answer of the vCPUs: they validate each access against the sequence number, so
once every running one has passed a barrier, an access that used the old translation is either complete and
visible or will be thrown away (DDI 0487 D8.14: TLBI; DSB completes it).
"""

from __future__ import annotations

from stress.arch import tlbi_range as instruction
from stress.bugs import MISSING_DSB, MISSING_TLBI, RANGE_SCALE
from stress.kernels.cost import spend
from stress.kernels.inject import injected
from stress.shm.atomics import exchange, fetch_add, fetch_max, load, store
from stress.shm.jit import kernel
from stress.shm.layout import Machine
from stress.shm.syscalls import fence, membarrier
from stress.shm.trace_log import trace
from stress.shm.traced import Traced
from stress.shm.words import (
    BARRIER_REFUSED,
    FENCED,
    FINISH,
    FINISH_ASKED,
    SEQUENCE,
    TLBI_DONE,
    TLBI_END,
    TLBI_FRAMES,
    TLBI_NUMBER,
    TLBI_PENDING,
    TLBI_START,
)

_VMID = int(Traced.TLBI_VMID)
_RANGE = int(Traced.TLBI_RANGE)
_DSB = int(Traced.DSB)
_covered = kernel(instruction.covered)

# TLBI_PENDING: first frame << 24 | frames, which are 0 for the whole VMID.
_IS_PENDING = 1 << 62
_PAGES_BITS = 24


@kernel
def publish(s: Machine, start: int, end: int) -> int:
    """Publish the invalidation of guest frames [start, end), or of the VMID if ``end`` is 0; its number.

    The row is a sequence lock whose sequence is SEQUENCE. The number moves before the row is written: a vCPU that
    looks in between finds another number in the row and flushes everything, which is never wrong. Each store is a
    release and each of the reader's loads an acquire, so whoever reads a word of a later invalidation here also sees
    that the number has moved on. Behind an atomic made of LL/SC a plain store may be seen before the atomic's.
    """
    number = fetch_add(s.control, SEQUENCE, 1) + 1
    row = number & (s.geo.tlbi_rows - 1)
    store(s.tlbi, (row, TLBI_START), start)
    store(s.tlbi, (row, TLBI_END), end)
    store(s.tlbi, (row, TLBI_NUMBER), number)
    return number


@kernel
def publish_range(s: Machine, start: int, end: int, who: int, traced: int) -> bool:
    """Publish the invalidation of guest frames [start, end) by as many instructions as that takes.

    Returns whether all of them were covered: always, but for an injected bug. ``end`` says whom each of them reaches,
    and what, from TLBI_LOCAL on.
    """
    frames = end & TLBI_FRAMES
    while start < frames:
        behind = start + _covered(frames - start)
        trace(s, traced, who, start, behind | (end & ~TLBI_FRAMES))
        publish(s, start, behind | (end & ~TLBI_FRAMES))
        start = behind
        if start < frames and injected(s, RANGE_SCALE):
            return False
    return True


@kernel
def wait_for_completion(s: Machine) -> None:
    """DSB: returns once every vCPU's earlier accesses are visible and its later ones see the new number.

    Where membarrier is missing from the start the vCPUs fence on every access instead. One that fails later leaves a
    TLBI incomplete: nothing that the oracle says from there on means anything, and the run ends.
    """
    fence()
    if membarrier() != 0 and load(s.control, FENCED) == 0:
        store(s.control, BARRIER_REFUSED, 1)
        store(s.control, FINISH, FINISH_ASKED)


@kernel
def too_late(s: Machine, start: int, end: int) -> bool:
    """With the injected bug missing-dsb: the TLBI is issued, but takes effect only when the next one is."""
    if not injected(s, MISSING_DSB):
        return False
    last = exchange(s.control, TLBI_PENDING, _IS_PENDING | start << _PAGES_BITS | (end - start))
    if last != 0:
        first = (last & ~_IS_PENDING) >> _PAGES_BITS
        pages = last & ((1 << _PAGES_BITS) - 1)
        publish(s, first, first + pages if pages != 0 else 0)
    return True


@kernel
def tlbi_vmid(s: Machine, who: int) -> bool:
    """Invalidate every translation of the VMID and wait (KVM's ``__kvm_tlb_flush_vmid``).

    Returns whether it was issued and is complete: always, but for injected bugs.
    """
    if injected(s, MISSING_TLBI):
        return False
    trace(s, _VMID, who, 0, 0)
    if too_late(s, 0, 0):
        return False
    number = publish(s, 0, 0)
    wait_for_completion(s)
    spend(s, who, s.geo.tlbi_ns)
    fetch_max(s.control, TLBI_DONE, number)
    trace(s, _DSB, who, 0, 0)
    return True


@kernel
def tlbi_ipas(s: Machine, start: int, end: int, who: int, traced: int) -> bool:
    """Invalidate the translations of guest frames [start, end) and wait; ``traced`` is what the trace calls it.

    ``end`` says whom it reaches (from TLBI_LOCAL on), and of which level its leaf entries alone go (from TLBI_HINT on).
    Returns whether it was issued for all of them and is complete, as ``tlbi_vmid``.
    """
    if injected(s, MISSING_TLBI):
        return False
    if too_late(s, start, end):
        trace(s, traced, who, start, end)
        return False
    covered = publish_range(s, start, end, who, traced)
    wait_for_completion(s)
    spend(s, who, s.geo.tlbi_ipa_ns)
    trace(s, _DSB, who, 0, 0)
    return covered


@kernel
def tlbi_range(s: Machine, start: int, end: int, who: int) -> bool:
    """``tlbi_ipas`` as the trace calls it that of a range (``__kvm_tlb_flush_vmid_ipa``); the same result."""
    return tlbi_ipas(s, start, end, who, _RANGE)
