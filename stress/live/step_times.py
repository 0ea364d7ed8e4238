"""The duration of each step that an order is written with, from the records of its rebuilds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from stress.orders import MAX_STEPS, Order
from stress.shm import accounts


def step_times(records: npt.NDArray[np.int64], orders: Sequence[Order]) -> npt.NDArray[np.int64]:
    """Times in ns, (records, MAX_STEPS): column i belongs to step i of the record's order; 0 behind its last."""
    first = np.array([order.first for order in orders], np.int64)[records[:, accounts.R_ORDER]]
    columns = accounts.R_STEPS + first[:, np.newaxis] + np.arange(MAX_STEPS)
    written = np.array([len(order.steps) for order in orders], np.int64)[records[:, accounts.R_ORDER]]
    times = np.take_along_axis(records, columns, axis=1)
    return np.where(np.arange(MAX_STEPS) < written[:, np.newaxis], times, 0)
