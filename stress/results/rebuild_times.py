"""Where the time of an order's rebuilds goes, part by part."""

from __future__ import annotations

from typing import Any, Final

from stress.orders import Step

#: The part that is no step, unless the order says where mmu_lock is taken.
WAIT: Final = "wait for mmu_lock"


def rebuild_times(order: dict[str, Any]) -> dict[str, Any]:
    """The wait for mmu_lock, where it is no step of its own, and the steps: their times as the document has them."""
    wait = {} if Step.LOCK in order["steps"] else {WAIT: order["mmu_lock"]["rebuilder_wait_ns"]}
    return {**wait, **order["step_ns"]}
