"""What a result owes whoever compares orders, or has blocks rebuilt: a rebuild by each order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from stress.config.model import RunConfig
from stress.config.values import Scenario


def never_rebuilt(config: RunConfig, rebuilds: Iterable[int], why: str = "") -> Iterator[str]:
    """What a result with so many ``rebuilds`` of each order lacks, in words; ``why`` follows where one is missing."""
    compared = len(config.orders) > 1
    if config.scenario is Scenario.THP:
        if compared:
            yield f"scenario {config.scenario} rebuilds no block, so it compares nothing; use one order, or another one"
    elif compared or config.has_blocks:
        for order, number in zip(config.orders, rebuilds, strict=True):
            if not number:
                yield f"no rebuild by {order}{why}"
