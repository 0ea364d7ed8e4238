"""Dirty logging: the bitmap, write protection, and what a migration does with them.

Linux 6.1: ``kvm_mmu_wp_memory_region``, ``kvm_get_dirty_log_protect``, ``mark_page_dirty_in_slot``.
"""

from __future__ import annotations

from typing import Any

from stress.arch.geometry import LAST_LEVEL
from stress.bugs import HARVEST_WITHOUT_TLBI
from stress.kernels.codes import COPY_DIFFERS, STILL_WRITABLE, STOPPED
from stress.kernels.descriptor import WRITE, is_leaf, pages_at, permissions, write_protected
from stress.kernels.entries import find, set_entry
from stress.kernels.inject import injected
from stress.kernels.memslots import count_change
from stress.kernels.oracle import broke_rule, report
from stress.kernels.tlbi import tlbi_vmid
from stress.shm.accounts import Kind, State
from stress.shm.atomics import exchange, fetch_and, fetch_or, load, put, store
from stress.shm.jit import entry, kernel
from stress.shm.layout import Machine
from stress.shm.mmu_lock import acquire, release
from stress.shm.placement import cold
from stress.shm.syscalls import fence
from stress.shm.words import (
    DIRTY_MASK,
    DIRTY_SHIFT,
    LOGGED,
    NOT_AT_POC,
    SLOT_BASE,
    SLOT_FIRST,
    SLOT_LOGGING,
    SLOT_PAGES,
    SLOT_PROTECTED,
)

_DWELL = int(State.DWELL)
_LOST_DIRTY = int(Kind.LOST_DIRTY)


@kernel
def mark_dirty(s: Machine, page: int) -> None:
    """Set the bit of a page of guest memory."""
    word, bit = page >> DIRTY_SHIFT, 1 << (page & DIRTY_MASK)
    if load(s.dirty, word) & bit == 0:
        fetch_or(s.dirty, word, bit)


@kernel
def stop_watching(s: Machine) -> bool:
    """From here on no write is judged by its dirty bit; whether one was before. Comes before any bit is cleared."""
    logged = load(s.control, LOGGED)
    if logged & 1 == 0:
        return False
    store(s.control, LOGGED, logged + 1)
    fence()
    return True


@kernel
def watch(s: Machine, protected: bool, who: int) -> None:
    """From here on every guest write must find its dirty bit set.

    A rule is asked: the TLBI of what was write-protected is complete, so no TLB lets the guest write to other pages.
    """
    if not protected:
        broke_rule(s, _LOST_DIRTY, who, s.geo.base_gfn, -1, 0, 1, STILL_WRITABLE)
    store(s.control, LOGGED, load(s.control, LOGGED) | 1)


@kernel
def unlogged(s: Machine, page: int) -> bool:
    """Whether a write just made to ``page`` of guest memory lacks its dirty bit.

    It does if dirty logging was in force all the time that we looked. Who makes an entry writable sets the bit first,
    who clears it ends that time first, and takes it up again once the TLBI of the write protection is complete: what
    an access uses that sees this, and is then validated, was filled after that TLBI, and so after the bit was set.
    """
    cold()
    logged = load(s.control, LOGGED)
    if logged & 1 == 0 or load(s.dirty, page >> DIRTY_SHIFT) & (1 << (page & DIRTY_MASK)) != 0:
        return False
    return load(s.control, LOGGED) == logged


@kernel
def write_protect(s: Machine, first: int, end: int, who: int) -> int:
    """Take write permission from every leaf of guest frames [first, end); how many had it.

    The caller holds mmu_lock alone, and issues the TLBI.
    """
    changed = 0
    gfn = first
    while gfn < end:
        index, level = find(s, gfn, LAST_LEVEL)
        pages = pages_at(s.geo, level)
        # Within a level 3 table the entries follow each other.
        last = min(end, (gfn | ((1 << s.geo.index_bits) - 1)) + 1) if level == LAST_LEVEL else gfn + 1
        while gfn < last:
            descriptor = load(s.tables, index)
            if is_leaf(descriptor, level) and permissions(descriptor) & WRITE:
                set_entry(s, index, write_protected(descriptor), level, gfn, who)
                changed += 1
            index += 1
            gfn = (gfn | (pages - 1)) + 1
    return changed


@entry
def set_logging(s: Machine, who: int, on: int) -> int:
    """Switch dirty logging of all memslots on, and write-protect them, or off; leaves protected, or STOPPED."""
    if not acquire(s, who):
        return STOPPED
    changed = 0
    count_change(s)
    stop_watching(s)
    if on != 0:
        for word in range(len(s.dirty)):
            put(s.dirty, word, 0)  # a new bitmap
    for slot in range(s.geo.memslots):
        store(s.memslots, (slot, SLOT_LOGGING), on)
        if on != 0:
            base = load(s.memslots, (slot, SLOT_BASE))
            changed += write_protect(s, base, base + load(s.memslots, (slot, SLOT_PAGES)), who)
            store(s.memslots, (slot, SLOT_PROTECTED), 1)
    protected = changed == 0 or tlbi_vmid(s, who)
    if on != 0:
        watch(s, protected, who)
    release(s, who, _DWELL)
    return changed


@entry
def stop_logging_at(s: Machine, who: int, first: int, end: int) -> int:
    """Write-protect guest frames [first, end) once more, as a last harvest does, and switch logging off.

    The guest's next write there meets pages where it may have a block. Leaves protected, or STOPPED.
    """
    if not acquire(s, who):
        return STOPPED
    count_change(s)
    stop_watching(s)
    changed = write_protect(s, first, end, who)
    if changed != 0:
        tlbi_vmid(s, who)
    for slot in range(s.geo.memslots):
        store(s.memslots, (slot, SLOT_LOGGING), 0)
        store(s.memslots, (slot, SLOT_PROTECTED), 1)
    release(s, who, _DWELL)
    return changed


@kernel
def _protect_pages(s: Machine, page: int, bits: int, shift: int, who: int) -> tuple[int, int]:
    """Write-protect the pages from ``page`` on whose bits are set; how many, and how many leaves the guest could write.

    Where a block maps a page, all of the block is protected: its next write splits it. ``shift`` leads from a page to
    its guest frame.
    """
    pages = 0
    changed = 0
    while bits != 0:
        if bits & 1:
            pages += 1
            changed += write_protect(s, page + shift, page + shift + 1, who)
        bits >>= 1
        page += 1
    return pages, changed


@kernel
def _protected(s: Machine, who: int, changed: int, watched: bool) -> None:
    """What was dirty is write-protected: tell the TLBs, watch again, and release mmu_lock."""
    protected = changed == 0 or (not injected(s, HARVEST_WITHOUT_TLBI) and tlbi_vmid(s, who))
    if watched:
        watch(s, protected, who)
    release(s, who, _DWELL)


@entry
def harvest(s: Machine, who: int, found: Any) -> int:
    """Read and clear the dirty bitmap into ``found`` (its shape), write-protect what was dirty; pages, or STOPPED.

    When it returns, the guest's next write to any of these pages faults.
    """
    if not acquire(s, who):
        return STOPPED
    pages = 0
    changed = 0
    watched = stop_watching(s)
    for slot in range(s.geo.memslots):
        first = load(s.memslots, (slot, SLOT_FIRST))
        shift = load(s.memslots, (slot, SLOT_BASE)) - first
        last = first + load(s.memslots, (slot, SLOT_PAGES)) - 1
        for word in range(first >> DIRTY_SHIFT, (last >> DIRTY_SHIFT) + 1):
            bits = exchange(s.dirty, word, 0)
            if first & DIRTY_MASK == 0 or word > first >> DIRTY_SHIFT:
                found[word] = bits
            else:
                found[word] |= bits  # the word that two memslots share
            dirty, writable = _protect_pages(s, word << DIRTY_SHIFT, bits, shift, who)
            pages += dirty
            changed += writable
    _protected(s, who, changed, watched)
    return pages


@entry
def clear_log(s: Machine, who: int, found: Any, slot: int, first: int, end: int) -> int:
    """Clear the dirty bits ``found`` has of pages [first, end) of a memslot, write-protect these; pages, or STOPPED.

    ``KVM_CLEAR_DIRTY_LOG`` (``kvm_clear_dirty_log_protect``): bits that ``found`` has not stay set. When it returns,
    the guest's next write to any of the cleared pages faults. Pages count from guest memory's first.
    """
    if not acquire(s, who):
        return STOPPED
    pages = 0
    changed = 0
    watched = stop_watching(s)
    shift = load(s.memslots, (slot, SLOT_BASE)) - load(s.memslots, (slot, SLOT_FIRST))
    for word in range(first >> DIRTY_SHIFT, ((end - 1) >> DIRTY_SHIFT) + 1):
        page = word << DIRTY_SHIFT
        bits = found[word]
        if page < first:
            bits &= -1 << (first & DIRTY_MASK)
        if end - page <= DIRTY_MASK:
            bits &= (1 << (end & DIRTY_MASK)) - 1
        if bits != 0:
            dirty, writable = _protect_pages(s, page, bits & fetch_and(s.dirty, word, ~bits), shift, who)
            pages += dirty
            changed += writable
    _protected(s, who, changed, watched)
    return pages


@kernel
def send_page(s: Machine, page: int) -> None:
    """Copy one page to the destination, as the VMM reads it."""
    s.copy[page] = load(s.cells, load(s.host, page))


@entry
def send(s: Machine, found: Any) -> int:
    """Copy the pages whose bit is set in ``found``; how many."""
    sent = 0
    for word in range(len(found)):
        bits = found[word]
        page = word << DIRTY_SHIFT
        while bits != 0:
            if bits & 1:
                send_page(s, page)
                sent += 1
            bits >>= 1
            page += 1
    return sent


@entry
def send_all(s: Machine, first: int, end: int) -> int:
    """Copy pages [first, end); how many."""
    for page in range(first, end):
        send_page(s, page)
    return end - first


@entry
def compare_copy(s: Machine, who: int) -> int:
    """Report every page whose copy differs from memory; how many. The vCPUs are parked."""
    fence()
    lost = 0
    for page in range(s.geo.pages):
        cell = load(s.cells, load(s.host, page))
        if (s.copy[page] ^ cell) & ~NOT_AT_POC:  # cleaning changes no data
            lost += 1
            report(s, _LOST_DIRTY, who, s.geo.base_gfn + page, -1, s.copy[page], cell, COPY_DIFFERS)
    return lost
