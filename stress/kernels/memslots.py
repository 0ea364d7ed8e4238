"""Memslots, and how large a mapping they allow at an address (KVM's ``user_mem_abort``, Linux 6.1)."""

from __future__ import annotations

from stress.arch.geometry import LAST_LEVEL
from stress.kernels.descriptor import pages_at
from stress.shm.atomics import get, load, store
from stress.shm.jit import kernel
from stress.shm.layout import Machine
from stress.shm.words import HOST_SEQUENCE, SLOT_BASE, SLOT_FIRST, SLOT_LOGGING, SLOT_PAGES

NOWHERE = -1  # slot of a guest frame that is in no memslot


@kernel
def slot_of(s: Machine, gfn: int) -> int:
    """Number of the memslot that holds guest frame ``gfn``, or NOWHERE: KVM would exit to the VMM for MMIO."""
    for slot in range(s.geo.memslots):
        base = load(s.memslots, (slot, SLOT_BASE))
        if base <= gfn < base + load(s.memslots, (slot, SLOT_PAGES)):
            return slot
    return NOWHERE


@kernel
def count_change(s: Machine) -> None:
    """Count a change of the host's mappings, of memslots or of dirty logging: what was found without mmu_lock is void.

    Only the hypervisor process changes them, so no other process writes the word.
    """
    store(s.control, HOST_SEQUENCE, get(s.control, HOST_SEQUENCE) + 1)


@kernel
def page_in_slot(s: Machine, slot: int, gfn: int) -> int:
    """Page of guest memory behind ``gfn``."""
    return gfn - load(s.memslots, (slot, SLOT_BASE)) + load(s.memslots, (slot, SLOT_FIRST))


@kernel
def supports_block(s: Machine, slot: int, page: int, level: int) -> bool:
    """Whether the block around ``page`` may be mapped (``fault_supports_stage2_huge_mapping``).

    Userspace and guest addresses must agree modulo the block's size, and the block lie inside the memslot.
    """
    pages = pages_at(s.geo, level)
    first = load(s.memslots, (slot, SLOT_FIRST))
    if (load(s.memslots, (slot, SLOT_BASE)) - first) & (pages - 1):
        return False
    start = page & ~(pages - 1)
    return start >= first and start + pages <= first + load(s.memslots, (slot, SLOT_PAGES))


@kernel
def mapping_level(s: Machine, slot: int, page: int) -> int:
    """Level at which the page may be mapped: the largest block that host, memslot and logging allow, else a page."""
    if load(s.memslots, (slot, SLOT_LOGGING)) != 0:
        return LAST_LEVEL  # force_pte
    if s.geo.backing_thp != 0 and load(s.huge, page >> s.geo.index_bits) == 0:
        return LAST_LEVEL
    for level in range(s.geo.backing_level, LAST_LEVEL):
        if supports_block(s, slot, page, level):
            return level
    return LAST_LEVEL
