"""The ``migration`` scenario: pre-copy while the guest writes, then logging stops and blocks are rebuilt.

Every second migration is cancelled midway; the others end with a comparison of the copy and memory, cell by cell.
"""

from __future__ import annotations

import numpy as np

from stress.kernels.dirty import compare_copy, harvest, send, send_all
from stress.live.hypervisor import Hypervisor
from stress.live.scenarios.dirty_logging import LoggingScenario

#: Pages sent between two signs of life.
_AT_ONCE = 1 << 20


class Migration(LoggingScenario):
    """One migration per cycle."""

    def __init__(self, hypervisor: Hypervisor) -> None:
        super().__init__(hypervisor)
        self._dirty = np.zeros_like(self.machine.dirty)

    def cycle(self, order: int, turn: int) -> None:
        """Migrate, to the end or not; stop logging; let the blocks be rebuilt."""
        hypervisor = self.hypervisor
        last = hypervisor.random.randrange(self.plan.iterations) if turn % 2 == 0 else None
        self.enable_logging()
        for first in range(0, self.plan.geo.pages, _AT_ONCE):
            end = min(first + _AT_ONCE, self.plan.geo.pages)
            hypervisor.count("copied_pages", send_all(self.machine, first, end))
            hypervisor.beat()
        for iteration in range(self.plan.iterations):
            hypervisor.dwell_around(self.plan.dwell_ns)
            self._pre_copy()
            if iteration == last or hypervisor.finishing:
                break
        if last is None and not hypervisor.finishing:
            self._stop_and_copy()
        else:
            hypervisor.count("migrations_cancelled")
        self.disable_logging()
        self.let_rebuild()

    def _pre_copy(self) -> None:
        """Harvest the dirty log, and send the pages that it has."""
        hypervisor = self.hypervisor
        pages = hypervisor.check(harvest(self.machine, self.who, self._dirty))
        hypervisor.count("harvests")
        hypervisor.count("dirty_pages", pages)
        hypervisor.count("copied_pages", send(self.machine, self._dirty))

    def _stop_and_copy(self) -> None:
        """Stop the guest, send the rest, and compare the copy with memory."""
        with self.hypervisor.parked():
            self._pre_copy()
            compare_copy(self.machine, self.who)
        self.hypervisor.count("migrations_completed")
