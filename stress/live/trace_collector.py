"""The trace of a run's beginning: rebuilds and faults, kept as they are drained, and changes of the page table."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from stress.bugs import MISSING_DSB
from stress.live.step_times import step_times
from stress.orders import Order
from stress.results.data import TRACED_FAULT, TRACED_REBUILD, TableShape, TraceData, TraceRequest
from stress.shm import accounts, words
from stress.shm.layout import Machine
from stress.shm.traced import W_AT, W_KIND, Traced

#: Faults kept at most: 16 MiB.
_FAULTS_KEPT = 1 << 18

# Limits of traces that casemate 3.0.2 can follow.
_CHECKED_GRANULE_SHIFT = 12
_CHECKED_VCPUS = 3
_CHECKED_TABLES = 8192

_REBUILD_WORDS = {
    "number": accounts.R_NUMBER,
    "order": accounts.R_ORDER,
    "who": accounts.R_WHO,
    "requested_ns": accounts.R_REQUESTED_NS,
    "locked_ns": accounts.R_LOCKED_NS,
    "unlocked_ns": accounts.R_UNLOCKED_NS,
    "start_ns": accounts.R_START_NS,
    "end_ns": accounts.R_END_NS,
    "invalid_ns": accounts.R_INVALID_NS,
    "valid_ns": accounts.R_VALID_NS,
    "window_faults": accounts.R_FAULTS,
}


class TraceCollector:
    """Keeps the first ``request.rebuilds`` rebuilds, and the faults until the last of them ended."""

    def __init__(self, machine: Machine, request: TraceRequest) -> None:
        self._machine = machine
        self._request = request
        self._rebuilds: list[npt.NDArray[np.int64]] = []
        self._faults: list[tuple[int, npt.NDArray[np.int64]]] = []
        self._left = request.rebuilds
        self._last_end_ns = 0
        self._room = _FAULTS_KEPT
        self._full_ns = 0  # clock when the first fault was not kept

    def take_rebuilds(self, records: npt.NDArray[np.int64]) -> None:
        """Offer the rebuilds that follow those offered before, without void ones."""
        if self._left and len(records):
            self._rebuilds.append(records[: self._left].copy())
            self._left -= len(self._rebuilds[-1])
            self._last_end_ns = max(self._last_end_ns, int(self._rebuilds[-1][:, accounts.R_END_NS].max()))

    def take_faults(self, vcpu: int, events: npt.NDArray[np.int64]) -> None:
        """Offer the faults of a vCPU that follow those offered before."""
        if not self._left:
            events = events[events[:, accounts.E_TIME_NS] <= self._last_end_ns]
        kept = events[: self._room].copy()
        self._room -= len(kept)
        self._faults.append((vcpu, kept))
        if len(kept) < len(events):
            lost_ns = int(events[len(kept), accounts.E_TIME_NS])
            self._full_ns = min(self._full_ns or lost_ns, lost_ns)

    def result(self, orders: tuple[Order, ...], ended_ns: int) -> TraceData:
        """The trace, once no worker runs any more."""
        machine, geo = self._machine, self._machine.geo
        rebuilds, faults = self._rebuild_rows(orders), self._fault_rows()
        end_ns = min(self._full_ns or ended_ns, self._last_end_ns if not self._left else ended_ns)
        changes, cut = self._changes()
        if end_ns == self._full_ns and not self._request.changes:
            cut = f"it is full: {_FAULTS_KEPT} faults"
        rebuilds, faults = rebuilds[rebuilds["end_ns"] <= end_ns], faults[faults["time_ns"] < end_ns]
        # Faults that the end cuts are kept whole.
        end_ns = max(end_ns, int((faults["time_ns"] + faults["stall_ns"]).max(initial=0)))
        return TraceData(
            orders=orders,
            exit_ns=geo.exit_ns,
            guest_ns=[int(row[accounts.FIRST_ACCESS_NS]) for row in machine.states[: geo.hypervisor]],
            end_ns=end_ns,
            rebuilds=rebuilds,
            faults=faults,
            shape=TableShape(
                geo.granule_shift, geo.index_bits, geo.start_level, geo.root_pages, geo.table_pages, words.TABLES_PA
            ),
            changes=changes,
            waits=geo.inject & MISSING_DSB == 0,
            slowed=self._request.changes,
            cut=cut,
            beyond=self._beyond(changes) if self._request.changes else "",
        )

    def _rebuild_rows(self, orders: tuple[Order, ...]) -> npt.NDArray[Any]:
        geo = self._machine.geo
        records = np.concatenate([np.zeros((0, accounts.RECORD_WORDS), np.int64), *self._rebuilds])
        rows = np.zeros(len(records), TRACED_REBUILD)
        for name, word in _REBUILD_WORDS.items():
            rows[name] = records[:, word]
        rows["ipa"] = (records[:, accounts.R_BLOCK] + geo.base_gfn) << geo.granule_shift
        rows["step_ns"] = step_times(records, orders)
        return rows

    def _fault_rows(self) -> npt.NDArray[Any]:
        parts = [np.zeros(0, TRACED_FAULT)]
        for vcpu, events in self._faults:
            rows = np.zeros(len(events), TRACED_FAULT)
            what = events[:, accounts.E_WHAT]
            rows["vcpu"] = vcpu
            rows["time_ns"] = events[:, accounts.E_TIME_NS]
            rows["ipa"] = events[:, accounts.E_GFN] << self._machine.geo.granule_shift
            rows["stall_ns"] = events[:, accounts.E_STALL_NS]
            rows["lock_wait_ns"] = events[:, accounts.E_LOCK_WAIT_NS]
            rows["number"] = events[:, accounts.E_NUMBER]
            rows["fault_class"] = what & 0xF
            rows["level"] = what >> 4 & 0xF
            rows["write"] = what >> 8 & 1
            parts.append(rows)
        return np.concatenate(parts)

    def _changes(self) -> tuple[npt.NDArray[np.int64], str]:
        """The rows of the trace up to the first that is not complete, and why they are cut short, or "".

        A process that is killed while it appends leaves such a row. Later rows may depend on it.
        """
        machine = self._machine
        rows = machine.trace
        incomplete = np.flatnonzero(rows[:, W_KIND] == 0)
        used = int(incomplete[0]) if len(incomplete) else len(rows)
        full = self._request.changes and used == len(rows) and not machine.tally[accounts.TRACE_ENDED]
        return rows[:used], f"it is full: {used} changes of the page table" if full else ""

    def _beyond(self, changes: npt.NDArray[np.int64]) -> str:
        """Which of casemate's limits the trace passes, "" if none."""
        geo = self._machine.geo
        allocated = np.unique(changes[changes[:, W_KIND] == Traced.ALLOCATE, W_AT])
        # Above the concatenated tables the trace has one at each level (docs/traces.md).
        tables = geo.start_level + geo.root_pages + len(allocated)
        passed = [
            (geo.granule_shift != _CHECKED_GRANULE_SHIFT, f"a granule of {1 << geo.granule_shift >> 10}K, not 4K"),
            (geo.hypervisor > _CHECKED_VCPUS, f"{geo.hypervisor} vCPUs, more than {_CHECKED_VCPUS}"),
            (tables > _CHECKED_TABLES, f"{tables} tables, more than {_CHECKED_TABLES}"),
        ]
        return "; ".join(what for is_passed, what in passed if is_passed)
