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
class _Cycles:
    """Some consecutive cycles of one order."""

    order: Order
    cycles: Rows  # CYCLE_ROW
    rows: Rows  # REBUILD_ROW
    stalls: Rows  # STALL_ROW


@dataclass(frozen=True, slots=True)
class Metric:
    """A number measured over some cycles of one order; its ratio to the first order's number is compared."""

    meaning: str
    value: Callable[[_Cycles], float]
    higher_is_better: bool = False


def _window(cut: _Cycles) -> float:
    windows = cut.rows["window_ns"]
    return float("nan") if (windows == NOT_MEASURED).any() else _median(windows)


def _stall(cut: _Cycles) -> float:
    return _median(cut.stalls["stall_ns"][cut.stalls["fault_class"] == FAULT_CLASSES.index("window")])


def _throughput(cut: _Cycles) -> float:
    return _quotient(cut.cycles["accesses"].sum(), cut.cycles["time_ns"].sum())


def _median(values: Rows) -> float:
    return float(np.median(values)) if values.size else float("nan")


#: Every metric by name. The name of each step is one, too: the step's time over that of its rebuild's other steps.
METRICS: Final = {
    "window": Metric("median invalid window", _window),
    "rebuild": Metric("median time of a rebuild", lambda cut: _median(cut.rows["rebuild_ns"])),
    "hold": Metric("median time the rebuilder held mmu_lock", lambda cut: _median(cut.rows["lock_hold_ns"])),
    "window-faults": Metric(
        "window faults per rebuild", lambda cut: _quotient(cut.rows["window_faults"].sum(), cut.rows.size)
    ),
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
        return _quotient(value(other), value(baseline))

    return {each.order.name: _blocks([first, each], metric, lambda cut: quotient(*cut)) for each in others}


def _undisturbed(orders: Sequence[OrderData]) -> list[_Cycles]:
    """Each order's cycles in which the guest ran, as it did in the cycles before and after them; sorted by time."""
    cycles = np.concatenate([data.cycles for data in orders])
    ran = cycles["number"][cycles["accesses"] > 0]
    found = []
    for data in orders:
        its = np.sort(data.cycles, order="number")
        beside = [np.isin(its["number"] + step, ran) for step in (-1, 0, 1)]
        found.append(_part(data.order, its[np.all(beside, axis=0)], data.rows, data.stalls))
    return found


def _part(order: Order, cycles: Rows, rows: Rows, stalls: Rows) -> _Cycles:
    """These cycles, with those of ``rows`` and ``stalls`` that happened in them."""
    its = [each[np.isin(each["cycle"], cycles["number"])] for each in (rows, stalls)]
    return _Cycles(order, cycles, *its)


def _against_rest(step: str, cycles: _Cycles) -> float:
    times = cycles.rows["step_ns"][:, cycles.order.steps.index(step)]
    return _quotient(_median(times), _median(cycles.rows["rebuild_ns"] - times))


def _quotient(part: Any, whole: Any) -> float:
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.divide(part, whole))


def _blocks(orders: Sequence[_Cycles], metric: str, ratio: Callable[[Sequence[_Cycles]], float]) -> list[float]:
    fewest = min(np.unique(each.rows["cycle"]).size for each in orders)
    for count in range(min(BLOCKS, fewest // MIN_CYCLES), 0, -1):
        found = [ratio(cut) for cut in zip(*(_cut(cycles, count) for cycles in orders), strict=True)]
        if all(np.isfinite(each) and each > 0 for each in found):
            return found
    names = " and ".join(cycles.order.name for cycles in orders)
    raise TooFewSamples(
        f"too few samples: {fewest} cycles of {names} under a running guest give no ratio of {metric}",
        f"raise the duration: it takes {MIN_CYCLES} cycles with rebuilds, and events in them",
    )


def _cut(cycles: _Cycles, count: int) -> Iterator[_Cycles]:
    for its in np.array_split(cycles.cycles, count):
        yield _part(cycles.order, its, cycles.rows, cycles.stalls)
