"""Every bug in every scenario either is refused, or is known to act there."""

from __future__ import annotations

from typing import Any

import pytest
from live import run_json

from stress.bugs import BUGS
from stress.config import Scenario, from_sources
from stress.errors import UsageError

#: Bug -> the scenarios, besides rebuild, in which it acts with its own settings.
REBUILDS = {"migration", "kvm-page-table-test", "dirty-log-perf"}
UNMAPS = {"thp", "kvm-page-table-test", "dirty-log-perf"}
ACTS = {
    "tlbi-one-ipa": {"rebuild", *REBUILDS},
    "leak-on-update": REBUILDS,
    "wrong-fault-level": {"migration", "dirty-log-perf"},
    "root-table-kept": {"rebuild", *REBUILDS},
    "entry-read-again": {"rebuild", *REBUILDS},
    "no-cmo": {"rebuild", *REBUILDS},
    "free-before-tlbi": {"rebuild", *REBUILDS},
    "no-break": {"rebuild", *REBUILDS},
    "nt-kept": {"rebuild", *REBUILDS},
    "missing-dsb": {"rebuild", "thp", *REBUILDS},
    "harvest-without-tlbi": {"migration", "dirty-log-perf"},
    "missing-tlbi": {"rebuild", "thp", *REBUILDS},
    "reference-kept": UNMAPS,
    "freed-twice": {"rebuild", *REBUILDS},
    "event-lost": {"rebuild", "thp", *REBUILDS},
    "no-grace": {"rebuild", *REBUILDS},
    "no-recheck": {"thp"},
    "freed-in-walk": UNMAPS,
    "table-level-hint": {"rebuild", *REBUILDS},
    "range-level-hint": UNMAPS,
    "batch-first-tlbi-only": {"rebuild", *REBUILDS},
    "range-scale": UNMAPS,
    "range-unaligned": {"rebuild", *REBUILDS},
    "no-local-tlbi": set(),
}
PAIRS = [(bug, str(scenario)) for bug in BUGS for scenario in Scenario]
#: Can act there by its configuration, but what it needs is rare in the selftest's programs: exit code 4 says so.
RARE = {("leak-on-update", "kvm-page-table-test"), *(("no-cmo", scenario) for scenario in REBUILDS)}


def test_every_bug_is_listed() -> None:
    assert ACTS.keys() == BUGS.keys()


@pytest.mark.parametrize(("bug", "scenario"), PAIRS)
def test_what_cannot_act_is_refused(bug: str, scenario: str) -> None:
    options = {"inject": bug, "scenario": scenario}
    if scenario in ACTS[bug]:
        assert from_sources(None, options).inject == bug
    else:
        with pytest.raises(UsageError, match=f"--inject: {bug} cannot act in scenario {scenario} as configured"):
            from_sources(None, options)


@pytest.mark.parametrize(
    ("bug", "options"),
    [
        ("no-cmo", {"fwb": True}),
        ("no-cmo", {"cmo": "per-fault"}),
        ("wrong-fault-level", {"scenario": "rebuild"}),
        ("wrong-fault-level", {"write-fraction": 0.0}),
        ("leak-on-update", {"write-fraction": 0.0}),
        ("freed-twice", {"order": "invalidate,tlbi,clean,install"}),
        ("no-grace", {"order": "block-first"}),
        ("no-recheck", {"order": "clean-first"}),
        ("no-recheck", {"order": "unmap-first"}),  # which holds mmu_lock all the time
        ("no-recheck", {"order": "block-first", "yield-every": 64}),  # whose block stands by then
        ("no-recheck", {"rebuilder": "hypervisor"}),
        ("range-scale", {"blocks": 4}),
        ("range-unaligned", {"rebuilder": "hypervisor"}),
        ("no-local-tlbi", {"locking": "shared", "vcpus": 2, "scenario": "migration"}),
        ("no-break", {"scenario": "kvm-page-table-test", "backing": "anonymous", "block-size": "2M"}),
    ],
)
def test_options_that_leave_a_bug_no_place_are_refused(bug: str, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"--inject: {bug} (cannot act|changes nothing) in"):
        from_sources(None, {"inject": bug, **options})


def test_a_bug_that_never_acted_is_no_verdict() -> None:
    document = run_json("run", "--inject", "missing-dsb", "--scenario", "thp", "--duration", "1ns")
    assert (document["verdict"], document["exit"], document["injected"]["acted"]) == ("nothing-tested", 4, 0)
    assert "the bug was never exercised: nothing reached the place of missing-dsb" in document["untested"]


@pytest.mark.parametrize("clearing", [(), ("-g",), ("--clear-chunk", "256K")])
def test_a_harvest_without_tlbi_is_caught_in_dirty_log_perf(clearing: tuple[str, ...]) -> None:
    document = run_json(
        "run", "--inject", "harvest-without-tlbi", "--scenario", "dirty-log-perf", "--passes", "1", "-b", "2M",
        *clearing,
    )  # fmt: skip
    assert (document["verdict"], document["exit"]) == ("violations", 1)
    assert [violation["kind"] for violation in document["violations"]] == ["lost-dirty"]
    assert document["injected"]["acted"] > 0


@pytest.mark.soak
@pytest.mark.parametrize(("bug", "scenario"), [pair for pair in PAIRS if pair[1] in ACTS[pair[0]]])
def test_what_can_act_acts(bug: str, scenario: str) -> None:
    document = run_json("run", "--inject", bug, "--scenario", scenario, "--duration", "2s")
    if (bug, scenario) in RARE:
        assert document["injected"]["acted"] or document["exit"] == 4
    else:
        assert document["injected"]["acted"] > 0
