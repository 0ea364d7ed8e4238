"""A search: what it drops without looking is wrong, what it calls right is proved, and its constraints are true."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import pytest

from stress import interrupt
from stress.orders import NAMED_ORDERS, Step
from stress.search import classes
from stress.search.classes import Steps, classes_of, program, written
from stress.search.crew import Crew
from stress.search.hunt import Found, Hunt
from stress.search.sheet import document
from stress.search.verdicts import OPEN, PROVED, REFUTED, Verdicts
from stress.shm.mode import JIT_DISABLED

if not JIT_DISABLED:
    pytest.skip("compiled code cannot be stopped between two accesses", allow_module_level=True)

from stress.search.judging import explore, screen
from stress.verify.hooks import Hooks
from stress.verify.replay import follow, read, stage

FOUR: Final = (Step.INVALIDATE, Step.TLBI, Step.INSTALL, Step.UNMAP)
SMALL: Final = {"fwb": True, "guest_caches": True, "bbm_level": 0, "batch": 1, "vcpus": 1, "accesses": 1}
NO_FWB: Final = {**SMALL, "fwb": False, "guest_caches": False, "accesses": 2}


def searched(directory: Path, vocabulary: Steps, limits: dict[str, Any]) -> tuple[Found, dict[str, int]]:
    """What was found, and how many orders had to be looked at for it."""
    looked: dict[str, int] = {}

    def tell(what: str, done: int, of: int, left_s: float | None) -> None:
        looked[what] = max(looked.get(what, 0), of)

    with Crew(1) as crew:
        return Hunt(crew, Verdicts(directory), None, tell).search(vocabulary, limits), looked


def check(found: Found, directory: Path) -> None:
    """Constraints admit exactly what was proved, and every counterexample replays."""
    assert found.complete
    result = document(found, 1)
    assert not result["undecided"]
    constraints = [witness.constraint for witness in found.witnesses]
    for steps in found.judged(PROVED):
        assert not any(each.refutes(steps) for each in constraints)
    for each in result["refuted"]:
        assert each["constraints"], each["steps"]
        assert each["counterexample"] or each["begins_like"]
    for each in [*result["constraints"], *result["refuted"]]:
        if each["counterexample"]:
            (directory / "example").write_text(json.dumps(each["counterexample"]))
            [(order, example)] = read(directory / "example")
            with Hooks() as hooks:
                kinds = follow(stage(hooks, order, example), example.choices).kinds
            assert set(example.kinds) <= kinds


@pytest.mark.thorough
def test_a_small_search(tmp_path: Path) -> None:
    found, _ = searched(tmp_path, FOUR, SMALL)
    check(found, tmp_path)
    invalidate, tlbi, install, unmap = FOUR
    assert [*map(written, found.judged(PROVED))] == [FOUR, (invalidate, tlbi, unmap, install)]
    assert all(witness.alone and len(written(witness.steps)) >= 3 for witness in found.witnesses)
    again, looked = searched(tmp_path, FOUR, SMALL)
    assert set(looked.values()) == {0}
    first, second = (
        json.dumps({**document(each, 1), "elapsed_ns": 0, "verdicts_recalled": 0}) for each in (found, again)
    )
    assert first == second


@pytest.mark.thorough
def test_at_level_3_a_search_finds_make_then_flush(tmp_path: Path) -> None:
    """Nobody proposed an order: the break may be left out, and so may its TLBI, but not the tables' one."""
    found, _ = searched(tmp_path, FOUR, {**SMALL, "bbm_level": 3})
    check(found, tmp_path)
    invalidate, tlbi, install, unmap = FOUR
    assert {*map(written, found.judged(PROVED))} == {
        (install, tlbi, unmap),
        (invalidate, install, tlbi, unmap),
        FOUR,
        (invalidate, tlbi, unmap, install),
    }


@pytest.mark.thorough
@pytest.mark.parametrize("limits", [NO_FWB, {**SMALL, "bbm_level": 2}])
def test_what_is_dropped_for_its_beginning_is_wrong(tmp_path: Path, limits: dict[str, Any]) -> None:
    """A sample: each is played by itself."""
    with Crew(1) as crew:
        hunt = Hunt(crew, Verdicts(tmp_path), None, lambda *_: None)
        found = Found(classes.BASIC, limits, classes_of(classes.BASIC, limits["fwb"]))
        hunt._screen(found)
    assert len(found.beginnings) > 60
    for steps in [*found.beginnings][::12]:
        assert screen(steps, limits).judgement == REFUTED, steps
    named = {
        program(order.steps, limits["fwb"]) for order in NAMED_ORDERS.values() if {*order.steps} <= {*classes.BASIC}
    }
    assert {steps for steps in named if steps in found.verdicts} - {*found.judged(OPEN)} <= {
        program(NAMED_ORDERS["bbml2"].steps, limits["fwb"])
    }


def test_an_interrupted_search_keeps_what_it_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Crew(1) as crew:
        hunt = Hunt(
            crew, Verdicts(tmp_path), None, lambda *_: monkeypatch.setattr(interrupt.requested, "is_set", lambda: True)
        )
        found = hunt.search(FOUR, SMALL)
    assert not found.complete
    assert not found.judged(PROVED)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("limits", [NO_FWB, {**NO_FWB, "fwb": True, "guest_caches": True}, {**NO_FWB, "bbm_level": 2}])
def test_every_order_of_the_basic_steps(tmp_path: Path, limits: dict[str, Any]) -> None:
    found, _ = searched(tmp_path, classes.BASIC, limits)
    check(found, tmp_path)
    constraints = [witness.constraint for witness in found.witnesses]
    for steps in found.classes:
        wrong = any(each.refutes(steps) for each in constraints)
        verdict = screen(steps, limits) if steps in found.beginnings else found.verdicts[steps]
        if verdict.judgement == OPEN:
            verdict = explore(steps, limits, None)
        assert (verdict.judgement == REFUTED) == wrong, steps
    lock, unlock, clean, unmap = Step.LOCK, Step.UNLOCK, Step.CLEAN, Step.UNMAP
    right = {*found.judged(PROVED)}
    clean_unlocked = program(NAMED_ORDERS["clean-unlocked"].steps, limits["fwb"])
    assert clean_unlocked in right
    assert clean_unlocked[:2] == (clean, lock)
    assert clean_unlocked[-2:] == (unlock, unmap)
    assert program(NAMED_ORDERS["block-first"].steps, limits["fwb"]) in right
    assert program(NAMED_ORDERS["clean-first"].steps, limits["fwb"]) in right
