"""Scenarios with stages, played in virtual time: one pass under one order, for the next would be the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from stress.config import Backing, Cmo, Locking, Rebuilder, Recover, RunConfig, Scenario
from stress.errors import UsageError
from stress.orders import Order, Step
from stress.platforms import Shape, Work
from stress.predict import virtual as v
from stress.predict.native import play
from stress.predict.prices import access_prices, prices
from stress.predict.virtual import World, empty_world
from stress.programs import ALWAYS, NEVER, NO_HEAD, WRITE_HEAD, Program, own_part, page_table_test
from stress.results.data import COUNTERS, FAULT_CLASSES, StageData

PS_PER_NS: Final = 1000

#: Counters that are times: the event loop's are in ps.
TIMES: Final = [COUNTERS.index("lock_wait_ns"), COUNTERS.index("lock_hold_ns")]

#: Counters of faults.
FAULTS: Final = [COUNTERS.index(name) for name in FAULT_CLASSES]

#: After so many events the caller is told how far a prediction is, and asked whether to go on.
_AT_ONCE: Final = 200_000


@dataclass(slots=True)
class Played:
    """What was played under an order, complete unless ``interrupted``."""

    world: World
    order: Order
    stages: list[StageData] = field(default_factory=list)
    #: Of each cycle its time in ps and all vCPUs' accesses, and see `Recovery.ended`; a pass is one.
    cycles: list[tuple[int, int, int, int]] = field(default_factory=list)
    interrupted: bool = False


@dataclass(frozen=True, slots=True)
class Recovery:
    """What happens between the end of dirty logging and the end of a cycle."""

    world: World
    began_ps: int
    faults: int

    @classmethod
    def begins(cls, world: World) -> Recovery:
        """The state of the machine at the end of dirty logging, from which on faults may map blocks again."""
        world.s.control[v.LOGGING] = 0
        return cls(world, int(world.s.control[v.NOW]), _faults(world))

    def ended(self) -> tuple[int, int]:
        """(ps from the end of logging to the last block rebuilt in the cycle, faults meanwhile); 0 if none was."""
        s = self.world.s
        rows = self.world.record[: int(s.control[v.REBUILT])]
        ends = rows[rows[:, v.R_CYCLE] == s.control[v.CYCLE], v.R_END]
        took = int(ends.max(initial=self.began_ps)) - self.began_ps
        return (took, _faults(self.world) - self.faults) if took else (0, 0)


def _faults(world: World) -> int:
    """Faults of all vCPUs so far."""
    return int(world.s.counters[:, :, FAULTS].sum())


def large_pages(config: RunConfig) -> int:
    """Pages of what the selftest calls a large page: of the backing, not of what stage 2 may map."""
    return 1 if config.backing is Backing.ANONYMOUS else config.block_size // config.granule


def new_world(config: RunConfig, order: Order, rebuilds: int | None = None) -> World:
    """The machine of a configuration, nothing mapped or touched; room for ``rebuilds`` records, or one per block."""
    size = config.block_size // config.granule
    blocks = -(-config.pages // size)
    # The last block may be cut off by memory's end: its pages are there, but never touched.
    world = empty_world(blocks, blocks * size, rebuilds or blocks, (config.vcpus + 1) * config.batch)
    world.s.cost[:] = prices(config)
    world.s.access[:] = access_prices(config)
    control = world.s.control
    control[v.VCPUS] = config.vcpus
    cores = config.cores or config.platform_profile.cores or config.vcpus + 1
    # All vCPUs and the hypervisor may run at the same time.
    control[v.CORES] = control[v.CORES_FREE] = cores if cores <= config.vcpus else 0
    control[v.BLOCK_PAGES] = size
    control[v.TABLE_PAGES] = config.geometry.entries
    control[v.BLOCK_LEVEL] = config.block_level
    control[v.GRANULE] = config.granule
    control[v.SHARED] = int(config.locking is Locking.SHARED)
    control[v.FWB] = int(config.fwb)
    control[v.BBM_LEVEL] = config.bbm_level
    control[v.CMO_PER_FAULT] = int(config.cmo is Cmo.PER_FAULT)
    control[v.VCPU_REBUILDS] = int(config.rebuilder is Rebuilder.VCPU)
    control[v.YIELD_EVERY] = config.yield_every
    control[v.BATCH] = config.batch
    control[v.PAGE_BACKED] = int(config.backing is Backing.ANONYMOUS)
    control[v.CYCLE] = 1
    control[v.PAGES] = config.pages
    control[v.REPEATABLE] = int(cores >= config.vcpus)
    world.block[: config.blocks, v.B_ALLOWED] = int(config.has_blocks)
    world.s.order[: len(order.codes)] = order.codes
    split = config.parsed_split_order.steps
    if Step.INVALIDATE in split[split.index(Step.LINK) :]:
        raise left_invalid()
    world.s.split[: len(split)] = [step.code for step in split]
    return world


def _give(world: World, vcpu: int, program: Program) -> None:
    """Let a vCPU have a program."""
    row = world.s.actor[vcpu]
    # Groups that are all accessed make one row, not one each.
    if program.head == NO_HEAD and program.run == program.group:
        program = Program(1, first=program.first, run=program.groups * program.run, write_below=program.write_below)
    elif program.head != NO_HEAD and program.group == 1 and program.run == 0:
        write_below = ALWAYS if program.head == WRITE_HEAD else NEVER
        program = Program(1, first=program.first, run=program.groups, write_below=write_below)
    row[v.P_GROUPS], row[v.P_GROUP], row[v.P_FIRST] = program.groups, program.group, program.first
    row[v.P_HEAD], row[v.P_HEAD_WRITES] = int(program.head != NO_HEAD), int(program.head == WRITE_HEAD)
    row[v.P_SKIP], row[v.P_RUN], row[v.P_RUN_WRITES] = program.skip, program.run, int(program.write_below == ALWAYS)


class EndAskedError(Exception):
    """The caller wants the prediction to end."""


def left_invalid() -> UsageError:
    """The error of a prediction that would never end: an order leaves an entry invalid."""
    return UsageError(
        "the order leaves an entry invalid, and vCPUs would wait for ever",
        "predict orders that stress run finds correct",
    )


def play_out(world: World, begins: int, going_on: Callable[[World], bool]) -> None:
    """Play what begins to its end. `EndAskedError` if ``going_on`` says no meanwhile."""
    state = play(world, _AT_ONCE, begins)
    while state == v.MORE:
        if not going_on(world):
            raise EndAskedError
        state = play(world, _AT_ONCE, v.NOBODY)
    if state == v.STUCK:
        raise left_invalid()
    if state != v.DONE:
        raise UsageError("the guest would run for more than 30 days", "predict less memory, or a faster platform")


def play_stage(world: World, program: Callable[[int], Program], going_on: Callable[[World], bool]) -> int:
    """Let all vCPUs play their programs; returns the ps it took. `EndAskedError` if ``going_on`` says no meanwhile."""
    vcpus = int(world.s.control[v.VCPUS])
    for vcpu in range(vcpus):
        _give(world, vcpu, program(vcpu))
    start = int(world.s.control[v.NOW])
    world.s.control[v.NOW] = start + world.s.cost[v.K_START]
    play_out(world, v.PROGRAMS, going_on)
    end = int(world.s.actor[:vcpus, v.A_ENDED].max())
    world.s.control[v.NOW] = end
    return end - start


def recover(world: World, config: RunConfig, going_on: Callable[[World], bool]) -> None:
    """Let the thread that stopped dirty logging make a block of each table, chunk by chunk."""
    control = world.s.control
    for first in range(0, config.blocks, config.chunk_blocks):
        control[v.TASK_BLOCK], control[v.TASK_END] = first, min(first + config.chunk_blocks, config.blocks)
        play_out(world, v.TASKS + v.TO_REBUILD, going_on)


class _Pass:
    """A pass over stages under one order."""

    def __init__(self, config: RunConfig, order: Order, going_on: Callable[[World], bool]) -> None:
        self._config = config
        self._going_on = going_on
        self.played = Played(new_world(config, order), order)
        self._world = self.played.world
        self._recovery: Recovery | None = None

    def stage(self, name: str, program: Callable[[int], Program], iteration: int = 0) -> None:
        """The vCPUs play their programs."""
        s = self._world.s
        counters, rebuilds = s.counters.sum(axis=(0, 1)), int(s.sums[v.S_REBUILDS])
        took = play_stage(self._world, program, self._going_on)
        found = StageData(
            name=name,
            iteration=iteration,
            repeat=0,
            duration_ns=took // PS_PER_NS,
            counters=s.counters.sum(axis=(0, 1)) - counters,
            rebuilds=int(s.sums[v.S_REBUILDS]) - rebuilds,
        )
        found.counters[TIMES] //= PS_PER_NS
        self.played.stages.append(found)

    def timed(self, name: str, took_ns: float, iteration: int = 0) -> None:
        """Note a stage in which the VMM does something that takes so long, while the vCPUs wait."""
        self._world.s.control[v.NOW] += round(took_ns * PS_PER_NS)
        self._stage_of_the_vmm(name, took_ns, iteration)

    def disable(self) -> None:
        """Logging is switched off, in a stage of its own."""
        before = int(self._world.s.sums[v.S_REBUILDS])
        took_ns = self.disable_logging()
        self._stage_of_the_vmm("disable", took_ns, rebuilds=int(self._world.s.sums[v.S_REBUILDS]) - before)

    def _stage_of_the_vmm(self, name: str, took_ns: float, iteration: int = 0, rebuilds: int = 0) -> None:
        nothing = np.zeros(len(COUNTERS), np.int64)
        self.played.stages.append(StageData(name, iteration, 0, round(took_ns), nothing, rebuilds))

    def ended(self) -> Played:
        """What was played."""
        if not self.played.interrupted:
            s = self._world.s
            accesses = s.counters[:, :, COUNTERS.index("accesses")].sum()
            recovered = self._recovery.ended() if self._recovery else (0, 0)
            self.played.cycles.append((int(s.control[v.NOW]), int(accesses), *recovered))
        return self.played

    def enable_logging(self) -> float:
        """Write-protect all that is mapped, and with eager splitting split it; returns the ns that this takes."""
        world, cost = self._world, self._config.platform_profile.cost
        world.s.control[v.LOGGING] = 1
        blocks = world.block[:, v.B_KIND] == v.LEAF
        world.block[:, v.B_WRITABLE] = 0
        took = self._write_protect(int(blocks.sum()))
        if self._config.eager_split and blocks.any():
            size, tables = (
                int(world.s.control[v.BLOCK_PAGES]),
                self._config.geometry.tables_below(self._config.block_level),
            )
            world.block[blocks, v.B_KIND] = v.TABLE
            world.page.reshape(-1, size)[blocks] = v.READ_ONLY | v.HAS_HOST
            world.s.sums[v.S_ALLOCATED] += tables * blocks.sum()
            written = Shape(entries=size + tables - 1)
            each = sum(cost(step, written) for step in self._config.parsed_split_order.steps)
            took += float(blocks.sum()) * each
        return took

    def clear_log(self) -> float:
        """Write-protect what was written since; returns the ns that this takes, with a TLBI for each chunk cleared."""
        chunk = (self._config.clear_chunk or self._config.memory) // self._config.granule
        written = self._world.page & v.STATE == v.WRITABLE
        chunks = np.logical_or.reduceat(written, np.arange(0, written.size, chunk))
        return self._write_protect(0, chunks=int(chunks.sum()))

    def disable_logging(self) -> float:
        """Let faults map blocks again; with ``--recover ioctl`` make blocks of all tables. Returns the ns it takes."""
        control = self._world.s.control
        self._recovery = Recovery.begins(self._world)
        if self._config.recover is Recover.IOCTL:
            recover(self._world, self._config, self._going_on)
        return (int(control[v.NOW]) - self._recovery.began_ps) / PS_PER_NS

    def _write_protect(self, blocks: int, chunks: int = 1) -> float:
        """Take write permission from every page; returns the ns that this takes, with so many blocks besides."""
        cost, page = self._config.platform_profile.cost, self._world.page
        writable = page & v.STATE == v.WRITABLE
        page[writable] ^= v.WRITABLE ^ v.READ_ONLY
        entries = blocks + int(writable.sum())
        return cost(Work.MAP, Shape(entries=entries)) + (chunks * cost(Work.TLBI_RANGE) if entries else 0)


def play_page_table_test(config: RunConfig, order: Order, going_on: Callable[[World], bool]) -> Played:
    """One pass of ``kvm-page-table-test`` under an order."""
    this, logged = _Pass(config, order, going_on), False
    try:
        for stage in page_table_test(config.pages, large_pages(config)):
            if stage.logged and not logged:
                this.enable_logging()  # between two stages, whose times the selftest does not print
            elif logged:
                this.disable_logging()
            logged = stage.logged
            this.stage(stage.name, stage.program)
    except EndAskedError:
        this.played.interrupted = True
    return this.ended()


def play_dirty_log_perf(config: RunConfig, order: Order, going_on: Callable[[World], bool]) -> Played:
    """One pass of ``dirty-log-perf`` under an order. To copy the log is not modelled, and takes no time."""
    this = _Pass(config, order, going_on)
    some = ALWAYS if config.write_fraction == 1 else NEVER

    def own(write_below: int) -> Callable[[int], Program]:
        return lambda vcpu: own_part(config.pages, config.vcpus, vcpu, config.overlap, write_below)

    try:
        this.stage("populate", own(ALWAYS))
        this.timed("enable", this.enable_logging())
        for iteration in range(1, config.iterations + 1):
            this.stage("dirty", own(some), iteration)
            if config.get_clears:
                this.timed("get-dirty-log", this.clear_log(), iteration)
            else:
                this.timed("get-dirty-log", 0, iteration)
                this.timed("clear-dirty-log", this.clear_log(), iteration)
        this.disable()
        this.stage("recover", own(some))
    except EndAskedError:
        this.played.interrupted = True
    return this.ended()


#: What plays a pass of each scenario that there is.
PASSES: Final = {Scenario.PAGE_TABLE_TEST: play_page_table_test, Scenario.DIRTY_LOG_PERF: play_dirty_log_perf}
