"""Keys of scenarios with stages: refused where they would do nothing."""

from __future__ import annotations

from typing import Any

import pytest

from stress.bugs import BUGS
from stress.config import Pattern, from_sources
from stress.config.loading import ConfigError


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            {"scenario": "kvm-page-table-test", "pattern": "zipf"},
            "--pattern: scenario kvm-page-table-test accesses memory as the selftest does; leave it out",
        ),
        (
            {"scenario": "migration", "get-clears": True},
            "--get-clears: scenario migration does nothing with it; use scenario dirty-log-perf",
        ),
        ({"overlap": True}, "--overlap: scenario rebuild does nothing with it; use scenario dirty-log-perf"),
        (
            {"scenario": "dirty-log-perf", "clear-chunk": "4K"},
            "--clear-chunk: KVM clears multiples of 64 pages, 256K, not 4096 bytes",
        ),
        (
            {"scenario": "dirty-log-perf", "clear-chunk": "1M", "get-clears": True},
            "--clear-chunk: given together with get-clears, which leaves nothing to clear; give one of them",
        ),
    ],
)
def test_what_would_do_nothing_is_refused(options: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        from_sources(None, options)
    assert caught.value.problems == (expected,)


def test_a_bugs_pattern_gives_way_to_a_scenario_without_one() -> None:
    bug = "harvest-without-tlbi"
    assert BUGS[bug].settings["pattern"] == "uniform"
    assert from_sources(None, {"inject": bug, "scenario": "dirty-log-perf"}).pattern is Pattern.UNIFORM
    with pytest.raises(ConfigError, match=f"^--inject: {bug} cannot act in scenario kvm-page-table-test"):
        from_sources(None, {"inject": bug, "scenario": "kvm-page-table-test"})
