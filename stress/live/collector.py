"""The collector: empties the rings while the run goes on, and turns the segment's counters into results."""

from __future__ import annotations

import time
from collections import deque

import numpy as np
import numpy.typing as npt

from stress.arch.geometry import LAST_LEVEL
from stress.live.reservoir import Reservoir
from stress.live.step_times import step_times
from stress.live.throughput import Throughput
from stress.live.trace_collector import TraceCollector
from stress.orders import Order
from stress.results.data import COUNTERS, CYCLE_ROW, NOT_MEASURED, REBUILD_ROW, STALL_ROW, OrderData, StageData
from stress.results.schema import Tables
from stress.shm import accounts, words
from stress.shm.drain import copy_cycles, copy_records, drain_events
from stress.shm.edges import lower_edges
from stress.shm.layout import Machine
from stress.shm.publish import publish

# Rows kept of all orders together; they bound the supervisor's memory.
_ROWS_KEPT = 1 << 17
_STALLS_KEPT = 1 << 18
_BATCH = 4096
# Rows of stages kept before every other pass is left out.
_STAGES_KEPT = 1 << 12
_RECENT = 64  # windows whose median the progress display shows
# Rows are read this long after their rebuild: a vCPU that was descheduled after a window fault charges its row late.
_SETTLE_S = 0.25


class Collector:
    """Everything measured, order by order."""

    def __init__(
        self, machine: Machine, orders: tuple[Order, ...], seed: int, traces: TraceCollector | None = None
    ) -> None:
        self._machine = machine
        self._traces = traces
        self._orders = orders
        count = len(orders)
        self._rows = [Reservoir(REBUILD_ROW, _ROWS_KEPT // count, seed + i) for i in range(count)]
        self._recent: list[deque[int]] = [deque(maxlen=_RECENT) for _ in range(count)]
        self._cycles = [Reservoir(CYCLE_ROW, _ROWS_KEPT // count, seed + i) for i in range(count)]
        self._next_cycle = 1
        self._cycles_overwritten = 0
        self._stalls = [Reservoir(STALL_ROW, _STALLS_KEPT // count, seed + i) for i in range(count)]
        self._events = np.zeros((_BATCH, accounts.EVENT_WORDS), np.int64)
        self._drained = np.zeros(machine.geo.hypervisor, np.int64)
        self._drained_of = np.zeros(len(orders), np.int64)
        self.throughput = Throughput()
        self._settling: deque[tuple[float, int]] = deque()  # (when seen, rebuilds complete by then)
        self._stages: list[npt.NDArray[np.int64]] = []
        self._stages_kept = _STAGES_KEPT
        self._stride = 1  # passes whose number is a multiple of it are kept
        self.passes = 0  # begun, under each order
        self._next = 1
        self._overwritten = 0
        geo = machine.geo
        self._block_pages = 1 << (LAST_LEVEL - geo.block_level) * geo.index_bits

    @property
    def rebuilds(self) -> int:
        """Rebuilds completed so far."""
        return int(self._machine.totals[:, accounts.T_REBUILDS].sum())

    @property
    def _closed(self) -> int:
        """Records complete so far, void ones among them."""
        return int(self._machine.tally[accounts.CLOSED])

    @property
    def _origin_ns(self) -> int:
        """Clock at the first access that all vCPUs have in common, 0 before it."""
        first = self._machine.states[: self._machine.geo.hypervisor, accounts.FIRST_ACCESS_NS]
        return int(first.max()) if first.all() else 0

    def shortfall(self) -> str:
        """How many rows and stalls the kept ones are a sample of, in words; empty if every one was kept."""
        parts = []
        if self._overwritten:
            parts.append(f"{self._overwritten} rebuild rows were overwritten before they were read")
        if self._cycles_overwritten:
            parts.append(f"{self._cycles_overwritten} cycles were overwritten before they were read")
        for what, kept in (("rebuilds", self._rows), ("cycles", self._cycles), ("stalls", self._stalls)):
            if any(reservoir.sampled for reservoir in kept):
                rows, seen = sum(len(r.rows) for r in kept), sum(r.seen for r in kept)
                parts.append(f"{rows} of {seen} {what} kept")
        return ", ".join(parts)

    def recent_window_p50_ns(self) -> dict[str, float | None]:
        """The median of every order's last invalid windows, at most `_RECENT`; None before the first."""
        return {
            order.name: float(np.median(recent)) if recent else None
            for order, recent in zip(self._orders, self._recent, strict=True)
        }

    def poll(self, final: bool = False) -> float:
        """Drain all rings, ``final`` once no worker runs any more; returns how full the fullest was, 0 to 1."""
        if not final:
            self._read_totals()
        now = time.monotonic()
        self._settling.append((now, self._closed))
        settled = self._next - 1
        while self._settling and (final or self._settling[0][0] <= now - _SETTLE_S):
            settled = self._settling.popleft()[1]
        # A row that lacks a window fault is better than one that was overwritten before it was read.
        self._take_records(max(settled, self._closed - self._machine.geo.record_rows // 2))
        cycles_waiting = self._take_cycles()
        self._take_stages()
        fullest = 0
        for vcpu in range(self._machine.geo.hypervisor):
            before = self._drained[vcpu]
            while count := drain_events(self._machine, vcpu, self._events):
                self._drained[vcpu] += count
                self._take_events(self._events[:count])
                if self._traces:
                    self._traces.take_faults(vcpu, self._events[:count])
            fullest = max(fullest, int(self._drained[vcpu] - before))
        waiting = self._closed - self._next
        geo = self._machine.geo
        return max(fullest / geo.event_rows, waiting / geo.record_rows, cycles_waiting / geo.cycle_rows)

    def _read_totals(self) -> None:
        machine = self._machine
        if not self._origin_ns:
            return
        charged = machine.counters[:, :-1]  # the last slot is charged to no order
        accesses = charged[:, :, accounts.C_ACCESSES].sum()
        faults = charged[:, :, accounts.C_FAULTS : accounts.C_FAULTS + accounts.FAULT_KINDS].sum()
        self.throughput.read(time.monotonic_ns() - self._origin_ns, int(accesses), int(faults))

    def _take_records(self, last: int) -> None:
        while self._next <= last:
            numbers = np.arange(self._next, min(last + 1, self._next + _BATCH))
            records, whole = copy_records(self._machine, numbers)
            self._next += len(numbers)
            self._overwritten += int((~whole).sum())
            rebuilt = records[whole & (records[:, accounts.R_VOID] == 0)]
            self._keep_rows(rebuilt)
            if self._traces:
                self._traces.take_rebuilds(rebuilt)

    def _take_cycles(self) -> int:
        """Take every cycle that is over; returns how many there were."""
        first, last = self._next_cycle, int(self._machine.control[words.CYCLE])
        while self._next_cycle <= last:
            numbers = np.arange(self._next_cycle, min(last + 1, self._next_cycle + _BATCH))
            cycles, whole = copy_cycles(self._machine, numbers)
            self._keep_cycles(numbers[whole], cycles[whole])
            under_way = numbers[-1] == last and not whole[-1]
            self._next_cycle += len(numbers) - under_way
            self._cycles_overwritten += int((~whole).sum()) - under_way
            if under_way:
                break
        return self._next_cycle - first

    def _keep_cycles(self, numbers: npt.NDArray[np.int64], cycles: npt.NDArray[np.int64]) -> None:
        rows = np.zeros(len(numbers), CYCLE_ROW)
        rows["number"] = numbers
        rows["time_ns"] = cycles[:, accounts.K_TIME_NS]
        rows["accesses"] = cycles[:, accounts.K_ACCESSES]
        rows["recovery_ns"] = cycles[:, accounts.K_RECOVERY_NS]
        rows["recovery_faults"] = cycles[:, accounts.K_RECOVERY_FAULTS]
        for order, kept in enumerate(self._cycles):
            kept.extend(rows[cycles[:, accounts.K_ORDER] == order])

    def _take_stages(self) -> None:
        """Take every stage that is over; of very many passes keep every 2nd, 4th, ... one."""
        machine = self._machine
        for number in range(int(machine.tally[accounts.STAGES_TAIL]), int(machine.tally[accounts.STAGES_HEAD])):
            row = machine.stages[number % machine.geo.stage_rows].copy()
            publish(machine.tally, accounts.STAGES_TAIL, number + 1)
            self.passes = max(self.passes, int(row[accounts.G_REPEAT]) + 1)
            if row[accounts.G_REPEAT] % self._stride == 0:
                self._stages.append(row)
            if len(self._stages) > self._stages_kept:
                self._stride *= 2
                self._stages = [each for each in self._stages if each[accounts.G_REPEAT] % self._stride == 0]
                if len(self._stages) >= self._stages_kept:  # a single pass may have that many
                    self._stages_kept *= 2

    def _keep_rows(self, records: npt.NDArray[np.int64]) -> None:
        rows = np.zeros(len(records), REBUILD_ROW)
        invalid, valid = records[:, accounts.R_INVALID_NS], records[:, accounts.R_VALID_NS]
        rows["number"] = records[:, accounts.R_NUMBER]
        rows["cycle"] = records[:, accounts.R_CYCLE]
        rows["block"] = records[:, accounts.R_BLOCK] // self._block_pages
        rows["start_ns"] = records[:, accounts.R_START_NS] - self._origin_ns
        # An order that never breaks the entry has no window; one that installs first and breaks later no measured one.
        rows["window_ns"] = np.where(invalid == 0, 0, np.where(valid > invalid, valid - invalid, NOT_MEASURED))
        rows["rebuild_ns"] = records[:, accounts.R_END_NS] - records[:, accounts.R_START_NS]
        # Who kept mmu_lock from the rebuild before had it when it asked.
        waits = records[:, accounts.R_LOCKED_NS] - records[:, accounts.R_REQUESTED_NS]
        rows["lock_wait_ns"] = np.maximum(waits, 0)
        rows["lock_hold_ns"] = records[:, accounts.R_UNLOCKED_NS] - records[:, accounts.R_LOCKED_NS]
        rows["lock_hold_ns"] -= records[:, accounts.R_YIELDED_NS]
        rows["step_ns"] = step_times(records, self._orders)
        rows["mapped_share"] = records[:, accounts.R_MAPPED] / self._block_pages
        rows["window_faults"] = records[:, accounts.R_FAULTS]
        for order, kept in enumerate(self._rows):
            its = rows[records[:, accounts.R_ORDER] == order]
            kept.extend(its)
            windows = its["window_ns"][its["window_ns"] != NOT_MEASURED]
            self._recent[order].extend(windows[-_RECENT:].tolist())

    def _take_events(self, events: npt.NDArray[np.int64]) -> None:
        rows = np.zeros(len(events), STALL_ROW)
        what = events[:, accounts.E_WHAT]
        rows["cycle"] = events[:, accounts.E_CYCLE]
        rows["fault_class"] = what & 0xF
        rows["stall_ns"] = events[:, accounts.E_STALL_NS]
        rows["lock_wait_ns"] = events[:, accounts.E_LOCK_WAIT_NS]
        orders = what >> accounts.WHAT_SLOT_SHIFT + 1  # two slots each
        for order, kept in enumerate(self._stalls):
            chosen = rows[orders == order]
            self._drained_of[order] += len(chosen)
            kept.extend(chosen)

    def lost_events(self) -> list[tuple[int, int, int]]:
        """(vCPU, logged, drained + dropped) wherever the two differ; only after a final poll."""
        lost = []
        for vcpu, drained in enumerate(self._drained):
            index = self._machine.event_index[vcpu]
            logged = int(index[accounts.EVENT_LOGGED])
            found = int(drained + index[accounts.EVENT_DROPPED])
            if logged != found:
                lost.append((vcpu, logged, found))
        return lost

    def results(self) -> list[OrderData]:
        """The data of every order, after a final poll."""
        return [self._result(i, order) for i, order in enumerate(self._orders)]

    def _result(self, i: int, order: Order) -> OrderData:
        machine = self._machine
        totals = machine.totals[i]
        slots = machine.counters[:, 2 * i : 2 * i + 2]
        stalls = self._stalls[i].rows
        edges = lower_edges()
        counts = machine.stalls[:, i].sum(axis=0)
        reached = np.flatnonzero(counts.sum(axis=0))
        coarse_max = int(edges[reached[-1]]) if len(reached) else 0
        return OrderData(
            order=order,
            cycle_count=int(totals[accounts.T_CYCLES]),
            rebuilds=int(totals[accounts.T_REBUILDS]),
            restarts=int(totals[accounts.T_RESTARTS]),
            yields=int(totals[accounts.T_YIELDS]),
            lost_races=int(totals[accounts.T_LOST]),
            # A rebuild that was cut short may have been hit already.
            rebuilds_hit=min(int(machine.hits[i]), int(totals[accounts.T_REBUILDS])),
            rows=self._rows[i].rows.copy(),
            cycles=self._cycles[i].rows.copy(),
            stalls=stalls.copy(),
            stall_buckets_ns=edges,
            stall_counts=counts,
            stall_max_ns=max(coarse_max, int(stalls["stall_ns"].max(initial=0))),
            counters=slots[:, :, : len(COUNTERS)].copy(),
            outside_ns=int(totals[accounts.T_CYCLE_NS] - totals[accounts.T_INSIDE_NS]),
            inside_ns=int(totals[accounts.T_INSIDE_NS]),
            tlbis=int(totals[accounts.T_TLBIS]),
            cleaned_bytes=int(totals[accounts.T_CLEANED]),
            tables=Tables(
                allocated=int(totals[accounts.T_ALLOCATED]),
                freed=int(totals[accounts.T_FREED]),
                peak=int(machine.tally[accounts.POOL_PEAK]),
            ),
            events_drained=int(self._drained_of[i]),
            events_dropped=int(slots[:, :, accounts.C_DROPPED].sum()),
        )

    def stages(self) -> list[StageData]:
        """The data of every stage that was kept, after a final poll."""
        return [
            StageData(
                name=accounts.STAGE_NAMES[row[accounts.G_WHAT]],
                iteration=int(row[accounts.G_ITERATION]),
                repeat=int(row[accounts.G_REPEAT]),
                duration_ns=int(row[accounts.G_DURATION_NS]),
                counters=row[accounts.G_COUNTERS : accounts.G_COUNTERS + len(COUNTERS)].copy(),
                rebuilds=int(row[accounts.G_REBUILDS]),
                order=self._orders[row[accounts.G_ORDER]].name if len(self._orders) > 1 else "",
            )
            for row in self._stages
        ]

    def life_cycle(self) -> dict[str, int]:
        """The counts of the scenario that are not 0."""
        return {name: int(count) for name, count in zip(accounts.LIFE_CYCLE, self._machine.life, strict=True) if count}
