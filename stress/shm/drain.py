"""The collector's side of the rings: copy out what is complete, then give the space back.

In plain numpy, many rows at a time: the supervisor would otherwise load Numba for this alone, which takes longer than
to start all workers.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from stress.shm.accounts import EVENT_HEAD, EVENT_TAIL, K_DONE, R_DONE
from stress.shm.layout import Machine
from stress.shm.publish import fence, publish

_Rows = npt.NDArray[np.int64]


def drain_events(s: Machine, vcpu: int, out: _Rows) -> int:
    """Move one vCPU's fault events to ``out`` (n, EVENT_WORDS); how many, at most n."""
    head, tail = map(int, s.event_index[vcpu, [EVENT_HEAD, EVENT_TAIL]])
    count = min(head - tail, len(out))
    if count == 0:
        return 0
    fence()
    np.take(s.events[vcpu], np.arange(tail, tail + count), axis=0, out=out[:count], mode="wrap")
    publish(s.event_index, (vcpu, EVENT_TAIL), tail + count)
    return count


def _whole(ring: _Rows, done: int, numbers: _Rows) -> tuple[_Rows, npt.NDArray[np.bool_]]:
    """Copies of rows ``numbers`` of a ring, and which are whole: ``done``, written last, says so before and after."""
    at = numbers % len(ring)
    fence()  # the caller has read that there are such rows
    before = ring[at, done]
    fence()
    rows = ring[at]
    fence()
    return rows, (before == numbers) & (ring[at, done] == numbers)


def copy_records(s: Machine, numbers: _Rows) -> tuple[_Rows, npt.NDArray[np.bool_]]:
    """The records of rebuilds ``numbers`` (n,), as (n, RECORD_WORDS), and for each whether it is complete (n,)."""
    return _whole(s.records, R_DONE, numbers)


def copy_cycles(s: Machine, numbers: _Rows) -> tuple[_Rows, npt.NDArray[np.bool_]]:
    """Cycles ``numbers`` (n,), as (n, CYCLE_WORDS), and for each whether it is complete and not overwritten (n,)."""
    return _whole(s.cycles, K_DONE, numbers)
