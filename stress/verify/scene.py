"""What is explored: a block of a few pages, its table, some vCPUs, and an order under test; reset, not rebuilt.

There are as many blocks as are rebuilt together, one if nothing is said.

Its memory is a world's words with the layout of the live run's segment, made by the same code. Tables have as many
entries as a block has pages, two by default; the rest of the geometry is the granule's.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from stress.arch.geometry import BLOCK_SIZES, KIB
from stress.bugs import MISSING_DSB
from stress.errors import UsageError
from stress.kernels import tlbi
from stress.kernels.audit import audit
from stress.kernels.codes import POOL_EXHAUSTED
from stress.kernels.descriptor import next_page
from stress.kernels.teardown import reap
from stress.kernels.tlb import CPU_LEFT, CPU_SEEN, Cpu, new_cpu
from stress.kernels.vcpu import run
from stress.kernels.workload import Pattern, Workload
from stress.orders import Order
from stress.shm import accounts, layout, words
from stress.shm.layout import Machine
from stress.shm.toy import ToyGeometry, toy_geo
from stress.splits import BUILD_FIRST, parse_split_order
from stress.units import format_size
from stress.verify.hardware import speculate
from stress.verify.hooks import Hooks
from stress.verify.regions import Region
from stress.verify.scripts import SCRIPTS, Guests, recover_block
from stress.verify.world import World

# Nothing that is done depends on what only records.
_RECORDS = frozenset(layout.RECORDS) - {"cycles"}  # which has the order under test
#: Where all share mmu_lock nobody waits for it, and its readers' count decides nothing.
_LOCK = frozenset((words.LOCK, words.LOCK_WRITERS))


#: A walk that hardware makes by itself: for which vCPU, and for which page.
Guess = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a proof is about. The machine is smaller where hardware walks by itself: it has ``speculating`` vCPUs."""

    scenario: str = "rebuild"
    vcpus: int = 2
    pages: int = 2
    populated: int = 1
    accesses: int = 2
    fwb: bool = True
    guest_caches: bool = True
    bbm_level: int = 0
    shared: bool = False  # fault handlers share mmu_lock
    vcpu_rebuilds: bool = False
    recovers: bool = False  # who stops dirty logging makes a block of the table
    split_order: str = BUILD_FIRST.name
    yield_every: int = 0  # entries after which a tear-down gives mmu_lock up, whoever waits; 0: it never does
    batch: int = 1  # blocks, all of which are rebuilt together
    inject: int = 0
    granule: int = 64 * KIB
    tso: bool = True
    phases: bool = True  # a TLBI that nobody waits for takes effect at any time, not when it is issued
    speculating: int = 1  # vCPUs of the machines in which one walks by itself


#: The least and the most of what a proof may be about.
RANGES = {
    "vcpus": (1, 4),
    "accesses": (1, 8),
    "bbm_level": (0, 3),
    "batch": (1, 4),
    "speculating": (0, 4),
    "yield_every": (0, (1 << 31) - 1),
    "inject": (0, (1 << 62) - 1),
}


def check(bounds: Bounds, order: Order) -> None:
    """Raise `UsageError` if there is no such machine, or it is too large."""
    script = SCRIPTS.get(bounds.scenario)
    if script is None:
        raise UsageError(f"unknown scenario {bounds.scenario[:40]!r}", f"use --scenario {' or '.join(SCRIPTS)}")
    for name, (least, most) in RANGES.items():
        if not least <= getattr(bounds, name) <= most:
            raise UsageError(f"{name.replace('_', '-')} is too small or too large", f"use {least} to {most}")
    pages, populated = bounds.pages, bounds.populated
    if pages < 2 or pages & (pages - 1) or pages > 16:
        raise UsageError(f"a block of {pages} pages cannot be made", "use --pages 2, 4, 8 or 16")
    if bounds.granule not in BLOCK_SIZES:
        raise UsageError(f"there is no granule of {format_size(bounds.granule)}", "use --granule 4K, 16K or 64K")
    if bounds.batch > 1 and not script.rebuilds:
        raise UsageError(f"scenario {bounds.scenario} has one block", "leave --batch out, or --scenario")
    if not 0 <= populated <= pages:
        raise UsageError(f"{populated} of {pages} pages cannot be mapped", f"use --populated 0 to {pages}")
    if bounds.yield_every and not order.tears_down_locked:
        raise UsageError(f"{order.name} tears nothing down under mmu_lock", "leave --yield-every out")
    if bounds.recovers and not script.logs:
        raise UsageError(f"scenario {bounds.scenario} stops no dirty logging", "use --scenario migration")


def geo_of(bounds: Bounds, trace_rows: int = 0) -> layout.Geo:
    """The toy's geometry and policy; changes of its tables are traced if there are rows for them."""
    return toy_geo(
        ToyGeometry(granule=bounds.granule, block_pages=bounds.pages, blocks=bounds.batch),
        vcpus=bounds.vcpus,
        fwb=bounds.fwb,
        guest_caches=bounds.guest_caches,
        bbm_level=bounds.bbm_level,
        shared=bounds.shared,
        vcpu_rebuilds=bounds.vcpu_rebuilds,
        split_order=parse_split_order(bounds.split_order).word,
        yield_every=bounds.yield_every,
        batch=bounds.batch,
        inject=bounds.inject,
        spare_blocks=int(SCRIPTS[bounds.scenario].moves),
        trace_rows=trace_rows,
        trace_rebuilds=1 << 30,
        backing_thp=SCRIPTS[bounds.scenario].scatters,
    )


def machine_on(world: World, geo: layout.Geo, all_share: bool = True) -> Machine:
    """A fresh machine whose regions are the world's, which knows those that only record.

    ``all_share``: where mmu_lock can be shared nobody takes it alone.
    """

    def accounts_for(at: int) -> bool:
        name, index = world.about(at)
        return name in _RECORDS or (name == "control" and geo.shared != 0 and all_share and index[0] in _LOCK)

    world.accounts = accounts_for  # type: ignore[method-assign]
    fresh = layout.carve(bytearray(layout.segment_bytes(geo, 1)), geo, 1)
    list(layout.initialise(fresh))
    regions = {}
    for name, shape in layout.shapes(geo, 1):
        first = world.size
        regions[name] = world.region(name, shape)
        flat = getattr(fresh, name).reshape(-1)
        for at in np.flatnonzero(flat):
            world.words[first + int(at)] = int(flat[at])
    return Machine(**regions, geo=geo)  # type: ignore[arg-type]


class Scene:
    """A machine whose actors rebuild its block by an order, access its pages, and speculate."""

    def __init__(self, hooks: Hooks, order: Order, bounds: Bounds, guess: Guess | None, trace_rows: int = 0) -> None:
        self.order, self.bounds = order, bounds
        self.script = SCRIPTS[bounds.scenario]
        self.world = world = World(tso=bounds.tso)
        hooks.attach(world)
        geo = geo_of(bounds, trace_rows)
        self.s = machine_on(world, geo, self.script.shares)
        if geo.shared and not self.script.shares:
            hooks.readers = world.region("readers", (bounds.vcpus + 1,))
        cells: Region = self.s.cells  # type: ignore[assignment]
        world.split = range(cells.place(0), cells.place(0) + len(cells)), words.VALUE_MASK
        self._set_up()
        first = geo.base_gfn >> geo.index_bits
        #: Entries of the blocks, and pages of the tables to be replaced.
        self.entries = range(first, first + bounds.batch)
        self.tables = [next_page(geo, self.s.tables[entry]) for entry in self.entries]
        self.results: list[int] = []
        self.filled: list[str] = []  # "before" or "after" the rebuild's TLBI
        control: Region = self.s.control  # type: ignore[assignment]
        hooks.sequence = control.place(words.SEQUENCE)
        self._published = self.s.control[words.SEQUENCE]
        self.cpus = [self._new_cpu() for _ in range(bounds.vcpus)]
        for vcpu, cpu in enumerate(self.cpus):
            hooks.tlbs[id(cpu.registers)] = world.word(f"tlb {vcpu}")
        world.keep()
        world.at_reset(self._restore)
        world.actor("hypervisor", self._play_script)
        for vcpu in range(bounds.vcpus):
            world.actor(f"vcpu {vcpu}", partial(self._guest, vcpu))
        #: TLBIs issued and not applied yet: first and last frame, and the place in the schedule.
        self.issued: deque[tuple[int, int, int]] = deque()
        self.spurious = hooks.spurious
        if bounds.inject & MISSING_DSB:
            world.actor("TLBI", self._apply_late).optional = True
            if bounds.phases:
                hooks.issued = self.issued
        if guess is not None:
            vcpu, page = guess
            word = hooks.tlbs[id(self.cpus[vcpu].registers)]
            world.actor("hardware", lambda: self._speculate(vcpu, geo.base_gfn + page, word))

    def _set_up(self) -> None:
        """Some of the block's pages are mapped, and the host wrote the others; the order is the one under test."""
        s, bounds = self.s, self.bounds
        for at, code in enumerate(self.order.codes):
            s.orders[0, at] = code
        self.script.before(s, bounds.populated)

    def _new_cpu(self) -> Cpu:
        parts: Any = {name: part.tolist() for name, part in new_cpu()._asdict().items()}
        parts["upcoming"] = [0] * ((self.bounds.accesses + 1) & ~1)
        return Cpu(**parts)

    def _restore(self) -> None:
        """Each vCPU's TLB is empty, and up to date."""
        self.results = []
        self.filled = []
        self.issued.clear()
        self.spurious.clear()
        seen = self.s.control[words.SEQUENCE]
        for cpu in self.cpus:
            for part, fresh in zip(cpu, _EMPTY, strict=True):
                if part is not cpu.upcoming:
                    part[:] = fresh
            cpu.registers[CPU_SEEN] = seen
            cpu.registers[CPU_LEFT] = self.bounds.accesses

    def _play_script(self) -> None:
        self.script.then(self.s, self.bounds.populated)
        if self.bounds.recovers:
            recover_block(self.s)

    def _guest(self, vcpu: int) -> None:
        base = (self.bounds.batch - 1 - vcpu) % self.bounds.batch * self.bounds.pages  # of its block, the last at first
        first, second = base + (vcpu + 1) % self.bounds.pages, base + vcpu % self.bounds.pages
        head = 1  # reads
        if self.script.guests is Guests.WRITE_ONE:
            second, head = first, 2
        elif self.script.guests is Guests.READ_THEN_WRITE_SAME:
            first = second = base
        work = Workload(
            int(Pattern.PROGRAM), 1, 1, 0.99, 1, 4096, first, group=0, head=head, skip=second - first, run=1
        )
        self.results.append(int(run(self.s, self.cpus[vcpu], work, vcpu, 1)))

    def _apply_late(self) -> None:
        """What was issued and nobody waited for takes effect at some time."""
        while True:
            self.world.wait_until(lambda: bool(self.issued), lambda: self.issued[0][2])
            start, end, _ = self.issued.popleft()
            tlbi.publish(self.s, start, end)

    def _speculate(self, vcpu: int, gfn: int, tlb: int) -> None:
        if speculate(self.world, self.s, self.cpus[vcpu], vcpu, gfn, tlb):
            first = self.cpus[vcpu].registers[CPU_SEEN] == self._published
            self.filled.append("before" if first else "after")

    def judge(self) -> tuple[dict[str, int], bool]:
        """Violations of the schedule just played to its end, by kind, and whether any was met, not told by a rule.

        The hypervisor then frees what others queued after it last did, as at the end of a run, and audits the tables.
        """
        s = self.s
        stuck = [one.name for one in self.world.team if not one.done and not one.optional]
        if not stuck:
            reap(s, s.geo.hypervisor)
            pages = s.geo.table_pages
            audit(s, s.geo.hypervisor, [0] * pages, [0] * pages)
        found = {kind.label: count for kind in _KINDS if (count := s.tally[accounts.VIOLATIONS + kind])}
        told = sum(s.tally[accounts.BY_RULE + kind] for kind in _KINDS) if found else 0
        met = sum(found.values()) > told
        if stuck:
            found["deadlock"] = len(stuck)
        elif POOL_EXHAUSTED in self.results:
            found["table-leak"] = found.get("table-leak", 0) + 1
        return found, met or bool(stuck)

    def violations(self) -> int:
        """How many violations there were so far."""
        return sum(self.s.tally[accounts.VIOLATIONS + kind] for kind in _KINDS)

    def counted(self, counter: int) -> int:
        """Sum of a counter over all vCPUs and slots."""
        counters: Region = self.s.counters  # type: ignore[assignment]
        vcpus, slots, _ = counters.shape
        return sum(counters[vcpu, slot, counter] for vcpu in range(vcpus) for slot in range(slots))


_KINDS = tuple(accounts.Kind)
_EMPTY = tuple(part.tolist() for part in new_cpu())
