"""How a violation is kept: an exact count per kind, and evidence for the first few."""

from __future__ import annotations

from stress.shm.atomics import fetch_add, load, store
from stress.shm.jit import kernel
from stress.shm.layout import (
    Machine,
)
from stress.shm.syscalls import clock_ns
from stress.shm.words import (
    AT_STEP,
    EVIDENCE_KEPT,
    FINISH,
    FINISH_ASKED,
    V_DETAIL,
    V_EXPECTED,
    V_FOUND,
    V_GFN,
    V_LEVEL,
    V_READY,
    V_STEP,
    V_TIME_NS,
    V_WHO,
    VIOLATIONS,
)


@kernel
def report(s: Machine, kind: int, who: int, gfn: int, level: int, found: int, expected: int, detail: int) -> None:
    """Record a violation by process ``who``; with fail-fast also ask the run to end.

    The step is that of a rebuild under way, whoever does it: it tells in which window a vCPU was.
    """
    n = fetch_add(s.control, VIOLATIONS + kind, 1)
    if n < EVIDENCE_KEPT:
        row = s.evidence[kind, n]
        row[V_WHO] = who
        row[V_GFN] = gfn
        row[V_LEVEL] = level
        step = -1
        for process in range(s.geo.hypervisor + 1):
            step = max(step, load(s.procs, (process, AT_STEP)))
        row[V_STEP] = step
        row[V_TIME_NS] = clock_ns()
        row[V_FOUND] = found
        row[V_EXPECTED] = expected
        row[V_DETAIL] = detail
        store(s.evidence, (kind, n, V_READY), 1)
    if s.geo.fail_fast != 0:
        store(s.control, FINISH, FINISH_ASKED)
