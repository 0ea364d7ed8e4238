"""A scenario with stages, played in virtual time: one pass under one order, for the next would be the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from stress.config import Backing, Cmo, Locking, Rebuilder, RunConfig
from stress.errors import UsageError
from stress.orders import Order
from stress.predict import virtual as v
from stress.predict.play import DONE, MORE, STUCK, play
from stress.predict.prices import prices
from stress.predict.virtual import World, empty_world
from stress.programs import ALWAYS, NEVER, NO_HEAD, WRITE_HEAD, Program, page_table_test
from stress.results.data import StageData

#: Events between two looks at whether somebody wants to know how far it is, or that it ends.
_AT_ONCE: Final = 200_000


@dataclass(slots=True)
class Played:
    """A pass that was played, complete unless ``interrupted``."""

    world: World
    order: Order
    stages: list[StageData] = field(default_factory=list)
    interrupted: bool = False


def large_pages(config: RunConfig) -> int:
    """Pages of what the selftest calls a large page: of the backing, not of what stage 2 may map."""
    return 1 if config.backing is Backing.ANONYMOUS else config.block_size // config.granule


def new_world(config: RunConfig, order: Order) -> World:
    """The machine of a configuration, with nothing mapped and nothing touched."""
    size = config.block_size // config.granule
    blocks = -(-config.pages // size)
    # The last block may be cut off by memory's end: its pages are there, but never touched.
    world = empty_world(blocks, blocks * size, blocks)
    world.s.cost[:] = prices(config)
    control = world.s.control
    control[v.VCPUS] = config.vcpus
    control[v.BLOCK_PAGES] = size
    control[v.TABLE_PAGES] = config.geometry.entries
    control[v.BLOCK_LEVEL] = config.block_level
    control[v.GRANULE] = config.granule
    control[v.SHARED] = int(config.locking is Locking.SHARED)
    control[v.FWB] = int(config.fwb)
    control[v.CMO_PER_FAULT] = int(config.cmo is Cmo.PER_FAULT)
    control[v.VCPU_REBUILDS] = int(config.rebuilder is Rebuilder.VCPU)
    control[v.PAGE_BACKED] = int(config.backing is Backing.ANONYMOUS)
    control[v.CYCLE] = 1
    control[v.REPEATABLE] = 1
    world.block[: config.blocks, v.B_ALLOWED] = int(config.has_blocks)
    world.s.order[: len(order.codes)] = order.codes
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


def play_stage(
    world: World, name: str, program: Callable[[int], Program], going_on: Callable[[World], bool]
) -> StageData | None:
    """Let all vCPUs play their programs; None if ``going_on`` said no before they were done."""
    vcpus = int(world.s.control[v.VCPUS])
    for vcpu in range(vcpus):
        _give(world, vcpu, program(vcpu))
    start, counters, rebuilds = (
        int(world.s.control[v.NOW]),
        world.s.counters.sum(axis=(0, 1)),
        world.s.sums[v.S_REBUILDS],
    )
    state = play(world, _AT_ONCE, True)
    while state == MORE:
        if not going_on(world):
            return None
        state = play(world, _AT_ONCE, False)
    if state == STUCK:
        raise UsageError(
            "the order leaves an entry invalid, and vCPUs would wait for ever",
            "predict orders that stress run finds correct",
        )
    if state != DONE:
        raise UsageError("the guest would run for more than 30 days", "predict less memory, or a faster platform")
    end = int(world.s.actor[:vcpus, v.A_ENDED].max())
    world.s.control[v.NOW] = end
    return StageData(
        name=name,
        iteration=0,
        repeat=0,
        duration_ns=(end - start) // 1000,
        counters=world.s.counters.sum(axis=(0, 1)) - counters,
        rebuilds=int(world.s.sums[v.S_REBUILDS] - rebuilds),
    )


def _set_logging(world: World, logged: bool) -> None:
    """Between stages: write-protect everything, or let faults map blocks again."""
    world.s.control[v.LOGGING] = int(logged)
    if logged:
        world.block[:, v.B_WRITABLE] = 0
        world.page[world.page & v.STATE == v.WRITABLE] ^= v.WRITABLE ^ v.READ_ONLY


def play_page_table_test(config: RunConfig, order: Order, going_on: Callable[[World], bool]) -> Played:
    """One pass of ``kvm-page-table-test`` under an order."""
    played = Played(new_world(config, order), order)
    for stage in page_table_test(config.pages, large_pages(config)):
        if bool(played.world.s.control[v.LOGGING]) != stage.logged:
            _set_logging(played.world, stage.logged)
        found = play_stage(played.world, stage.name, stage.program, going_on)
        if found is None:
            played.interrupted = True
            break
        played.stages.append(found)
    return played
