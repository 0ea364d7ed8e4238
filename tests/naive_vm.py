"""A slow, obvious twin of what a hypervisor knows: memslots, host pages, and a stage-2 table kept in a dictionary.

Fault handling is ``user_mem_abort`` of Linux 6.1 (``arch/arm64/kvm/mmu.c``), written down again in bytes and host
virtual addresses; the rest are the few things that dirty logging, the MMU notifier and a rebuild do to a mapping.
It shares no code with the kernels. Where it leaves KVM: a rebuild may be left to the hypervisor; a fault that finds
what it needs does nothing (KVM's map walker may still split a read-only block there, after a lost race).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from machines import Leaf, Tree, naive_tree

from stress.arch.geometry import LAST_LEVEL
from stress.kernels import codes
from stress.shm.layout import Machine
from stress.shm.words import HOST_MOVING, SLOT_BASE, SLOT_FIRST, SLOT_LOGGING, SLOT_PAGES


class Outcome(NamedTuple):
    """Fault class, and what became of the table (``stress.kernels.codes``)."""

    kind: int
    did: int


@dataclass
class Slot:
    """``struct kvm_memory_slot``, with addresses in bytes."""

    ipa: int
    size: int
    hva: int  # guest memory begins at host virtual address 0
    logging: bool

    def hva_of(self, ipa: int) -> int:
        """Host virtual address behind an IPA of the memslot."""
        return ipa - self.ipa + self.hva


@dataclass
class Vm:
    """What the hypervisor knows of the machine; page numbers count from the start of guest memory."""

    page_shift: int
    index_bits: int
    start_level: int
    root_pages: int
    vma_level: int  # level whose blocks are as large as the VMA's pages (3: not a hugetlbfs mapping)
    thp: bool
    vcpus_rebuild: bool
    slots: list[Slot]
    host: npt.NDArray[np.int64]  # frame behind each page
    huge: list[bool]  # whether the host maps this level 2 range by one entry
    leaves: dict[int, Leaf] = field(default_factory=dict)  # by first guest frame
    dirty: set[int] = field(default_factory=set)  # the bitmap, as page numbers

    def __post_init__(self) -> None:
        self._pages = tuple(1 << (LAST_LEVEL - level) * self.index_bits for level in range(LAST_LEVEL + 1))

    def size(self, level: int) -> int:
        """Bytes that an entry maps (``kvm_granule_size``)."""
        return self._pages[level] << self.page_shift

    def level_of(self, size: int) -> int:
        """The level whose entries map ``size`` bytes."""
        return next(level for level in range(1, LAST_LEVEL + 1) if self.size(level) == size)

    def pages(self, level: int) -> int:
        """Pages that an entry maps."""
        return self._pages[level]

    def slot_of(self, gfn: int) -> Slot | None:
        """``gfn_to_memslot``."""
        ipa = gfn << self.page_shift
        return next((slot for slot in self.slots if slot.ipa <= ipa < slot.ipa + slot.size), None)

    def page_of(self, gfn: int) -> int:
        """Page of guest memory at a guest frame."""
        slot = self.slot_of(gfn)
        assert slot is not None
        return slot.hva_of(gfn << self.page_shift) >> self.page_shift

    def gfn_of(self, page: int) -> int:
        """Guest frame of a page of guest memory."""
        hva = page << self.page_shift
        slot = next(slot for slot in self.slots if slot.hva <= hva < slot.hva + slot.size)
        return slot.ipa + hva - slot.hva >> self.page_shift

    def lookup(self, gfn: int) -> Leaf | None:
        """The leaf that maps a guest frame."""
        for level in range(1, LAST_LEVEL + 1):
            leaf = self.leaves.get(gfn - gfn % self.pages(level))
            if leaf is not None and leaf.level == level:
                return leaf
        return None

    def covered(self, first: int, end: int) -> list[Leaf]:
        """Leaves that map any of the guest frames [first, end)."""
        if end - first == 1:
            leaf = self.lookup(first)
            return [] if leaf is None else [leaf]
        pages = self._pages
        return [leaf for leaf in self.leaves.values() if leaf.gfn < end and first < leaf.gfn + pages[leaf.level]]

    def table_in_the_way(self, gfn: int, level: int) -> bool:
        """Whether a table stands where a leaf at ``level`` would go: something smaller is mapped there."""
        start = gfn - gfn % self.pages(level)
        return any(leaf.level > level for leaf in self.covered(start, start + self.pages(level)))

    def supports(self, slot: Slot, hva: int, map_size: int) -> bool:
        """``fault_supports_stage2_huge_mapping``."""
        if slot.ipa % map_size != slot.hva % map_size:
            return False
        start = hva // map_size * map_size
        return start >= slot.hva and start + map_size <= slot.hva + slot.size

    def vma_pagesize(self, slot: Slot, gfn: int, granule_of_permission_fault: int) -> int:
        """The part of ``user_mem_abort`` that settles ``vma_pagesize``; 0 for no permission fault."""
        hva = slot.hva_of(gfn << self.page_shift)
        page_size, pmd_size, pud_size = self.size(3), self.size(2), self.size(1)
        force_pte = slot.logging
        size = page_size if slot.logging else self.size(self.vma_level)
        if size == pud_size and not self.supports(slot, hva, pud_size):
            size = pmd_size
        if size == pmd_size and not self.supports(slot, hva, pmd_size):
            size = page_size
            force_pte = True
        if size == page_size and not force_pte:
            if granule_of_permission_fault > page_size:
                size = granule_of_permission_fault
            elif self.thp and self.supports(slot, hva, pmd_size) and self.huge[hva // pmd_size]:
                size = pmd_size  # transparent_hugepage_adjust
        return size

    def largest(self, gfn: int) -> int:
        """Level at which an unmapped page would be mapped were logging off."""
        slot = self.slot_of(gfn)
        assert slot is not None
        return self.level_of(self.vma_pagesize(Slot(slot.ipa, slot.size, slot.hva, False), gfn, 0))

    def user_mem_abort(self, gfn: int, write: bool) -> Outcome:
        """Handle a fault; changes the mapping."""
        slot = self.slot_of(gfn)
        if slot is None:
            return Outcome(codes.NO_SLOT, codes.NOTHING)
        if self.host[self.page_of(gfn)] == HOST_MOVING:
            return Outcome(codes.RETRY, codes.NOTHING)  # mmu_invalidate_retry
        there = self.lookup(gfn)
        permission_fault = there is not None and write and not there.writable
        fault_granule = self.size(there.level) if there is not None and permission_fault else 0
        level = self.level_of(self.vma_pagesize(slot, gfn, fault_granule))
        if not self.vcpus_rebuild and there is not None:
            level = max(level, there.level)
        elif not self.vcpus_rebuild and self.table_in_the_way(gfn, level):
            level = LAST_LEVEL
        if there is not None and not permission_fault and level >= there.level:
            return Outcome(codes.SPURIOUS, codes.NOTHING)
        if slot.logging and write:
            self.dirty.add(self.page_of(gfn))
        if there is not None and permission_fault and level == there.level:
            self.leaves[there.gfn] = there._replace(writable=True)
            return Outcome(codes.PERMISSION, codes.RELAXED)
        did = self.map(gfn, level, writable=write or not slot.logging)
        if did == codes.NOTHING:
            return Outcome(codes.REBUILT, did)
        return Outcome(codes.PERMISSION if permission_fault else codes.POPULATION, did)

    def map(self, gfn: int, level: int, writable: bool) -> int:
        """``kvm_pgtable_stage2_map`` of one entry: what was done, NOTHING for a table that became a block."""
        start = gfn - gfn % self.pages(level)
        in_the_way = self.covered(start, start + self.pages(level))
        for leaf in in_the_way:
            del self.leaves[leaf.gfn]
        frame = int(self.host[self.page_of(gfn)]) - (gfn - start)
        self.leaves[start] = Leaf(start, level, frame, True, writable)
        if any(leaf.level > level for leaf in in_the_way):
            return codes.NOTHING
        if in_the_way:
            return codes.SPLIT
        return codes.MAPPED_PAGE if level == LAST_LEVEL else codes.MAPPED_BLOCK

    def write_protect(self, first: int, end: int) -> int:
        """``stage2_wp_range`` of guest frames [first, end); leaves that were writable."""
        writable = [leaf for leaf in self.covered(first, end) if leaf.writable]
        for leaf in writable:
            self.leaves[leaf.gfn] = leaf._replace(writable=False)
        return len(writable)

    def unmap(self, first: int, end: int) -> None:
        """``kvm_unmap_gfn_range``; a block goes as a whole."""
        for leaf in self.covered(first, end):
            del self.leaves[leaf.gfn]

    def tables(self) -> int:
        """Table pages there must be: the roots, and each one that something is mapped below."""
        below = {
            (level, leaf.gfn // self.pages(level - 1))
            for leaf in self.leaves.values()
            for level in range(self.start_level + 1, leaf.level + 1)
        }
        return self.root_pages + len(below)


def vm_of(s: Machine) -> Vm:
    """The twin of a machine as it is now."""
    geo = s.geo
    shift = geo.granule_shift
    slots = [
        Slot(
            ipa=int(row[SLOT_BASE]) << shift,
            size=int(row[SLOT_PAGES]) << shift,
            hva=int(row[SLOT_FIRST]) << shift,
            logging=bool(row[SLOT_LOGGING]),
        )
        for row in s.memslots
    ]
    return Vm(
        page_shift=shift,
        index_bits=geo.index_bits,
        start_level=geo.start_level,
        root_pages=geo.root_pages,
        vma_level=LAST_LEVEL if geo.backing_thp else geo.backing_level,
        thp=bool(geo.backing_thp),
        vcpus_rebuild=bool(geo.vcpu_rebuilds),
        slots=slots,
        host=s.host.copy(),
        huge=[bool(huge) for huge in s.huge],
        leaves={leaf.gfn: leaf for leaf in naive_tree(s).leaves},
        dirty=dirty_pages(s),
    )


def dirty_pages(s: Machine) -> set[int]:
    """The dirty bitmap as page numbers; each word has 32."""
    return {word * 32 + bit for word in s.dirty.nonzero()[0].tolist() for bit in range(32) if s.dirty[word] >> bit & 1}


def log_of(s: Machine, pages: set[int]) -> npt.NDArray[np.int64]:
    """A dirty bitmap of the machine's size that has these pages."""
    log = np.zeros_like(s.dirty)
    for page in pages:
        log[page // 32] |= 1 << page % 32
    return log


def differences(s: Machine, vm: Vm) -> list[str]:
    """What the machine's table and bitmap show otherwise than the twin."""
    tree: Tree = naive_tree(s)
    found, wanted = set(tree.leaves), set(vm.leaves.values())
    wrong = [f"mapped, and should not be: {leaf}" for leaf in sorted(found - wanted)[:3]]
    wrong += [f"not mapped, and should be: {leaf}" for leaf in sorted(wanted - found)[:3]]
    if len(tree.leaves) != len(found) or len(tree.tables) != vm.tables():
        wrong.append(f"{len(tree.tables)} tables, not {vm.tables()}")
    if dirty_pages(s) != vm.dirty:
        wrong.append(f"dirty: {sorted(dirty_pages(s) ^ vm.dirty)[:5]}")
    return wrong
