"""The supervisor: sets a run up, watches it, tears it down whatever happens, and hands over what was measured."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from stress import host, interrupt
from stress.config import RunConfig
from stress.errors import ExitCode, MachineError, UsageError
from stress.live import evidence, stakes
from stress.live.collector import Collector
from stress.live.first_compilation import compile_in_background
from stress.live.plan import Plan
from stress.live.planning import plan_for
from stress.live.trace_collector import TraceCollector
from stress.live.workers import GRACE_S, SHORT_GRACE_S, StartFailed, Workers
from stress.results.data import FAULT_CLASSES, RunData, TraceRequest
from stress.results.warnings import RunWarning
from stress.shm import accounts, cache, words
from stress.shm.membarrier import membarrier_available
from stress.shm.mode import JIT_DISABLED
from stress.shm.publish import publish
from stress.shm.segment import Segment

# How long the supervisor sleeps between looks; less while the event rings fill up quickly, and until the guest runs.
_TICK_S = 0.1
_BUSY_TICK_S = 0.02
# Without a live display, a line says this often how far a slow start is.
_SLOW_START_S = 2.0
# After Ctrl-C: time for the hypervisor to end its cycle and audit, before all workers are told to leave at once.
_WIND_UP_S = 1.0
_COMPILE_S = 60


@dataclass(frozen=True, slots=True)
class Progress:
    """The state of a run right now."""

    elapsed_ns: int
    duration_ns: int | None
    rebuilds: int
    rebuilds_target: int | None
    accesses_per_s: float  # since the last report
    window_p50_ns: dict[str, float | None]  # by order, of its recent rebuilds; None before the first
    faults: dict[str, int]  # by class, so far
    violations: int
    phase: str


def execute(
    config: RunConfig,
    progress: Callable[[Progress], None] | None = None,
    note: Callable[[str], None] | None = None,
    trace: TraceRequest | None = None,
) -> RunData:
    """Run ``config`` and return what was measured, complete or not; with a trace of its beginning if asked for.

    Raises UsageError for what can only be predicted, MachineError if the machine cannot run it, Interrupted if the user
    interrupts before everything is set up. A dead or hung process, or Ctrl-C, ends the run early: ``complete``,
    ``exit_code`` and ``failure`` of the data say so.
    """
    if config.only_predicted:
        raise UsageError(f"cores: {config.only_predicted}")
    if os.uname().sysname != "Linux":
        raise MachineError("stress needs Linux: /dev/shm, forkserver, membarrier", "run it on Linux")
    plan = plan_for(config, trace)
    with interrupt.caught() as interrupted:
        segment = Segment.create(plan.geo, len(plan.orders), interrupted.is_set)
        try:
            return _Run(config, plan, segment, progress, note, trace).play(interrupted)
        finally:
            if not segment.remove() and note is not None:
                note("the process that removes shared memory after a crash was killed; the run's own was removed")


class _Run:
    """One run from start to teardown."""

    def __init__(
        self,
        config: RunConfig,
        plan: Plan,
        segment: Segment,
        progress: Callable[[Progress], None] | None,
        note: Callable[[str], None] | None,
        trace: TraceRequest | None,
    ) -> None:
        self._config = config
        self._plan = plan
        self._segment = segment
        self._machine = segment.machine
        self._report = progress
        self._note = note or (lambda line: None)
        self._workers = Workers(plan, segment.machine, config.watchdog_ns / 1e9)
        self._traces = TraceCollector(segment.machine, trace) if trace else None
        self._collector = Collector(segment.machine, config.parsed_orders, config.seed, self._traces)
        self._host = host.describe()
        self._memory: dict[str, int] = {}
        self._failure: dict[str, Any] | None = None
        self._started_ns = 0
        self._last = (0, 0)  # (clock in ns, accesses) at the last progress report
        self._show_at = 0.0

    def play(self, interrupted: threading.Event) -> RunData:
        machine = self._machine
        started_at = datetime.now(UTC).isoformat(timespec="seconds")
        for row, codes in zip(machine.orders, self._plan.orders, strict=True):
            row[: len(codes)] = codes
        if not membarrier_available():
            publish(machine.control, words.FENCED, 1)
        self._started_ns = time.monotonic_ns()
        try:
            if not JIT_DISABLED and not cache.is_complete():
                self._note(f"compiling kernels for this version, once (up to {_COMPILE_S} s)")
                if not compile_in_background(interrupted):
                    return self._result(started_at, time.monotonic_ns() - self._started_ns, True, [])
            self._started_ns = time.monotonic_ns()
            if self._report is None:
                self._show_at = time.monotonic() + _SLOW_START_S
            if self._workers.start(self._segment.name, interrupted, self._show):
                self._watch(interrupted)
        except StartFailed as error:
            self._failure = error.failure
        finally:
            if machine.control[words.STOP] == 0:
                publish(machine.control, words.STOP, words.STOP_ABORT)
            left = self._workers.stop(self._grace_s())
        # A worker that was ended because the run was cut short is not to blame.
        if left and (left["what"] == "died" or machine.control[words.STOP] == words.STOP_DONE):
            self._failure = self._failure or left
        elapsed_ns = time.monotonic_ns() - self._started_ns
        self._collector.poll(final=True)
        lost = [] if left else self._collector.lost_events()
        return self._result(started_at, elapsed_ns, interrupted.is_set(), lost)

    def _watch(self, interrupted: threading.Event) -> None:
        """Collect results until the run ends, by itself or because something is wrong."""
        control = self._machine.control
        give_up_at: float | None = None
        measure_at = 0.0
        tick = _TICK_S
        while self._workers.wait(tick) or not self._workers.all_gone():
            hurry = self._collector.poll() > 0.1 or not self._running()
            tick = _BUSY_TICK_S if hurry else _TICK_S
            if control[words.STOP]:
                return
            self._failure = self._workers.casualty() or self._workers.hung()
            if self._failure is not None:
                return
            now = time.monotonic()
            if interrupted.is_set():
                publish(control, words.FINISH, words.FINISH_ASKED)
                give_up_at = give_up_at or now + (_WIND_UP_S if self._running() else 0)
                if now >= give_up_at:
                    return
            if now >= measure_at and self._running():
                self._memory = self._workers.unique_bytes()
                measure_at = now + 5.0
            self._show()

    def _show(self) -> None:
        """Report progress to the live display if it is due; without a display, say how far a slow start is."""
        now = time.monotonic()
        if now < self._show_at:
            return
        if self._report is not None:
            self._report(self._progress())
            self._show_at = now + _TICK_S / 2
        elif not self._running():
            self._note(self._phase())
            self._show_at = now + _SLOW_START_S

    def _phase(self) -> str:
        if self._running():
            return "running"
        states = self._machine.states[: self._plan.geo.hypervisor, accounts.STATE]
        return f"starting vCPUs: {int((states != accounts.State.STARTING).sum())} of {len(states)}"

    def _grace_s(self) -> float:
        """Seconds that workers have to leave by themselves; none as long as they load their kernels."""
        if self._machine.control[words.STOP] == words.STOP_DONE:
            return GRACE_S
        return SHORT_GRACE_S if self._running() else 0.0

    def _running(self) -> bool:
        """Whether every vCPU has reached the guest: kernels are compiled, processes started."""
        return bool(self._machine.states[: self._plan.geo.hypervisor, accounts.FIRST_ACCESS_NS].all())

    def _progress(self) -> Progress:
        machine = self._machine
        now = time.monotonic_ns()
        accesses = int(machine.counters[:, :, accounts.C_ACCESSES].sum())
        then, before = self._last if self._last[0] else (self._started_ns, 0)
        self._last = (now, accesses)
        faults = machine.counters[:, :, accounts.C_FAULTS : accounts.C_FAULTS + accounts.FAULT_KINDS].sum(axis=(0, 1))
        config = self._config
        return Progress(
            elapsed_ns=now - self._started_ns,
            duration_ns=config.duration_ns,
            rebuilds=self._collector.rebuilds,
            rebuilds_target=config.rebuilds * len(config.orders) if config.rebuilds else None,
            accesses_per_s=(accesses - before) / max(1, now - then) * 1e9,
            window_p50_ns=self._collector.recent_window_p50_ns(),
            faults=dict(zip(FAULT_CLASSES, map(int, faults), strict=True)),
            violations=self._violation_count(),
            phase=self._phase(),
        )

    def _violation_count(self) -> int:
        return int(self._machine.tally[accounts.VIOLATIONS : accounts.VIOLATIONS + len(accounts.Kind)].sum())

    def _result(self, started_at: str, elapsed_ns: int, interrupted: bool, lost: list[tuple[int, int, int]]) -> RunData:
        machine = self._machine
        violations = evidence.violations(machine, self._started_ns) + evidence.lost_events(lost)
        done = machine.control[words.STOP] == words.STOP_DONE
        if machine.control[words.BARRIER_REFUSED]:
            # Stale translations were used because of this program then: what looks like a violation is none.
            self._failure = {"what": "ended early", "how": "membarrier(2) failed, so no TLBI was sure to be complete"}
            violations = []
        if self._failure is None and machine.control[words.FINISH] == words.FINISH_EXHAUSTED:
            how = "the table pool is exhausted, because something leaks table pages"
            self._failure = {"what": "ended early", "how": how}
        if self._failure is None and not done and not interrupted:
            self._failure = {"what": "ended early", "how": "the workers left before the scenario was done"}
        complete = self._failure is None and not interrupted
        untested = stakes.missing(machine, self._config) if complete and not violations else []
        if violations:
            code = ExitCode.CHECK_FAILED
        elif self._failure is not None or untested:
            code = ExitCode.BROKEN
        else:
            code = ExitCode.INTERRUPTED if interrupted else ExitCode.OK
        first = machine.states[: self._plan.geo.hypervisor, accounts.FIRST_ACCESS_NS]
        shortfall = self._collector.shortfall()
        trace = None
        if self._traces:
            trace = self._traces.result(self._config.parsed_orders, self._started_ns + elapsed_ns)
        return RunData(
            complete=complete,
            exit_code=int(code),
            seed=self._config.seed,
            config=self._config.to_json(),
            host=self._host,
            warnings=[(RunWarning.SAMPLED, shortfall)] if shortfall else [],
            scenario=str(self._config.scenario),
            orders=self._collector.results(),
            stages=self._collector.stages(),
            passes=self._collector.passes,
            life_cycle=self._collector.life_cycle(),
            intervals=self._collector.throughput.intervals(),
            violations=violations,
            started_at=started_at,
            elapsed_ns=elapsed_ns,
            start_up_ns=int(first.max()) - self._started_ns if first.all() else 0,
            memory={"segment_bytes": self._segment.size, "unique_bytes": self._memory},
            failure=self._failure,
            trace=trace,
            acted=stakes.acted(machine, self._config) if self._config.bug else None,
            untested=tuple(untested),
        )
