"""How violations are kept: counted exactly, the first few with their evidence, and fail-fast winds the run up."""

from __future__ import annotations

import pytest
from machines import evidence, small_machine, violations

from stress.kernels.oracle import broke_rule, report
from stress.live.evidence import violations as in_words
from stress.orders import Step
from stress.shm.accounts import AT_STEP, BY_RULE, V_READY, V_TIME_NS, Kind
from stress.shm.layout import Rings
from stress.shm.words import FINISH, STOP

EVIDENCE_ROWS = Rings().evidence_rows


@pytest.mark.parametrize("kind", list(Kind))
def test_each_kind_has_its_own_count_and_evidence(kind: Kind) -> None:
    s = small_machine(vcpus=2)
    s.states[2, AT_STEP] = Step.CLEAN.code
    report(s, int(kind), 1, 4711, 3, 0x123, 0x456, 9)
    assert violations(s) == {kind.label: 1}
    expected = {"who": 1, "gfn": 4711, "level": 3, "step": Step.CLEAN.code}
    assert evidence(s, kind) == expected | {"found": 0x123, "expected": 0x456, "detail": 9, "rule": 0}
    assert s.tally[BY_RULE + kind] == 0
    assert s.evidence[kind, 0, V_TIME_NS] > 0
    assert (s.evidence[:, :, V_READY] != 0).sum() == 1


def test_what_a_rule_told_is_counted_apart() -> None:
    s = small_machine()
    report(s, int(Kind.NOT_AT_POC), 0, 0, 3, 0, 0, 0)
    broke_rule(s, int(Kind.NOT_AT_POC), 0, 0, 3, 0, 0, 1)
    broke_rule(s, int(Kind.BBM), 0, 0, 3, 0, 0, 1)
    assert violations(s) == {"not-at-poc": 2, "bbm": 1}
    assert [evidence(s, Kind.NOT_AT_POC, n)["rule"] for n in range(2)] == [0, 1]
    assert [int(s.tally[BY_RULE + kind]) for kind in (Kind.NOT_AT_POC, Kind.BBM)] == [1, 1]
    found = {each.kind: (each.by_rule, [piece["found_by"] for piece in each.evidence]) for each in in_words(s, 0)}
    assert found == {"not-at-poc": (1, ["access", "rule"]), "bbm": (1, ["rule"])}


def test_all_are_counted_and_the_first_kept() -> None:
    s = small_machine()
    for n in range(EVIDENCE_ROWS + 5):
        report(s, int(Kind.BBM), 0, n, 1, 0, 0, 0)
    assert violations(s) == {"bbm": EVIDENCE_ROWS + 5}
    assert [evidence(s, Kind.BBM, n)["gfn"] for n in range(EVIDENCE_ROWS)] == list(range(EVIDENCE_ROWS))
    assert (s.evidence[:, :, V_READY] != 0).sum() == EVIDENCE_ROWS
    assert evidence(s, Kind.BBM)["step"] == -1, "outside any step"


@pytest.mark.parametrize("rebuilder", [0, 1, 2, 3])
def test_the_step_is_that_of_whoever_rebuilds(rebuilder: int) -> None:
    """The hypervisor or any vCPU: to whom the violation happens does not matter."""
    s = small_machine(vcpus=3)
    s.states[rebuilder, AT_STEP] = Step.TLBI.code
    report(s, int(Kind.STALE_TRANSLATION), 0, 0, 0, 0, 0, 0)
    assert evidence(s, Kind.STALE_TRANSLATION)["step"] == Step.TLBI.code
    s.states[rebuilder, AT_STEP] = -1
    report(s, int(Kind.STALE_TRANSLATION), 0, 0, 0, 0, 0, 0)
    assert evidence(s, Kind.STALE_TRANSLATION, 1)["step"] == -1


@pytest.mark.parametrize("fail_fast", [False, True])
def test_fail_fast_asks_the_run_to_end(fail_fast: bool) -> None:
    s = small_machine(fail_fast=fail_fast)
    assert s.control[FINISH] == 0
    report(s, int(Kind.REFCOUNT), 0, 0, 0, 0, 0, 0)
    assert s.control[FINISH] == fail_fast
    assert s.control[STOP] == 0, "the hypervisor still winds up in order"
