"""Scenarios ``rebuild``, ``migration`` and ``thp`` in virtual time: the hypervisor's cycles while vCPUs roam."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

from stress.config import Pattern, Rebuilder, Recover, RunConfig, Scenario
from stress.config.blocks import cycles_for
from stress.kernels.workload import scatter_for
from stress.orders import Order, Step
from stress.predict import virtual as v
from stress.predict.passes import (
    PS_PER_NS,
    EndAskedError,
    Played,
    Recovery,
    left_invalid,
    new_world,
    play_out,
    recover,
)
from stress.predict.virtual import Words, World
from stress.programs import ALWAYS, MOVE_EVERY
from stress.results.data import COUNTERS

#: Rebuilds of each order if the configuration does not say how many.
DEFAULT_REBUILDS: Final = 200

#: Migrations of each order likewise; each rebuilds all that it split.
DEFAULT_MIGRATIONS: Final = 20

#: So many dwells after logging, vCPUs have met, and so rebuilt, every block.
_PATIENCE: Final = 20

#: How often the hypervisor looks whether vCPUs have ended the rebuilds of a cycle.
_POLL_PS: Final = 50 * 10**6

_PATTERNS: Final = {
    Pattern.SEQUENTIAL: v.LAPS,
    Pattern.STRIDED: v.LAPS,
    Pattern.UNIFORM: v.UNIFORM,
    Pattern.ZIPF: v.ZIPF,
}
_ACCESSES: Final = COUNTERS.index("accesses")


def _weights(config: RunConfig, blocks: int) -> Words:
    """How many of 2**WEIGHT_BITS accesses drawn go to each block, (blocks,)."""
    size, pages = config.block_size // config.granule, config.pages
    first = np.arange(blocks) * size
    shares: npt.NDArray[np.float64] = np.minimum(size, pages - first) / pages
    if config.pattern is Pattern.ZIPF:
        x = np.arange(1.0, pages + 2)
        power = 1 - config.zipf_exponent
        below = np.log(x) if abs(power) < 1e-9 else (x**power - 1) / power
        page = np.arange(pages) * scatter_for(pages) % pages
        shares = np.bincount(page // size, np.diff(below) / below[-1], blocks).astype(np.float64)
    return (shares * (1 << v.WEIGHT_BITS)).round().astype(np.int64)


def _roaming_world(config: RunConfig, order: Order, rebuilds: int) -> World:
    """The machine of a configuration when the first cycle begins: all is mapped, and vCPUs are anywhere."""
    world = new_world(config, order, rebuilds)
    draw, control, pages = random.Random(config.seed), world.s.control, config.pages
    control[v.REPEATABLE] = 0
    control[v.STRIDE] = min(config.stride, pages) if config.pattern is Pattern.STRIDED else 1
    control[v.SCATTER] = scatter_for(pages) if config.pattern is Pattern.ZIPF else 1
    control[v.WRITE_BELOW] = round(config.write_fraction * ALWAYS)
    control[v.SHARE] = round(config.populated * (1 << 20))
    world.s.zipf[0] = config.zipf_exponent
    world.block[:, v.B_WEIGHT] = _weights(config, len(world.block))
    world.block[:, v.B_HOST], world.block[:, v.B_WRITABLE] = 0, 1
    world.block[: config.blocks, v.B_KIND] = v.LEAF
    world.block[config.blocks :, v.B_KIND] = v.TABLE  # guest memory behind the blocks
    world.block[config.blocks :, v.B_MAPPED] = pages % (config.block_size // config.granule)
    world.page[:] = v.HAS_HOST
    world.page[config.blocks * (config.block_size // config.granule) : pages] |= v.WRITABLE
    for actor in world.s.actor[: config.vcpus]:
        actor[v.P_PATTERN] = _PATTERNS[config.pattern]
        actor[v.A_PAGE] = draw.randrange(pages)
        actor[v.A_RANDOM] = draw.getrandbits(62) + 1
    return world


class _Cycles:
    """Cycles under one order: the hypervisor's tasks, one after the other, while vCPUs roam."""

    def __init__(self, config: RunConfig, order: Order, going_on: Callable[[World], bool], rebuilds: int) -> None:
        self._config = config
        self._going_on = going_on
        self.played = Played(_roaming_world(config, order, rebuilds), order)
        self.world = self.played.world
        self.by_vcpus = config.rebuilder is Rebuilder.VCPU
        self.draw = random.Random(config.seed)
        self.recovery: Recovery | None = None  # of the cycle under way

    def do(self, task: int, first: int = 0, end: int = 0, *, sets: bool = False, ps: int = 0) -> None:
        """Let the hypervisor do a task, with the blocks from ``first`` on if it is about some."""
        control = self.world.s.control
        control[v.TASK_BLOCK], control[v.TASK_END] = first, end or first + 1
        control[v.TASK_SETS], control[v.TASK_PS] = int(sets), ps
        play_out(self.world, v.TASKS + task, self._going_on)

    def dwell(self) -> None:
        """Let the guest run for about the dwell, as a live run does."""
        self.do(v.TO_DWELL, ps=round(self._config.dwell_ns * self.draw.uniform(0.5, 1.5)) * PS_PER_NS)

    def tables(self) -> list[int]:
        """The blocks that are tables."""
        return np.flatnonzero(self.world.block[: self._config.blocks, v.B_KIND] == v.TABLE).tolist()

    def play(self, cycle: Callable[[int], None], cycles: int) -> Played:
        """Play so many cycles, each told its number."""
        s = self.world.s
        try:
            for turn in range(cycles):
                begin, before = int(s.control[v.NOW]), int(s.counters[:, :, _ACCESSES].sum())
                s.control[v.CYCLE] = turn + 1
                cycle(turn)
                while s.control[v.INSIDE]:
                    self.do(v.TO_DWELL, ps=_POLL_PS)
                if (self.world.block[:, v.B_WINDOW] != 0).any():
                    raise left_invalid()
                accesses = int(s.counters[:, :, _ACCESSES].sum()) - before
                recovered = self.recovery.ended() if self.recovery else (0, 0)
                self.played.cycles.append((int(s.control[v.NOW]) - begin, accesses, *recovered))
                if not self._going_on(self.world):
                    raise EndAskedError
        except EndAskedError:
            self.played.interrupted = True
        writes = s.counters[:, :, COUNTERS.index("writes")]
        writes[:] = s.counters[:, :, _ACCESSES] * s.control[v.WRITE_BELOW] // ALWAYS
        return self.played


def play_rebuild(config: RunConfig, order: Order, going_on: Callable[[World], bool]) -> Played:
    """Batch after batch is split, run on, rebuilt, run on: a cycle for each.

    The seed draws dwells and places: the same under every order.
    """
    rebuilds = config.rebuilds or DEFAULT_REBUILDS
    this = _Cycles(config, order, going_on, rebuilds + config.batch)
    batches = range(0, config.blocks, config.batch)

    def cycle(turn: int) -> None:
        first = batches[turn % len(batches)]
        end = min(first + config.batch, config.blocks)
        this.world.s.control[v.LOGGING] = int(this.by_vcpus)
        for block in range(first, end):
            this.do(v.TO_SPLIT, block)
        this.dwell()
        this.do(v.TO_PROTECT if this.by_vcpus else v.TO_REBUILD, first, end)
        this.dwell()

    return this.play(cycle, cycles_for(rebuilds, config.blocks, config.batch))


def play_migration(config: RunConfig, order: Order, going_on: Callable[[World], bool]) -> Played:
    """Pre-copy while the guest writes, every second one cancelled midway; then logging stops and blocks are rebuilt.

    To copy is not modelled and takes no time, nor is the guest stopped for the last of it.
    """
    cycles = config.rebuilds or DEFAULT_MIGRATIONS
    this = _Cycles(config, order, going_on, cycles * config.blocks)

    def harvest(*, logs: bool = True) -> None:
        this.do(v.TO_PROTECT, 0, config.blocks, sets=logs)

    def cycle(turn: int) -> None:
        last = this.draw.randrange(config.iterations) if turn % 2 == 0 else config.iterations - 1
        harvest()
        if config.eager_split:
            for block in range(0, config.blocks, config.chunk_blocks):
                this.do(v.TO_SPLIT, block, min(block + config.chunk_blocks, config.blocks))
        for _ in range(last + 1):
            this.dwell()
            harvest()
        this.recovery = Recovery.begins(this.world)
        if config.recover is Recover.IOCTL:
            recover(this.world, config, going_on)
        for _ in range(_PATIENCE):
            this.dwell()
            if not this.tables():
                break

    return this.play(cycle, cycles)


def play_thp(config: RunConfig, order: Order, going_on: Callable[[World], bool]) -> Played:
    """Block after block the host breaks a huge page up and collapses it; now and then it moves the memslot."""
    cycles = config.rebuilds or DEFAULT_REBUILDS
    this = _Cycles(config, order, going_on, cycles * config.blocks)
    control = this.world.s.control
    moves_under_it = config.yield_every > 0 or order.executed[0] is not Step.LOCK
    room = (1 << config.ipa_bits) - config.phys_offset >= 2 * config.memory or config.phys_offset >= config.memory

    def move(block: int, *, huge: bool) -> None:
        this.do(v.TO_UNMAP, block, sets=True)
        this.do(v.TO_MAP, block, sets=huge)

    def cycle(turn: int) -> None:
        block = turn % config.blocks
        move(block, huge=False)
        this.dwell()
        move(block, huge=True)
        if this.by_vcpus and moves_under_it:  # a table, so that frames move while a vCPU rebuilds
            control[v.LOGGING] = 1
            this.do(v.TO_SPLIT, block, sets=True)
            this.do(v.TO_PROTECT, block)
        this.dwell()
        if turn % MOVE_EVERY == MOVE_EVERY - 1 and room:
            this.do(v.TO_UNMAP, 0, config.blocks)

    return this.play(cycle, cycles)


#: What plays each scenario of cycles that there is.
CYCLES: Final = {Scenario.REBUILD: play_rebuild, Scenario.MIGRATION: play_migration, Scenario.THP: play_thp}
