"""How a violation is kept: an exact count per kind, how many of them a rule told, and evidence for the first few."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from stress.arch.geometry import LAST_LEVEL
from stress.kernels.descriptor import entry_index, is_table, next_page
from stress.shm.accounts import (
    AT_STEP,
    BY_RULE,
    CHANGED,
    CHANGED_ROW,
    V_ABOVE,
    V_CHANGED,
    V_CHANGED_ROW,
    V_DETAIL,
    V_EXPECTED,
    V_FOUND,
    V_GFN,
    V_LEVEL,
    V_READY,
    V_RULE,
    V_STEP,
    V_TIME_NS,
    V_WHO,
    VIOLATIONS,
)
from stress.shm.atomics import fetch_add, load, store
from stress.shm.jit import kernel
from stress.shm.layout import (
    Machine,
)
from stress.shm.placement import cold
from stress.shm.syscalls import clock_ns
from stress.shm.words import FINISH, FINISH_ASKED


@kernel
def name_place(s: Machine, row: npt.NDArray[np.int64], who: int, gfn: int, level: int) -> None:
    """Add to evidence the last store that the process made to the table, and the entries above the one in question."""
    row[V_CHANGED] = s.states[who, CHANGED]
    row[V_CHANGED_ROW] = s.states[who, CHANGED_ROW]
    page = 0
    for at in range(s.geo.start_level, min(level, LAST_LEVEL)):
        descriptor = load(s.tables, entry_index(s.geo, page, at, gfn))
        row[V_ABOVE + at] = descriptor
        if not is_table(descriptor, at):
            break
        page = next_page(s.geo, descriptor)
        if page < 0 or page >= s.geo.table_pages:
            break


@kernel
def keep(
    s: Machine, kind: int, rule: int, who: int, gfn: int, level: int, found: int, expected: int, detail: int
) -> None:
    """Record a violation by process ``who``; with fail-fast also ask the run to end.

    The step is that of a rebuild under way, whoever does it: it tells in which window a vCPU was.
    """
    cold()
    if rule != 0:
        fetch_add(s.tally, BY_RULE + kind, 1)
    n = fetch_add(s.tally, VIOLATIONS + kind, 1)
    if n < s.geo.evidence_rows:
        row = s.evidence[kind, n]
        row[V_WHO] = who
        row[V_GFN] = gfn
        row[V_LEVEL] = level
        step = -1
        for process in range(s.geo.hypervisor + 1):
            step = max(step, load(s.states, (process, AT_STEP)))
        row[V_STEP] = step
        row[V_TIME_NS] = clock_ns()
        row[V_FOUND] = found
        row[V_EXPECTED] = expected
        row[V_DETAIL] = detail
        row[V_RULE] = rule
        name_place(s, row, who, gfn, level)
        store(s.evidence, (kind, n, V_READY), 1)
    if s.geo.fail_fast != 0:
        store(s.control, FINISH, FINISH_ASKED)


@kernel
def report(s: Machine, kind: int, who: int, gfn: int, level: int, found: int, expected: int, detail: int) -> None:
    """Record what an access, a walk or an audit met and no correct order leads to."""
    cold()
    keep(s, kind, 0, who, gfn, level, found, expected, detail)


@kernel
def broke_rule(s: Machine, kind: int, who: int, gfn: int, level: int, found: int, expected: int, detail: int) -> None:
    """Record that a step broke a rule, whether anybody met the consequence or not."""
    cold()
    keep(s, kind, 1, who, gfn, level, found, expected, detail)
