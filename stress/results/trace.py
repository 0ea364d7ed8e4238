"""What an executor hands over of a traced run: its first rebuilds and faults, and every change of the page table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from stress.orders import MAX_STEPS, Order


class TraceRequest(NamedTuple):
    """How much is to be traced."""

    rebuilds: int  # the trace ends with this rebuild
    changes: bool  # every change of the page table, not only rebuilds and faults


class TableShape(NamedTuple):
    """The page table as addresses see it."""

    granule_shift: int
    index_bits: int
    start_level: int
    root_pages: int  # concatenated at the start level: the first pages of the pool
    table_pages: int
    tables_pa: int  # physical address of the pool's first page


#: One row per rebuild; clock times in ns, 0 for what did not happen.
TRACED_REBUILD = np.dtype(
    [
        ("number", np.int64),
        ("order", np.int64),  # index of its order
        ("ipa", np.int64),
        ("who", np.int64),  # process number of the rebuilder; vCPUs first, then the hypervisor
        ("requested_ns", np.int64),
        ("locked_ns", np.int64),
        ("unlocked_ns", np.int64),
        ("start_ns", np.int64),  # of the first step
        ("end_ns", np.int64),  # of the last
        ("invalid_ns", np.int64),
        ("valid_ns", np.int64),
        ("window_faults", np.int64),
        ("step_ns", np.int64, (MAX_STEPS,)),  # duration of each step
    ]
)

#: One row per fault.
TRACED_FAULT = np.dtype(
    [
        ("vcpu", np.int64),
        ("time_ns", np.int64),  # clock
        ("ipa", np.int64),
        ("stall_ns", np.int64),
        ("lock_wait_ns", np.int64),
        ("number", np.int64),  # the rebuild whose window it fell into, or 0
        ("fault_class", np.int64),  # index into FAULT_CLASSES
        ("level", np.int64),
        ("write", np.int64),
    ]
)


@dataclass(slots=True)
class TraceData:
    """A trace; everything in it happened before ``end_ns``. ``cut`` says why it is shorter than was asked for.

    ``beyond`` says what of its changes casemate, which they are written for, cannot follow.
    """

    orders: tuple[Order, ...]
    exit_ns: int  # what a vCPU's exit costs before it asks for mmu_lock
    guest_ns: list[int]  # clock at each vCPU's first access, 0 if it made none
    end_ns: int  # clock
    rebuilds: npt.NDArray[Any]  # TRACED_REBUILD, by number
    faults: npt.NDArray[Any]  # TRACED_FAULT, per vCPU in the order of time
    shape: TableShape
    changes: npt.NDArray[np.int64]  # rows of region "trace", in the order in which it all happened
    waits: bool = True  # whether a DSB follows every TLBI; not with the injected bug missing-dsb
    slowed: bool = False  # whether each change of the page table was written down as it happened
    cut: str = ""
    beyond: str = ""
