"""Keys of scenarios with stages: which scenario each belongs to, and what it may be there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from stress.config.values import STAGED, Pattern, Scenario, problem
from stress.units import format_size

#: Keys that say something in dirty-log-perf alone.
DIRTY_LOG_KEYS: Final = ("get_clears", "clear_chunk", "overlap")
#: Every key that `check` knows.
KEYS: Final = ("rebuilds", "passes", *DIRTY_LOG_KEYS, "pattern")

#: ``KVM_CLEAR_DIRTY_LOG`` takes multiples of so many pages (Linux 6.1, Documentation/virt/kvm/api.rst, 4.117).
_PAGES_CLEARED: Final = 64


def check(field: str, value: Any, given: Mapping[str, Any]) -> None:
    """Raise the problem with the value of one of `KEYS`, if there is one.

    ``given`` holds the fields declared above it that are right.
    """
    scenario = given.get("scenario")
    if scenario is None or not value:
        return
    if field == "rebuilds" and scenario in STAGED:
        raise problem(f"scenario {scenario} goes through its stages in passes; use --passes")
    if field == "passes" and scenario not in STAGED:
        raise problem(f"scenario {scenario} has no stages; use --rebuilds or --duration")
    if field in DIRTY_LOG_KEYS and scenario is not Scenario.DIRTY_LOG_PERF:
        raise problem(f"scenario {scenario} does nothing with it; use scenario {Scenario.DIRTY_LOG_PERF}")
    if field == "clear_chunk":
        if given.get("get_clears"):
            raise problem("given together with get-clears, which leaves nothing to clear; give one of them")
        unit = _PAGES_CLEARED * given.get("granule", 1)
        if value % unit:
            raise problem(f"KVM clears multiples of {_PAGES_CLEARED} pages, {format_size(unit)}, not {value} bytes")
    if field == "pattern" and scenario is Scenario.PAGE_TABLE_TEST and value is not Pattern.SEQUENTIAL:
        raise problem(f"scenario {scenario} accesses memory as the selftest does; leave it out")
