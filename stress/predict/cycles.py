"""The scenario ``rebuild`` in virtual time: block after block is split, run on as pages, rebuilt, run on as a block."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

from stress.config import Pattern, RunConfig
from stress.kernels.workload import scatter_for
from stress.orders import Order
from stress.predict import virtual as v
from stress.predict.passes import PS_PER_NS, EndAskedError, Played, left_invalid, new_world, play_out
from stress.predict.virtual import Words, World
from stress.programs import ALWAYS
from stress.results.data import COUNTERS

#: Rebuilds of each order if nobody says how many.
DEFAULT_REBUILDS: Final = 200

#: The hypervisor looks so often whether vCPUs have ended the rebuilds of a cycle.
_POLL_PS: Final = 50 * 10**6

_PATTERNS: Final = {
    Pattern.SEQUENTIAL: v.LAPS,
    Pattern.STRIDED: v.LAPS,
    Pattern.UNIFORM: v.UNIFORM,
    Pattern.ZIPF: v.ZIPF,
}
_ACCESSES: Final = COUNTERS.index("accesses")


def _weights(config: RunConfig, blocks: int) -> Words:
    """Of 2**WEIGHT_BITS accesses drawn, those to each block, (blocks,)."""
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
    world.block[config.blocks :, v.B_KIND] = v.TABLE  # what is left of memory
    world.block[config.blocks :, v.B_MAPPED] = pages % (config.block_size // config.granule)
    world.page[:] = v.HAS_HOST
    world.page[config.blocks * (config.block_size // config.granule) : pages] |= v.WRITABLE
    for actor in world.s.actor[: config.vcpus]:
        actor[v.P_PATTERN] = _PATTERNS[config.pattern]
        actor[v.A_PAGE] = draw.randrange(pages)
        actor[v.A_RANDOM] = draw.getrandbits(62) + 1
    return world


def play_rebuild(config: RunConfig, order: Order, going_on: Callable[[World], bool]) -> Played:
    """A cycle for each rebuild. The seed draws dwells and places: the same under every order."""
    rebuilds = config.rebuilds or DEFAULT_REBUILDS
    played = Played(_roaming_world(config, order, rebuilds), order)
    s, by_vcpus = played.world.s, bool(played.world.s.control[v.VCPU_REBUILDS])
    draw = random.Random(config.seed)

    def do(task: int, ps: int = 0) -> None:
        s.control[v.TASK_PS] = ps
        play_out(played.world, v.TASKS + task, going_on)

    def dwell() -> None:
        do(v.TO_DWELL, round(config.dwell_ns * draw.uniform(0.5, 1.5)) * PS_PER_NS)

    try:
        for turn in range(rebuilds):
            begin, before = int(s.control[v.NOW]), int(s.counters[:, :, _ACCESSES].sum())
            block = turn % config.blocks
            s.control[v.CYCLE], s.control[v.TASK_BLOCK] = turn + 1, block
            s.control[v.LOGGING] = int(by_vcpus)
            do(v.TO_SPLIT)
            dwell()
            do(v.TO_STOP_LOGGING if by_vcpus else v.TO_REBUILD)
            dwell()
            while s.control[v.INSIDE]:
                do(v.TO_DWELL, _POLL_PS)
            if played.world.block[block, v.B_OWNER] != 0:
                raise left_invalid()
            played.cycles.append((int(s.control[v.NOW]) - begin, int(s.counters[:, :, _ACCESSES].sum()) - before))
            if not going_on(played.world):
                raise EndAskedError
    except EndAskedError:
        played.interrupted = True
    writes = s.counters[:, :, COUNTERS.index("writes")]
    writes[:] = s.counters[:, :, _ACCESSES] * s.control[v.WRITE_BELOW] // ALWAYS
    return played
