"""A prediction in four figures: what a search over many orders asks of each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from stress.config import RunConfig
from stress.orders import Order
from stress.predict import virtual as v
from stress.predict.cycles import play_rebuild
from stress.predict.passes import PS_PER_NS
from stress.predict.prediction import check


@dataclass(frozen=True, slots=True)
class Brief:
    """What an order would cost in scenario ``rebuild``: medians over its rebuilds, and the worst stall."""

    #: How long the entry is invalid; 0 if it never is.
    window_ns: int
    #: The longest that a vCPU waited from a faulting access to its retry, whatever it met.
    worst_stall_ns: int
    #: How long a rebuild holds mmu_lock.
    lock_hold_ns: int
    #: From a rebuild's first step to its last.
    rebuild_ns: int
    #: The fraction of rebuilds in whose window at least one vCPU faulted.
    hit_share: float


def briefly(config: RunConfig, orders: Iterable[Order]) -> Iterator[tuple[Order, Brief]]:
    """Predict each of many orders by ``config.rebuilds`` cycles of scenario ``rebuild`` on its platform.

    ``config.orders`` does not matter. Raises `UsageError` for what `check` refuses, and for an order that leaves the
    entry invalid.
    """
    check(config)
    for order in orders:
        world = play_rebuild(config, order, lambda world: True).world
        record = world.record[: int(world.s.control[v.REBUILT])]
        kept = world.faults[: int(world.s.control[v.KEPT])]
        yield (
            order,
            Brief(
                window_ns=_median(
                    np.where(record[:, v.R_INVALID] < 0, 0, record[:, v.R_VALID] - record[:, v.R_INVALID])
                ),
                worst_stall_ns=int(kept[:, v.F_STALL].max(initial=0)) // PS_PER_NS,
                lock_hold_ns=_median(record[:, v.R_UNLOCKED] - record[:, v.R_LOCKED] - record[:, v.R_YIELDED]),
                rebuild_ns=_median(record[:, v.R_END] - record[:, v.R_START]),
                hit_share=float((record[:, v.R_FAULTS] > 0).mean()) if len(record) else 0.0,
            ),
        )


def _median(ps: v.Words) -> int:
    return int(np.median(ps)) // PS_PER_NS if ps.size else 0
