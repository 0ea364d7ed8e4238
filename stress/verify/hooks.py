"""The kernels' plain-Python form, run on a world: where they stop, and what stands for the host's clock and kernel.

What kernels do by instructions and system calls goes through `stress.shm.processor`; the one here stops before it. The
rest is a vCPU's TLB, which the hardware fills too, and three pieces of code taken as one step each: mmu_lock taken, a
published invalidation, and its application. What those do in full is explored on its own (docs/verify.md).
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from operator import getitem, setitem
from typing import Any

from stress.bugs import MISSING_DSB
from stress.kernels import conflict, fault, holding, inject, oracle, rebuild, splitting, steps, tlb, tlbi, vcpu
from stress.kernels.codes import ENDLESS, SPURIOUS, STILL_FORBIDDEN
from stress.kernels.vcpu import RAN
from stress.orders import STEPS
from stress.results.counterexamples import FOUND
from stress.shm import atomics, mmu_lock
from stress.shm.accounts import Kind
from stress.shm.layout import Machine
from stress.shm.mode import JIT_DISABLED
from stress.shm.processor import Processor, Twins
from stress.shm.trace_log import trace
from stress.shm.traced import Traced
from stress.shm.words import LOCK
from stress.verify.regions import Region
from stress.verify.world import World

#: How the note of a step to another entry of a batch than the first begins.
BESIDE = "beside it"

_ENDLESS_FAULT = int(Kind.ENDLESS_FAULT)
_ENDLESS = 3  # times that a vCPU faults on what the table allows, and no TLBI comes
_PACKAGES = ("stress.kernels.", "stress.shm.")


class Stopping(Processor):
    """A processor on whose arrays, regions of a world, each access stops by itself."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.rmw_lock = world

    def load(self, array: Any, index: Any) -> int:
        """Load-acquire: as any other here."""
        return array[index]  # type: ignore[no-any-return]

    get = load

    def only(self, bits: int) -> AbstractContextManager[None]:
        """One word is accessed, of which only ``bits`` count."""
        return self._world.only(bits)

    def fence(self) -> None:
        """Sequentially consistent fence."""
        self._world.fence()

    def membarrier(self) -> int:
        """membarrier(2)."""
        return self._world.membarrier()

    def pause(self) -> None:
        """A turn of a loop that waits."""
        self._world.spin()

    def sched_yield(self) -> None:
        """A vCPU goes back to the guest to fault again."""
        self._world.try_again()

    def clock_ns(self) -> int:
        """A time: 0 stands for none."""
        return 1


class Hooks:
    """All that kernels do to a world beyond its arrays, while entered; one at a time per process."""

    def __init__(self) -> None:
        if not JIT_DISABLED:
            raise RuntimeError("compiled code cannot be stopped between two accesses")
        self.world = World()
        #: What stands for a vCPU's TLB and walk cache, by the identity of its registers.
        self.tlbs: dict[int, int] = {}
        self.sequence = 0  # the word with the TLBI number
        self._lookup, self._catch_up, self._publish = tlb.lookup, tlb.catch_up, tlbi.publish
        self._perform, self._perform_together = steps.perform, steps.perform_together
        self._keep, self._handle, self._missed = oracle.keep, fault.handle, vcpu.missed
        self._too_late, self._perform_split = tlbi.too_late, steps.perform_split
        self._conflict_abort = conflict.conflict_abort
        self._acquire_shared, self._release = mmu_lock.acquire_shared, mmu_lock.release
        #: Where some take mmu_lock alone and others for reading: a word for each process that may hold it for reading.
        #: (In a common word readers would seem to depend on each other.) None: all take it in one way.
        self.readers: Region | None = None
        #: Where TLBIs go that nobody waits for; None: they take effect at once.
        self.issued: deque[tuple[int, int, int]] | None = None
        #: Of a vCPU whose TLB forbade what the table allows: the page, the newest TLBI that it had applied, how often.
        self.spurious: dict[int, tuple[int, int, int]] = {}
        self._processor = Twins.processor
        self._replaced: list[tuple[dict[str, Any], str, Any]] = []

    def __enter__(self) -> Hooks:
        vcpus = vars(vcpu)
        self._replace(vcpus, lookup=self.lookup, catch_up=self.catch_up, handle=self.handle, missed=self.missed)
        self._replace(vars(conflict), conflict_abort=self.conflict_abort)
        for name in ("fill", "fill_block", "flush_page", "evict_pointers"):
            self._replace(vcpus, **{name: self._changes_the_tlb(vcpus[name])})
        self._replace(vars(tlbi), publish=self.publish, too_late=self.too_late)
        self._replace(vars(rebuild), perform=self.perform, perform_together=self.perform_together)
        self._replace(vars(splitting), perform_split=self.perform_split)
        self._replace(vars(oracle), keep=self.keep)
        self._replace(vars(holding), contended=self.contended)
        # By any processor a load and a store of a region are these, but for two calls on the way.
        replaced: dict[Callable[..., Any], Callable[..., Any]] = {
            mmu_lock.acquire: self.acquire,
            mmu_lock.acquire_shared: self.acquire_shared,
            mmu_lock.release: self.release,
            atomics.load: getitem,
            atomics.get: getitem,
        }
        replaced |= {atomics.store: setitem, atomics.put: setitem}
        for module in [module for name, module in sys.modules.items() if name.startswith(_PACKAGES)]:
            for name in ("acquire", "acquire_shared", "release", "load", "get", "store", "put"):
                if (its := vars(module).get(name)) in replaced:
                    self._replace(vars(module), **{name: replaced[its]})
        return self

    def __exit__(self, *_: object) -> None:
        self.world.dispose()
        while self._replaced:
            namespace, name, old = self._replaced.pop()
            namespace[name] = old
        Twins.processor = self._processor

    def _replace(self, namespace: dict[str, Any], **functions: Callable[..., Any]) -> None:
        for name, function in functions.items():
            self._replaced.append((namespace, name, namespace[name]))
            namespace[name] = function

    def attach(self, world: World) -> None:
        """From here on kernels run on this world."""
        self.world = world
        self.tlbs = {}
        self.readers = None
        self.issued = None
        self.spurious = {}
        Twins.processor = Stopping(world)

    def acquire(self, s: Machine, who: int) -> bool:
        """Take mmu_lock alone, in one step."""
        readers = self.readers
        if s.geo.shared != 0 and readers is None and self.world.current is not None:
            raise RuntimeError("mmu_lock is taken alone where all were to share it")
        control: Any = s.control
        others = () if readers is None else tuple(readers.place(reader) for reader in range(len(readers)))
        self.world.lock(control.place(LOCK), who + 1, others)
        trace(s, int(Traced.LOCK), who, 0, 0)
        return True

    def acquire_shared(self, s: Machine, who: int) -> bool:
        """Take mmu_lock for reading, in one step."""
        if self.readers is None:
            return bool(self._acquire_shared(s, who))
        control: Any = s.control
        self.world.lock(self.readers.place(who), 1, (control.place(LOCK),))
        return True

    def release(self, s: Machine, who: int, state: int) -> None:
        """Give mmu_lock back, however it is held."""
        if self.readers is not None and self.readers[who] != 0:
            atomics.exchange(self.readers, who, 0)
        else:
            self._release(s, who, state)

    def contended(self, s: Machine) -> bool:
        """Whether somebody waits for mmu_lock: nobody spins here, so whoever would take it gets the chance."""
        return True

    def lookup(self, cpu: tlb.Cpu, bits: int, gfn: int, sizes: int) -> int:
        """The TLB's answer now, whatever its vCPU last knew to be in it: hardware may have filled it since."""
        one = self.world.current
        if one is not None and (one.attempt is None or one.turn[-1:] == [(self.sequence, cpu.registers[tlb.CPU_SEEN])]):
            self.world.attempt(self.sequence)  # else the one under way goes on: its hit was not validated
        self.world.touch((self.tlbs[id(cpu.registers)],), ())
        return int(self._lookup(cpu, bits, gfn, tlb.sizes_held(cpu)))

    def catch_up(self, s: Machine, cpu: tlb.Cpu, seen: int) -> int:
        """Apply what was published, in one step; what hardware fills from here on was walked after that.

        The access that comes here is thrown away. If that is because the number moved, and as it never comes back,
        whatever the access had read it would have been.
        """
        one = self.world.current
        last = one.turn[-1:] if one is not None else []
        self.world.attempt_ends(well=not last or last[0][0] != self.sequence or last[0][1] == seen)
        with self.world.one_step("applies what was invalidated"):
            self.world.touch((), (self.tlbs[id(cpu.registers)],))
            cpu.registers[tlb.CPU_SEEN] = int(self._catch_up(s, cpu, seen))
        return int(cpu.registers[tlb.CPU_SEEN])

    def publish(self, s: Machine, start: int, end: int) -> int:
        """Publish an invalidation. One of all there is, in one step: whoever meets half of it drops all there is."""
        if end != 0:
            return int(self._publish(s, start, end))
        with self.world.one_step("TLBI of the VMID"):
            return int(self._publish(s, start, end))

    def too_late(self, s: Machine, start: int, end: int) -> bool:
        """Issue a TLBI without its DSB, if that bug is injected: hardware applies it at any time from here on."""
        if not inject.injected(s, MISSING_DSB):
            return False
        self.world.fence()
        self.world.note("TLBI without DSB")
        if self.issued is None:
            self.publish(s, start, end)
        else:
            self.issued.append((start, end, self.world.place))
        return True

    def perform(self, s: Machine, who: int, entry: int, step: int) -> bool:
        """Do one step of an order to one entry of the batch."""
        self.world.note(f"[{STEPS[step]}]" if entry == 0 else f"{BESIDE} {entry}: {STEPS[step]}")
        return bool(self._perform(s, who, entry, step))

    def perform_together(self, s: Machine, who: int, step: int) -> None:
        """Do one step of an order to all entries at once."""
        self.world.note(f"[{STEPS[step]}]")
        self._perform_together(s, who, step)

    def perform_split(self, s: Machine, who: int, step: int) -> bool:
        """Do one step of a split order."""
        self.world.note(f"[{STEPS[step]}]")
        return bool(self._perform_split(s, who, step))

    def handle(self, s: Machine, vcpu: int, gfn: int, write: bool, descriptor: int, level: int) -> int:
        """Exit with a fault."""
        self.world.attempt_ends(well=True)
        self.world.note(f"faults at page {gfn - s.geo.base_gfn}")
        outcome = int(self._handle(s, vcpu, gfn, write, descriptor, level))
        if outcome != SPURIOUS or level >= 0:
            self.spurious.pop(vcpu, None)
        return outcome

    def missed(self, s: Machine, cpu: tlb.Cpu, vcpu: int, gfn: int, *rest: int) -> int:
        """Take a fault; one that comes back for the second time although nothing was left to do is endless.

        The table allowed what the vCPU's TLB forbade: its handler is to drop the entry. It can be filled again if
        somebody takes the permission away, whose TLBI is published before another handler runs: the number has moved
        by the attempt after the next at the latest.
        """
        of, seen, times = self.spurious.get(vcpu, (gfn, 0, 0))
        self.spurious[vcpu] = gfn, rest[-1], times + 1 if (of, seen) == (gfn, rest[-1]) else 1
        status = int(self._missed(s, cpu, vcpu, gfn, *rest))
        if status == RAN and s.geo.shared != 0 and self.spurious.get(vcpu, (0, 0, 0))[2] == _ENDLESS:
            oracle.report(s, _ENDLESS_FAULT, vcpu, gfn, -1, rest[1], 0, STILL_FORBIDDEN)
            return ENDLESS
        return status

    def conflict_abort(self, s: Machine, vcpu: int, gfn: int, level: int, write: bool) -> None:
        """Exit with a TLB conflict abort."""
        self.world.note(f"TLB conflict abort at page {gfn - s.geo.base_gfn}")
        self._conflict_abort(s, vcpu, gfn, level, write)

    def keep(self, s: Machine, kind: int, rule: int, *evidence: int) -> None:
        """Keep a violation: that is no part of what happens."""
        with self.world.at_once():
            self.world.note(f"{FOUND} {Kind(kind).label}{', a rule' if rule else ''}")
            self._keep(s, kind, rule, *evidence)

    def _changes_the_tlb(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def change(*arguments: Any) -> Any:
            self.world.attempt_ends(well=True)
            for each in arguments:
                if isinstance(each, tlb.Cpu):
                    self.world.touch((), (self.tlbs[id(each.registers)],))
            with self.world.at_once():
                return function(*arguments)

        return change
