"""The life of one machine, and a model of it in dictionaries: everything that a guest, a VMM and a host do to memory.

Each method is an operation, on the machine by its kernels and on the model. ``sound`` compares the two.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from machines import ALL, choose_order, fault, naive_audit, run_audit, small_machine, violations
from migrating import Migrating
from naive_vm import differences, dirty_pages, vm_of
from programs import execute, program

from stress.arch.geometry import LAST_LEVEL
from stress.kernels import codes
from stress.kernels.dirty import set_logging, stop_logging_at
from stress.kernels.notifier import invalidate_end, invalidate_start, move_frames, move_memslots, unmap_memslots
from stress.kernels.rebuild import rebuild
from stress.kernels.records import settled
from stress.kernels.recover import recover
from stress.kernels.split import populate, split, write_unmapped
from stress.kernels.teardown import reap
from stress.kernels.tlb import new_cpu
from stress.kernels.workload import Workload
from stress.orders import NAMED_ORDERS
from stress.results.data import FAULT_CLASSES
from stress.shm.accounts import C_ACCESSES, C_FAULTS, C_MAPPED_BLOCKS, C_REDONE, C_WRITES, FAULT_KINDS, INSIDE
from stress.shm.words import (
    DEFERRED_HEAD,
    DEFERRED_TAIL,
    HOST_MOVING,
    LOCK,
    NOT_AT_POC,
    POISONED_CELL,
    POOL_LOCK,
    REBUILDS,
    TAG_SHIFT,
    VALUE_MASK,
    WALKING,
)

BLOCK = 512  # pages of a 2 MiB block
BACKINGS = {"anonymous": (LAST_LEVEL, False), "thp": (2, True), "hugetlb": (2, False)}
#: What faults did to the table, in the order of stress.kernels.codes.
TABLE_CHANGES = ("block mapped", "page mapped", "relaxed", "block split")
MIX = 0x155  # scatters the frames of a range that is no huge page


class Life(Migrating):
    """One machine and what must be true of it; ``seen`` counts what happened."""

    def __init__(
        self,
        seen: Counter[str],
        *,
        shared: bool,
        fwb: bool,
        layout: tuple[int, int],
        backing: str,
        bbm_level: int,
        order: int,
        vcpus_rebuild: bool,
        per_fault: bool,
    ) -> None:
        self.seen, self.fwb, self.backing = seen, fwb, backing
        self.orders = [each for each in NAMED_ORDERS.values() if each.bbm_level <= bbm_level]
        (pages, memslots), (level, thp) = layout, BACKINGS[backing]
        self.s = small_machine(
            blocks=pages // BLOCK,
            pages=pages,
            memslots=memslots,
            vcpus=2,
            orders=len(self.orders),
            fwb=fwb,
            guest_caches=fwb,
            bbm_level=bbm_level,
            backing_level=level,
            backing_thp=thp,
            spare_blocks=2,
            shared=shared,
            vcpu_rebuilds=vcpus_rebuild,
            cmo_per_fault=per_fault,
            copies=True,
        )
        for row, each in zip(self.s.orders, self.orders, strict=True):
            row[: len(each.codes)] = each.codes
        self.choose_an_order(order)
        self.who = self.s.geo.hypervisor
        self.cpus = [new_cpu(), new_cpu()]
        self.vm = vm_of(self.s)
        self.values = np.zeros(pages, np.int64)
        # Frames: each block of memory has a chunk, one chunk is spare, one takes single pages that the host moves away.
        *self.chunks, self.spare, scattered = range(0, self.s.geo.frames, BLOCK)
        self.mix = [0] * len(self.chunks)
        self.free = [*range(scattered, scattered + BLOCK)]
        self.sent = None
        self.found = []
        self.got = np.zeros_like(self.s.dirty)

    def whole(self, block: int) -> int | None:
        """First guest frame of a block that may be mapped as one, logging aside; None if it may not."""
        if (block + 1) * BLOCK > len(self.values):
            return None
        gfn = self.vm.gfn_of(block * BLOCK)
        return gfn if gfn % BLOCK == 0 and self.vm.largest(gfn) == 2 else None

    # The guest.

    def guest(self, vcpu: int, work: Workload, accesses: list[tuple[int, bool]]) -> None:
        """Run a program, which makes these accesses (page, whether it writes); the faults must be the model's."""
        s, vm = self.s, self.vm
        kinds, dids, times = [0] * FAULT_KINDS, [0] * 4, np.zeros_like(self.values)
        for page, write in accesses:
            times[page] += write
            gfn = vm.gfn_of(page)
            while (leaf := vm.lookup(gfn)) is None or (write and not leaf.writable):
                outcome = vm.user_mem_abort(gfn, write)
                kinds[outcome.kind] += 1
                if outcome.did != codes.NOTHING:
                    dids[outcome.did] += 1
                    dids[codes.MAPPED_PAGE] += outcome.did == codes.SPLIT
            if write and self.logging:
                assert page in vm.dirty
        before = s.counters[vcpu].sum(axis=0)
        execute(s, self.cpus[vcpu], vcpu, work, len(accesses))
        grown = s.counters[vcpu].sum(axis=0) - before
        assert grown[C_FAULTS : C_FAULTS + FAULT_KINDS].tolist() == kinds
        assert grown[C_MAPPED_BLOCKS : C_MAPPED_BLOCKS + 4].tolist() == dids
        assert (grown[C_ACCESSES], grown[C_WRITES]) == (len(accesses), times.sum())
        # A write that meets an invalidation on its way is done again: up to two tries have counted the value up then.
        values = s.cells[vm.host] & VALUE_MASK
        assert (values >= self.values + times).all()
        assert (values == self.values)[times == 0].all()
        assert (values - self.values).sum() <= times.sum() + 2 * grown[C_REDONE]
        self.values = values
        self.seen.update(dict(zip((*FAULT_CLASSES, *TABLE_CHANGES), kinds + dids, strict=True)))

    def touch(self, vcpu: int, block: int, page: int, count: int, stride: int, write: bool) -> None:
        first = (block * BLOCK + page) % len(self.values)
        pages = range(first, len(self.values), stride)[:count]
        self.guest(vcpu, program(first, group=stride, write=write), [(page, write) for page in pages])

    def update_stage(self, vcpu: int, block: int) -> None:
        """As KVM's selftest: write the first page, read the upper half."""
        first = block % (len(self.values) // BLOCK) * BLOCK
        work = program(first, group=BLOCK, head=2, skip=BLOCK // 2, each=BLOCK // 2)
        reads = [(first + page, False) for page in range(BLOCK // 2, BLOCK)]
        self.guest(vcpu, work, [(first, True), *reads])

    # Dirty logging.

    def ends(self) -> tuple[int, int]:
        """Guest memory as guest frames."""
        return self.vm.gfn_of(0), self.vm.gfn_of(0) + len(self.values)

    def switch_logging(self, how: str, first: int) -> None:
        s, vm = self.s, self.vm
        gfn, end = self.ends()
        on = not self.logging
        if on:
            assert set_logging(s, self.who, 1) == vm.write_protect(gfn, end)
            vm.dirty.clear()  # a new bitmap
        elif how == "at once":
            assert set_logging(s, self.who, 0) == 0
        else:
            gfn += first
            assert stop_logging_at(s, self.who, gfn, end) == vm.write_protect(gfn, end)
        for slot in vm.slots:
            slot.logging = on
        for block in range(len(self.chunks)) if on and how == "eagerly" else ():
            self.split(block, ALL, False)
        self.sent, self.found = None, []
        self.seen["logging switched"] += 1

    # The hypervisor's own changes to the table.

    def rebuild(self, block: int) -> None:
        gfn = self.whole(block)
        if gfn is None or self.logging:
            return
        is_table = self.vm.table_in_the_way(gfn, 2)
        assert rebuild(self.s, self.who, gfn) == (0 if is_table else 1)
        if is_table:
            self.vm.map(gfn, 2, writable=True)
            self.seen[f"rebuilt under {self.orders[self.order].name}"] += 1

    def recover(self) -> None:
        """Each table that may be a block becomes one, memslot by memslot."""
        for slot in self.vm.slots:
            first = -(-(slot.ipa >> self.vm.page_shift) // BLOCK) * BLOCK
            end = (slot.ipa + slot.size >> self.vm.page_shift) // BLOCK * BLOCK
            assert recover(self.s, self.who, first, end) == 0
            for gfn in range(first, end, BLOCK):
                if not self.logging and self.vm.largest(gfn) == 2 and self.vm.table_in_the_way(gfn, 2):
                    self.vm.map(gfn, 2, writable=True)
                    self.seen["recovered"] += 1

    def choose_an_order(self, number: int) -> None:
        self.order = number % len(self.orders)
        choose_order(self.s, self.order)

    def split(self, block: int, share: int, map_first: bool) -> None:
        gfn = self.whole(block)
        if gfn is None or (map_first and self.logging):
            return
        writable = not self.logging
        assert split(self.s, self.who, gfn, share, int(writable), int(map_first)) == 0
        if map_first and not self.vm.covered(gfn, gfn + BLOCK):
            self.vm.map(gfn, 2, writable)
        leaf = self.vm.lookup(gfn)
        if leaf is not None and leaf.level == 2:
            del self.vm.leaves[gfn]
            for page in range(BLOCK):
                if (page + 1) * share // ALL > page * share // ALL:
                    self.vm.map(gfn + page, LAST_LEVEL, writable)
            self.seen["split by the hypervisor"] += 1

    def populate(self, block: int) -> None:
        gfn = self.whole(block)
        if gfn is not None and not self.logging:
            assert populate(self.s, self.who, gfn) == 0
            if not self.vm.covered(gfn, gfn + BLOCK):
                self.vm.map(gfn, 2, writable=True)

    def vmm_writes_what_is_unmapped(self, block: int) -> None:
        gfn = self.whole(block)
        if gfn is not None and not self.fwb:
            assert write_unmapped(self.s, self.who, gfn) == 0
            unmapped = [page for page in range(BLOCK) if self.vm.lookup(gfn + page) is None]
            self.written_by_the_host(block * BLOCK + np.array(unmapped, np.intp))

    # The host, and its MMU notifier.

    def notify(self, first: int, pages: int, move: Callable[[], None], huge: bool) -> None:
        """Unmap pages of a block, let ``move`` move their frames and tell the machine, which then lets faults in."""
        s, vm, gfn = self.s, self.vm, self.vm.gfn_of(first)
        assert invalidate_start(s, self.who, gfn, first, pages) == 0
        kept = vm.host[first : first + pages].copy()
        vm.host[first : first + pages] = HOST_MOVING
        vm.unmap(gfn, gfn + pages)
        assert fault(s, gfn, 1) == vm.user_mem_abort(gfn, True).kind == codes.RETRY
        vm.huge[first // BLOCK] = False
        end = gfn + pages
        if self.backing != "hugetlb" and (first + pages) % BLOCK != 0 and end < self.ends()[1]:  # a page, but no block
            assert fault(s, end, 1) == vm.user_mem_abort(end, True).kind
        assert differences(s, vm) == []
        vm.host[first : first + pages] = kept
        move()
        vm.huge[first // BLOCK] = huge
        assert np.array_equal(s.host, vm.host)

    def written_by_the_host(self, pages: npt.NDArray[np.intp]) -> None:
        """Without FWB that is in its cache."""
        assert self.fwb or (self.s.cells[self.vm.host[pages]] & NOT_AT_POC).all()

    def moved(self, first: int, pages: int, new: int, mix: int, huge: bool) -> None:
        """Tell the machine where frames are now."""
        assert invalidate_end(self.s, self.who, first, pages, new, mix, int(huge)) == 0
        self.vm.host[first : first + pages] = new + (np.arange(pages) ^ mix)

    def move_a_block(self, block: int, scattered: bool) -> None:
        """Collapse a range to a huge page, or break it up."""
        block %= len(self.chunks)
        scattered = scattered and self.backing != "hugetlb"
        first, old, new = block * BLOCK, self.chunks[block], self.spare
        pages, mix = min(BLOCK, len(self.values) - first), MIX * int(scattered)

        def move() -> None:
            for page in range(pages):  # those that were moved on their own come home first
                frame, home = int(self.vm.host[first + page]), old + (page ^ self.mix[block])
                if frame != home:
                    assert move_frames(self.s, frame, 0, home, 0, 1) == 1
                    self.free.append(frame)
            assert move_frames(self.s, old, self.mix[block], new, mix, pages) == pages
            self.moved(first, pages, new, mix, not scattered)
            self.written_by_the_host(np.arange(first, first + pages))

        self.notify(first, pages, move, not scattered)
        self.chunks[block], self.spare, self.mix[block] = new, old, mix
        self.seen["broken up" if scattered else "collapsed"] += 1

    def move_pages(self, first: int, count: int) -> None:
        """Move single pages away, each to a frame somewhere."""
        if self.backing == "hugetlb":
            return
        count = min(count, BLOCK - first % BLOCK)

        def move() -> None:
            for page in range(first, first + count):
                old, new = int(self.vm.host[page]), self.free.pop(0)
                assert move_frames(self.s, old, 0, new, 0, 1) == 1
                home = self.chunks[page // BLOCK] + (page % BLOCK ^ self.mix[page // BLOCK])
                if old != home:
                    self.free.append(old)
                self.moved(page, 1, new, 0, False)
            self.written_by_the_host(np.arange(first, first + count))

        self.notify(first, count, move, False)
        self.seen["pages moved"] += 1

    def unmap(self, first: int, count: int) -> None:
        """The host only changes its mapping, within one of its huge pages."""
        count = min(count, BLOCK - first % BLOCK)
        huge = self.vm.huge[first // BLOCK]

        def move() -> None:
            for page in range(first, first + count):
                self.moved(page, 1, int(self.vm.host[page]), 0, huge)

        self.notify(first, count, move, huge)

    def move_the_memslots(self, base: int) -> None:
        self.vm.unmap(*self.ends())
        gfn = self.s.geo.base_gfn + base
        assert move_memslots(self.s, self.who, gfn) == 0
        for slot in self.vm.slots:
            slot.ipa = (gfn << self.vm.page_shift) + slot.hva
        self.seen["memslots moved"] += 1

    # What is true at any time.

    def pending(self) -> int:
        """Detached tables that wait for a grace period."""
        return int(self.s.control[DEFERRED_TAIL] - self.s.control[DEFERRED_HEAD])

    def reap(self) -> None:
        waiting = self.pending()
        assert reap(self.s, self.who) == waiting
        self.seen["deferred"] += waiting

    def sound(self) -> None:
        s, vm = self.s, self.vm
        assert differences(s, vm) == []
        if self.pending() > 3:
            self.reap()
        if not self.pending():
            assert naive_audit(s) == []
            run_audit(s)
        assert violations(s) == {}
        assert not s.control[[LOCK, POOL_LOCK]].any()
        assert s.tally[INSIDE] == 0
        assert not (s.procs[:, WALKING] & 1).any()
        assert settled(s, s.control[REBUILDS]) == s.control[REBUILDS]
        cells = np.full(s.geo.frames, POISONED_CELL)
        cells[vm.host] = (np.arange(1, len(self.values) + 1) << TAG_SHIFT) | self.values
        assert ((s.cells ^ cells) & ~NOT_AT_POC == 0).all()
        for leaf in vm.leaves.values():
            frames = slice(leaf.frame, leaf.frame + vm.pages(leaf.level))
            assert self.fwb or not (s.cells[frames] & NOT_AT_POC).any()
            if leaf.level < LAST_LEVEL:  # what the table of user_mem_abort has as out of reach
                assert vm.largest(leaf.gfn) == leaf.level
                assert not (leaf.writable and self.logging)
        if self.sent is not None:
            late = set(np.flatnonzero(self.sent != self.values).tolist())
            assert late <= vm.dirty.union(*(dirty_pages(s._replace(dirty=found)) for found in self.found))

    def end(self) -> None:
        """Everything is unmapped, and given back."""
        self.reap()
        self.vm.unmap(*self.ends())
        assert unmap_memslots(self.s, self.who) == 0
        self.sound()
