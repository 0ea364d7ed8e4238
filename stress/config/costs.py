"""Whether a platform lets a run rebuild at all: one whose costs outlast the run would test nothing."""

from __future__ import annotations

from stress.config.model import RunConfig
from stress.config.values import Cmo, Scenario
from stress.orders import Order, Step
from stress.platforms import Shape
from stress.units import format_ns


def _least_ns(config: RunConfig, order: Order) -> float:
    """What it costs at least on the configuration's platform to map a block, or to rebuild it by ``order``, in ns."""
    platform = config.platform_profile
    maps = config.scenario is Scenario.REBUILD and config.memslots == 1  # a guest's first access
    cleans = 1 if config.cmo is Cmo.PER_FAULT else max(int(maps), order.steps.count(Step.CLEAN))
    if config.fwb:
        cleans = 0
    one_table = Shape(entries=1 << config.geometry.index_bits, tables=1)
    others = sum(platform.cost(step, one_table) for step in order.steps if not step.facts.cleans)
    return cleans * platform.cost(Step.CLEAN, Shape(bytes=config.block_size)) + others


def cannot_finish(config: RunConfig) -> str:
    """Why no rebuild can end within the run's duration, with the remedy; "" if that cannot be foretold."""
    if config.duration_ns is None or config.scenario is Scenario.THP or not config.has_blocks:
        return ""
    for order in config.parsed_orders:
        least = _least_ns(config, order)
        if least >= config.duration_ns:
            return (
                f"a block takes {format_ns(least)} to map or to rebuild by {order.name}, and the run has "
                f"{format_ns(config.duration_ns)}; raise --duration, or use smaller blocks (--block-size)"
            )
    return ""
