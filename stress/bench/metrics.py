"""What a launch of an order case yields: ratios between orders, one for each block of consecutive cycles.

Orders are interleaved cycle by cycle, so a block holds what the orders did at the same time, and whatever disturbed
the machine then is in both. Cycles in which the guest did not run throughout are left out: while other work has the
vCPU's core, a TLBI interrupts nobody and costs next to nothing, so they tell how busy the machine is, and nothing of
the order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from stress.errors import TooFewSamples
from stress.orders import Order
from stress.results.data import FAULT_CLASSES, NOT_MEASURED, OrderData

Rows = npt.NDArray[Any]

#: Blocks that a launch's cycles are cut into, if there are enough cycles.
BLOCKS: Final = 8
#: Cycles of each order that a block needs.
MIN_CYCLES: Final = 10


@dataclass(frozen=True, slots=True)
class Metric:
    """A number that some cycles of one order have; what is compared is its ratio to that of the first order."""

    meaning: str
    value: Callable[[Rows, Rows], float]  # of REBUILD_ROW and STALL_ROW rows
    higher_is_better: bool = False


def _window(rows: Rows, stalls: Rows) -> float:
    windows = rows["window_ns"]
    return float("nan") if (windows == NOT_MEASURED).any() else float(np.median(windows))


def _stall(rows: Rows, stalls: Rows) -> float:
    caught = stalls["stall_ns"][stalls["fault_class"] == FAULT_CLASSES.index("window")]
    return float(np.median(caught)) if caught.size else float("nan")


def _throughput(rows: Rows, stalls: Rows) -> float:
    return float(rows["accesses"].sum() / rows["cycle_ns"].sum())


#: Metric -> how it is taken. Besides, the name of each step is a metric: its time over that of its rebuild's rest.
METRICS: Final = {
    "window": Metric("median invalid window", _window),
    "rebuild": Metric("median time of a rebuild", lambda rows, stalls: float(np.median(rows["rebuild_ns"]))),
    "hold": Metric(
        "median time the rebuilder held mmu_lock", lambda rows, stalls: float(np.median(rows["lock_hold_ns"]))
    ),
    "window-faults": Metric("window faults per rebuild", lambda rows, stalls: float(rows["window_faults"].mean())),
    "stall": Metric("median stall of a window fault", _stall),
    "throughput": Metric("guest accesses per time", _throughput, higher_is_better=True),
}


def has_step(step: str) -> Callable[[Order], bool]:
    """Whether an order has the step of this name."""
    return lambda order: step in order.steps


def ratios(orders: Sequence[OrderData], metric: str) -> dict[str, list[float]]:
    """A metric's ratios by order, one per block: to the first order, or of a step to the rest of its rebuild.

    Where events are too rare for `BLOCKS` blocks there are fewer; TooFewSamples if even the whole run has too few.
    """
    first, *others = measured = _undisturbed(orders)
    if metric not in METRICS:
        chosen = [cycles for cycles in measured if metric in cycles.order.steps]
        return {each.order.name: _blocks([each], metric, lambda cut: _against_rest(metric, *cut)) for each in chosen}
    value = METRICS[metric].value

    def quotient(baseline: _Cycles, other: _Cycles) -> float:
        return _quotient(value(other.rows, other.stalls), value(baseline.rows, baseline.stalls))

    return {each.order.name: _blocks([first, each], metric, lambda cut: quotient(*cut)) for each in others}


@dataclass(frozen=True, slots=True)
class _Cycles:
    """Some consecutive cycles of one order."""

    order: Order
    rows: Rows
    stalls: Rows


def _undisturbed(orders: Sequence[OrderData]) -> list[_Cycles]:
    """The cycles in which the guest ran, as it did in the ones before and after; in the sequence of time."""
    rows = [np.sort(data.rows, order="number") for data in orders]
    ran = np.concatenate([each["number"][each["accesses"] > 0] for each in rows])
    kept = [np.isin(each["number"], ran) & np.isin(each["number"] - 1, ran) for each in rows]
    kept = [also & np.isin(each["number"] + 1, ran) for each, also in zip(rows, kept, strict=True)]
    return [
        _Cycles(data.order, each[chosen], data.stalls) for data, each, chosen in zip(orders, rows, kept, strict=True)
    ]


def _against_rest(step: str, cycles: _Cycles) -> float:
    times = cycles.rows["step_ns"][:, cycles.order.steps.index(step)]
    return _quotient(np.median(times), np.median(cycles.rows["rebuild_ns"] - times))


def _quotient(part: Any, whole: Any) -> float:
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.divide(part, whole))


def _blocks(orders: Sequence[_Cycles], metric: str, ratio: Callable[[Sequence[_Cycles]], float]) -> list[float]:
    fewest = min(cycles.rows.size for cycles in orders)
    for count in range(min(BLOCKS, fewest // MIN_CYCLES), 0, -1):
        found = [ratio(cut) for cut in zip(*(_cut(cycles, count) for cycles in orders), strict=True)]
        if all(np.isfinite(each) and each > 0 for each in found):
            return found
    names = " and ".join(cycles.order.name for cycles in orders)
    raise TooFewSamples(
        f"too few samples: {fewest} rebuilds of {names} under a running guest give no ratio of {metric}",
        f"raise the duration: it takes {MIN_CYCLES} rebuilds, and events in them",
    )


def _cut(cycles: _Cycles, count: int) -> Iterator[_Cycles]:
    for rows in np.array_split(cycles.rows, count):
        within = np.isin(cycles.stalls["number"], rows["number"])
        yield _Cycles(cycles.order, rows, cycles.stalls[within])
