"""How a run went over time: throughput by interval, and when blocks were rebuilt."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from stress.results.data import NOT_MEASURED, OrderData, RunData

#: Rebuilds marked per order.
_MARKS: Final = 200


def timeline(data: RunData) -> dict[str, Any]:
    """Intervals as parallel lists, and of each order a sample of rebuilds in their sequence."""
    columns = ("start_ns", "duration_ns", "accesses", "faults")
    return {
        "intervals": {name: [int(getattr(each, name)) for each in data.intervals] for name in columns},
        "rebuilds": [_marks(order) for order in data.orders if order.rows.size],
    }


def _marks(order: OrderData) -> dict[str, Any]:
    rows = np.sort(order.rows, order="start_ns")
    chosen = rows[np.unique(np.linspace(0, rows.size - 1, min(rows.size, _MARKS)).astype(np.int64))]
    windows = chosen["window_ns"].tolist()
    return {
        "order": order.order.name,
        "start_ns": chosen["start_ns"].tolist(),
        "rebuild_ns": chosen["rebuild_ns"].tolist(),
        "window_ns": [None if window == NOT_MEASURED else window for window in windows],
    }
