"""Random lives of one machine: everything a guest, a VMM and a host do, against a model kept in dictionaries.

After each operation the table is the model's entry by entry, memory holds what was written where the host says it is,
the dirty bitmap is exact, every count adds up, and no oracle has spoken. Each fault is of the class the model predicts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from life import differences, dirty_pages, vm_of
from machines import naive_audit, run_audit, small_machine, violations

from stress.arch.geometry import LAST_LEVEL
from stress.kernels import codes
from stress.kernels.abort import resolve
from stress.kernels.dirty import compare_copy, harvest, send, send_all, set_logging, stop_logging_at
from stress.kernels.notifier import (
    invalidate_end,
    invalidate_start,
    move_frames,
    move_memslots,
    unmap_memslots,
)
from stress.kernels.pattern import Pattern, Workload
from stress.kernels.rebuild import rebuild
from stress.kernels.records import under_way
from stress.kernels.split import populate, split, write_unmapped
from stress.kernels.teardown import reap
from stress.kernels.tlb import R_LEFT, R_PAGE, Cpu, new_cpu
from stress.kernels.vcpu import FINISHED, run
from stress.orders import NAMED_ORDERS
from stress.shm.layout import Machine
from stress.shm.words import (
    C_ACCESSES,
    C_FAULTS,
    C_MAPPED_BLOCKS,
    C_REDONE,
    C_WRITES,
    DEFERRED_HEAD,
    DEFERRED_TAIL,
    FAULT_KINDS,
    HOST_MOVING,
    INSIDE,
    LOCK,
    NOT_AT_POC,
    ORDER,
    POISONED_CELL,
    POOL_LOCK,
    REBUILDS,
    TAG_SHIFT,
    VALUE_MASK,
    WALKING,
)

BLOCK = 512  # pages of a 2 MiB block
ALL = 1 << 20
#: Pages of guest memory, and memslots: their boundaries and the end of memory cut blocks, or do not.
LAYOUTS = ((3 * BLOCK, 1), (3 * BLOCK, 2), (3 * BLOCK, 3), (5 * BLOCK // 2, 1), (2 * BLOCK, 3))
BACKINGS = {"anonymous": (LAST_LEVEL, False), "thp": (2, True), "hugetlb": (2, False)}
#: Where the memslots may begin, in pages from where they are at first: elsewhere, or where no block is aligned.
BASES = (0, 4 * BLOCK, 0, 4 * BLOCK, 1, 8 * BLOCK + 3)
#: Pages of a block where guests begin: few, so that they meet.
HOT = (0, 1, BLOCK // 2, BLOCK - 20)
#: Scatters the frames of a range that is no huge page.
MIX = 0x155


def program(
    first: int, *, group: int = 1, head: int = 0, skip: int = 0, each: int = 1, write: bool = False
) -> Workload:
    """A guest's program of stress.kernels.pattern."""
    return Workload(int(Pattern.PROGRAM), 1, 1, 0.99, 1, 4096 * write, first, group, head, skip, each)


def execute(s: Machine, cpu: Cpu, vcpu: int, work: Workload, accesses: int) -> None:
    """Let a vCPU run the first accesses of a program."""
    cpu.registers[R_PAGE] = 0
    cpu.registers[R_LEFT] = accesses
    assert run(s, cpu, work, vcpu, accesses + 1) == FINISHED


class Life(RuleBasedStateMachine):
    """One machine and what must be true of it."""

    shared = False
    fwb = True
    seen: Counter[str]

    @initialize(
        layout=st.sampled_from(LAYOUTS),
        backing=st.sampled_from(sorted(BACKINGS)),
        bbm_level=st.integers(0, 2),
        vcpus_rebuild=st.booleans(),
        per_fault=st.booleans(),
    )
    def boot(self, layout: tuple[int, int], backing: str, bbm_level: int, vcpus_rebuild: bool, per_fault: bool) -> None:
        orders = [order for order in NAMED_ORDERS.values() if order.bbm_level <= bbm_level]
        level, thp = BACKINGS[backing]
        pages, memslots = layout
        self.backing = backing
        self.s = small_machine(
            blocks=pages // BLOCK,
            pages=pages,
            memslots=memslots,
            vcpus=2,
            orders=len(orders),
            fwb=self.fwb,
            guest_caches=self.fwb,
            bbm_level=bbm_level,
            backing_level=level,
            backing_thp=thp,
            spare_blocks=2,
            shared=self.shared,
            vcpu_rebuilds=vcpus_rebuild,
            cmo_per_fault=per_fault,
            copies=True,
        )
        for number, order in enumerate(orders):
            self.s.orders[number, : len(order.codes)] = order.codes
        self.who = self.s.geo.hypervisor
        self.cpus = [new_cpu(), new_cpu()]
        self.vm = vm_of(self.s)
        self.values = np.zeros(pages, np.int64)
        # Frames: each block of memory has a chunk, one chunk is spare, one takes single pages that the host moves away.
        chunks = range(0, self.s.geo.frames, BLOCK)
        *self.chunks, self.spare, scattered = chunks
        self.mix = [0] * len(self.chunks)
        self.free = [*range(scattered, scattered + BLOCK)]
        self.sent: np.ndarray[Any, np.dtype[np.int64]] | None = None  # value of each page that the destination has
        self.calm = 0  # operations since the host last took something away: else there would be little to take
        self.found: list[Any] = []  # harvested bitmaps, not sent yet

    @property
    def logging(self) -> bool:
        return self.vm.slots[0].logging

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
            leaf = vm.lookup(gfn)
            while leaf is None or (write and not leaf.writable):
                outcome = vm.user_mem_abort(gfn, write)
                kinds[outcome.kind] += 1
                if outcome.did != codes.NOTHING:
                    dids[outcome.did] += 1
                    dids[codes.MAPPED_PAGE] += outcome.did == codes.SPLIT
                leaf = vm.lookup(gfn)
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
        self.seen.update({f"fault {kind}": count for kind, count in enumerate(kinds)})
        self.seen.update({f"did {did}": count for did, count in enumerate(dids)})

    @rule(
        vcpu=st.integers(0, 1),
        block=st.integers(0, 2),
        page=st.sampled_from(HOT),
        count=st.integers(1, 40),
        stride=st.sampled_from((1, 7, 64)),
        write=st.booleans(),
    )
    def touch(self, vcpu: int, block: int, page: int, count: int, stride: int, write: bool) -> None:
        first = (block * BLOCK + page) % len(self.values)
        pages = range(first, len(self.values), stride)[:count]
        self.guest(vcpu, program(first, group=stride, write=write), [(page, write) for page in pages])

    @rule(vcpu=st.integers(0, 1), block=st.integers(0, 1))
    def update_stage(self, vcpu: int, block: int) -> None:
        """As KVM's selftest: write the first page, read the upper half."""
        first = block * BLOCK
        work = program(first, group=BLOCK, head=2, skip=BLOCK // 2, each=BLOCK // 2)
        reads = [(first + page, False) for page in range(BLOCK // 2, BLOCK)]
        self.guest(vcpu, work, [(first, True), *reads])

    # Dirty logging.

    def ends(self) -> tuple[int, int]:
        """Guest memory as guest frames."""
        return self.vm.gfn_of(0), self.vm.gfn_of(0) + len(self.values)

    @precondition(lambda self: not self.logging)
    @rule(eager=st.booleans())
    def enable(self, eager: bool) -> None:
        assert set_logging(self.s, self.who, 1) == self.vm.write_protect(*self.ends())
        for slot in self.vm.slots:
            slot.logging = True
        for block in range(len(self.chunks)) if eager else ():
            self.split(block, ALL, False)
        self.seen["enable"] += 1

    def stop_logging(self) -> None:
        for slot in self.vm.slots:
            slot.logging = False
        self.sent, self.found = None, []

    @precondition(lambda self: self.logging)
    @rule()
    def disable(self) -> None:
        assert set_logging(self.s, self.who, 0) == 0
        self.stop_logging()

    @precondition(lambda self: self.logging)
    @rule(first=st.integers(0, 2 * BLOCK - 1), count=st.integers(1, BLOCK))
    def stop_logging_at(self, first: int, count: int) -> None:
        gfn, end = self.vm.gfn_of(first), min(self.vm.gfn_of(first) + count, self.ends()[1])
        assert stop_logging_at(self.s, self.who, gfn, end) == self.vm.write_protect(gfn, end)
        self.stop_logging()

    @precondition(lambda self: self.logging)
    @rule()
    def send_everything(self) -> None:
        assert send_all(self.s, 0, len(self.values)) == len(self.values)
        self.sent = self.values.copy()

    @precondition(lambda self: self.logging)
    @rule()
    def harvest(self) -> None:
        found = np.zeros_like(self.s.dirty)
        pages = sorted(self.vm.dirty)
        assert harvest(self.s, self.who, found) == len(pages)
        assert sorted(dirty_pages(self.s._replace(dirty=found))) == pages
        for page in pages:
            self.vm.write_protect(self.vm.gfn_of(page), self.vm.gfn_of(page) + 1)
        self.vm.dirty.clear()
        self.found.append(found)
        self.seen["harvested"] += len(pages)

    @precondition(lambda self: self.sent is not None)
    @rule()
    def send(self) -> None:
        for found in self.found:
            pages = sorted(dirty_pages(self.s._replace(dirty=found)))
            assert send(self.s, found) == len(pages)
            assert self.sent is not None
            self.sent[pages] = self.values[pages]
        self.found = []

    @precondition(lambda self: self.sent is not None)
    @rule()
    def stop_and_copy(self) -> None:
        self.harvest()
        self.send()
        assert compare_copy(self.s, self.who) == 0
        assert (self.sent == self.values).all()
        self.seen["migrated"] += 1

    # The hypervisor's own changes to the table.

    @precondition(lambda self: not self.logging)
    @rule(block=st.integers(0, 2))
    def rebuild(self, block: int) -> None:
        gfn = self.whole(block)
        if gfn is not None:
            is_table = self.vm.table_in_the_way(gfn, 2)
            assert rebuild(self.s, self.who, gfn) == (0 if is_table else 1)
            if is_table:
                self.vm.map(gfn, 2, writable=True)
                self.seen[f"rebuilt by order {self.s.control[ORDER]}"] += 1

    @rule(number=st.integers(0, len(NAMED_ORDERS) - 1))
    def choose_an_order(self, number: int) -> None:
        self.s.control[ORDER] = number % len(self.s.orders)

    def split(self, block: int, share: int, map_first: bool) -> None:
        gfn = self.whole(block)
        if gfn is None:
            return
        writable = not self.logging
        assert split(self.s, self.who, gfn, share, writable, map_first) == 0
        leaf = self.vm.lookup(gfn)
        if map_first and not self.vm.covered(gfn, gfn + BLOCK):
            self.vm.map(gfn, 2, writable)
        leaf = self.vm.lookup(gfn)
        if leaf is not None and leaf.level == 2:
            del self.vm.leaves[gfn]
            for page in range(BLOCK):
                if (page + 1) * share // ALL > page * share // ALL:
                    self.vm.map(gfn + page, LAST_LEVEL, writable)
            self.seen["split"] += 1

    @precondition(lambda self: not self.logging)
    @rule(block=st.integers(0, 2), share=st.sampled_from((ALL, ALL // 2, ALL // BLOCK)), map_first=st.booleans())
    def split_whole(self, block: int, share: int, map_first: bool) -> None:
        self.split(block, share, map_first)

    @precondition(lambda self: not self.logging and not self.s.geo.cmo_per_fault)
    @rule(block=st.integers(0, 2))
    def populate(self, block: int) -> None:
        gfn = self.whole(block)
        if gfn is not None:
            assert populate(self.s, self.who, gfn) == 0
            if not self.vm.covered(gfn, gfn + BLOCK):
                self.vm.map(gfn, 2, writable=True)

    @precondition(lambda self: not self.fwb)
    @rule(block=st.integers(0, 2))
    def vmm_writes_what_is_unmapped(self, block: int) -> None:
        gfn = self.whole(block)
        if gfn is not None:
            assert write_unmapped(self.s, self.who, gfn) == 0

    # The host, and its MMU notifier.

    def notify(self, first: int, pages: int, move: Callable[[], None], huge: bool) -> None:
        """Unmap pages, let ``move`` move their frames and tell the machine, then let faults in again."""
        s, vm, blocks = self.s, self.vm, range(first // BLOCK, (first + pages - 1) // BLOCK + 1)
        self.calm = 0
        gfn = vm.gfn_of(first)
        assert invalidate_start(s, self.who, gfn, first, pages) == 0
        kept = vm.host[first : first + pages].copy()
        vm.host[first : first + pages] = HOST_MOVING
        vm.unmap(gfn, gfn + pages)
        assert resolve(s, gfn, 1, 0, 0, 0)[0] == vm.user_mem_abort(gfn, True).kind == codes.RETRY
        assert differences(s, vm) == []
        vm.host[first : first + pages] = kept
        move()
        for block in blocks:
            vm.huge[block] = huge
        assert (s.host == vm.host).all()

    def moved(self, first: int, pages: int, new: int, mix: int, huge: bool) -> None:
        """Tell the machine where frames are now."""
        assert invalidate_end(self.s, self.who, first, pages, new, mix, huge) == 0
        self.vm.host[first : first + pages] = new + (np.arange(pages) ^ mix)

    @precondition(lambda self: self.calm >= 8)
    @rule(block=st.integers(0, 2), scattered=st.booleans())
    def move_a_block(self, block: int, scattered: bool) -> None:
        """Collapse a range to a huge page, or break it up."""
        block %= len(self.chunks)
        scattered = scattered and self.backing != "hugetlb"
        first, old, new = block * BLOCK, self.chunks[block], self.spare
        pages, mix = min(BLOCK, len(self.values) - first), MIX * scattered

        def move() -> None:
            for page in range(pages):  # those that were moved on their own come home first
                frame, home = int(self.vm.host[first + page]), old + (page ^ self.mix[block])
                if frame != home:
                    assert move_frames(self.s, frame, 0, home, 0, 1) == 1
                    self.free.append(frame)
            assert move_frames(self.s, old, self.mix[block], new, mix, pages) == pages
            self.moved(first, pages, new, mix, not scattered)

        self.notify(first, pages, move, not scattered)
        self.chunks[block], self.spare, self.mix[block] = new, old, mix
        self.seen["broken up" if scattered else "collapsed"] += 1

    @precondition(lambda self: self.calm >= 8 and self.backing != "hugetlb")
    @rule(first=st.integers(0, 2 * BLOCK - 1), count=st.integers(1, 5))
    def move_pages(self, first: int, count: int) -> None:
        """Move single pages away, each to a frame somewhere."""
        count = min(count, BLOCK - first % BLOCK)

        def move() -> None:
            for page in range(first, first + count):
                old, new = int(self.vm.host[page]), self.free.pop(0)
                assert move_frames(self.s, old, 0, new, 0, 1) == 1
                home = self.chunks[page // BLOCK] + (page % BLOCK ^ self.mix[page // BLOCK])
                if old != home:
                    self.free.append(old)
                self.moved(page, 1, new, 0, False)

        self.notify(first, count, move, False)
        self.seen["pages moved"] += 1

    @precondition(lambda self: self.calm >= 8)
    @rule(first=st.integers(0, 2 * BLOCK - 1), count=st.integers(1, BLOCK))
    def unmap(self, first: int, count: int) -> None:
        """The host only changes its mapping, within one of its huge pages."""
        count = min(count, BLOCK - first % BLOCK)
        huge = self.vm.huge[first // BLOCK]

        def move() -> None:
            for page in range(first, first + count):
                self.moved(page, 1, int(self.vm.host[page]), 0, huge)

        self.notify(first, count, move, huge)

    @precondition(lambda self: self.calm >= 8)
    @rule(base=st.sampled_from(BASES))
    def move_the_memslots(self, base: int) -> None:
        self.calm = 0
        self.vm.unmap(*self.ends())
        gfn = self.s.geo.base_gfn + base
        if gfn == self.ends()[0]:
            assert unmap_memslots(self.s, self.who) == 0
        else:
            assert move_memslots(self.s, self.who, gfn) == 0
        for slot in self.vm.slots:
            slot.ipa = (gfn << self.vm.page_shift) + slot.hva
        self.seen["memslots moved"] += 1

    # What is true at any time.

    def pending(self) -> int:
        """Detached tables that wait for a grace period."""
        return int(self.s.control[DEFERRED_TAIL] - self.s.control[DEFERRED_HEAD])

    @rule()
    def reap(self) -> None:
        waiting = self.pending()
        assert reap(self.s, self.who) == waiting
        self.seen["deferred"] += waiting

    @invariant()
    def sound(self) -> None:
        self.calm += 1
        s, vm = self.s, self.vm
        assert differences(s, vm) == []
        if self.pending() > 3:
            self.reap()
        if not self.pending():
            assert naive_audit(s) == []
            run_audit(s)
        assert violations(s) == {}
        assert not s.control[[LOCK, POOL_LOCK, INSIDE]].any()
        assert not (s.procs[:, WALKING] & 1).any()
        assert not under_way(s, s.control[REBUILDS])
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


@pytest.mark.parametrize("fwb", [pytest.param(True, id="fwb"), pytest.param(False, id="no-fwb")])
@pytest.mark.parametrize("shared", [pytest.param(False, id="exclusive"), pytest.param(True, id="shared")])
def test_any_sequence_of_operations(shared: bool, fwb: bool) -> None:
    counts: Counter[str] = Counter()
    holds, cleans = shared, fwb

    class Case(Life):
        shared = holds
        fwb = cleans
        seen = counts

    run_state_machine_as_test(Case, settings=settings(max_examples=20, stateful_step_count=100))
    print(counts)
    assert counts == {}
