"""A migration in the life of a machine: harvests, parts of the dirty log, and what the destination has by then."""

from __future__ import annotations

from collections import Counter

import numpy as np
import numpy.typing as npt
from naive_vm import Vm, dirty_pages, log_of

from stress.kernels.dirty import clear_log, compare_copy, harvest, send, send_all
from stress.shm.layout import Machine


class Migrating:
    """What a VMM does while it logs dirty pages, each on the machine and on the model; ``life.Life`` has the rest."""

    s: Machine
    vm: Vm
    who: int
    seen: Counter[str]
    values: npt.NDArray[np.int64]  # of each page
    sent: npt.NDArray[np.int64] | None  # value of each page that the destination has
    found: list[npt.NDArray[np.int64]]  # harvested bitmaps, not sent yet
    got: npt.NDArray[np.int64]  # the dirty log as it was when somebody got it, with manual protection

    @property
    def logging(self) -> bool:
        return self.vm.slots[0].logging

    def migrate(self, what: str) -> None:
        """A step of a migration; "stop and copy" is the last."""
        if not self.logging:
            return
        if what == "send everything" or (self.sent is None and what != "harvest"):
            assert send_all(self.s, 0, len(self.values)) == len(self.values)
            self.sent = self.values.copy()
            return
        if what != "send":
            self.harvest()
        if what != "harvest":
            self.send()
        if what == "stop and copy":
            assert compare_copy(self.s, self.who) == 0
            assert self.sent is not None
            assert np.array_equal(self.sent, self.values)
            self.seen["migrated"] += 1

    def harvest(self) -> None:
        found = np.full_like(self.s.dirty, -1)  # what it held before is not dirty
        pages = sorted(self.vm.dirty)
        assert harvest(self.s, self.who, found) == len(pages)
        assert sorted(dirty_pages(self.s._replace(dirty=found))) == pages
        for page in pages:
            self.vm.write_protect(self.vm.gfn_of(page), self.vm.gfn_of(page) + 1)
        self.vm.dirty.clear()
        self.found.append(found)
        self.seen["harvested"] += len(pages)

    def get_log(self) -> None:
        self.got = self.s.dirty.copy()

    def clear_log(self, fresh: bool, first: int, count: int) -> None:
        """Some pages of the log that was got, be it old. What else is dirty stays so; what is cleared is sent later."""
        if not self.logging:
            return
        if fresh:
            self.get_log()
        s, vm = self.s, self.vm
        chunk = {*range(first, first + count)} & dirty_pages(s._replace(dirty=self.got)) & vm.dirty
        for number, slot in enumerate(vm.slots):
            low = max(first, slot.hva >> vm.page_shift)
            high = min(first + count, (slot.hva + slot.size) >> vm.page_shift)
            if low < high:
                assert clear_log(s, self.who, self.got, number, low, high) == len(chunk & {*range(low, high)})
        for page in chunk:
            vm.write_protect(vm.gfn_of(page), vm.gfn_of(page) + 1)
        vm.dirty -= chunk
        self.found.append(log_of(s, chunk))
        self.seen["cleared"] += len(chunk)

    def send(self) -> None:
        assert self.sent is not None
        for found in self.found:
            pages = sorted(dirty_pages(self.s._replace(dirty=found)))
            assert send(self.s, found) == len(pages)
            self.sent[pages] = self.values[pages]
        self.found = []
