"""The time of a rebuild step by step, and the part of the cache clean in a difference between orders."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final

from stress.orders import BLOCK_FIRST, CLEANS, TEAR_DOWNS, Step
from stress.results import cells


def step_median(order: dict[str, Any], job: Collection[Step]) -> int | None:
    """Median time in ns of an order's steps that do one job (`CLEANS`, `TEAR_DOWNS`); None without any or a figure."""
    found = [times["p50"] for step, times in order["step_ns"].items() if step in job]
    return None if not found or None in found else sum(found)


def finding(orders: Sequence[dict[str, Any]]) -> str:
    """The parts of the clean and the tear-down in the first order's rebuild, and the gain of reordering, in sentences.

    It is empty unless memory was cleaned and there is another order. All figures are medians.
    """
    baseline = orders[0]
    others = [order for order in orders[1:] if order["rebuild_ns"]["p50"] is not None]
    whole, clean = baseline["rebuild_ns"]["p50"], step_median(baseline, CLEANS)
    if not (others and baseline["cleaned_bytes"] and whole and clean):
        return ""
    sentences = [f"Of {baseline['order']}'s {cells.time(whole)} rebuild the clean takes {_part(clean, whole)}"]
    tear_down = step_median(baseline, TEAR_DOWNS)
    if tear_down is not None:
        sentences[0] += f" and the tear-down {_part(tear_down, whole)}"

    def ratios(chosen: list[dict[str, Any]]) -> str:
        return ", ".join(f"{order['order']} {cells.factor(order['rebuild_ns']['p50'] / whole)}x" for order in chosen)

    steps = set(baseline["steps"])
    reordered = [order for order in others if set(order["steps"]) == steps]
    different = [order for order in others if set(order["steps"]) != steps]
    if reordered:
        sentences.append(f"Reordering alone: {ratios(reordered)}")
    if different:
        sentences.append(f"With other steps: {ratios(different)}")
    sentences.append(_without_clean([baseline, *others], whole))
    return ". ".join(sentences) + "."


def _part(part: int, whole: int) -> str:
    return f"{cells.time(part)} ({cells.share(part / whole)})"


def _without_clean(orders: Sequence[dict[str, Any]], whole: int) -> str:
    """A sentence on a rebuild without its clean: block-first's, as the RFC of 2021 posted it, or the baseline's."""
    posted = [order for order in orders if order["steps"] == list(BLOCK_FIRST.steps)]
    chosen = (posted or orders)[0]
    rest = sum(times["p50"] for step, times in chosen["step_ns"].items() if step not in CLEANS)
    where = "as the RFC's first version did" if posted else f"from {chosen['order']}"
    return f"Leaving out the clean, {where}: {cells.factor(rest / whole)}x, but wrong without FWB"


#: The part of a rebuild that is no step, unless the order says where mmu_lock is taken.
WAIT: Final = "wait for mmu_lock"


def rebuild_times(order: dict[str, Any]) -> dict[str, Any]:
    """The wait for mmu_lock, where it is no step of its own, and the steps: their times as the document has them."""
    wait = {} if Step.LOCK in order["steps"] else {WAIT: order["mmu_lock"]["rebuilder_wait_ns"]}
    return {**wait, **order["step_ns"]}
