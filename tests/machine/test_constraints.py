"""What a search makes of verdicts: classes of orders, and constraints in words."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest
from basic_orders import BASIC, is_correct

from stress.errors import UsageError
from stress.orders import Step, enumerate_orders
from stress.search import classes
from stress.search.classes import Steps, classes_of, names_of, parse_vocabulary, program, written
from stress.search.constraints import Constraint, Literal, learn
from stress.search.verdicts import REFUTED, UNDECIDED, Verdict, Verdicts

FOUR: Final = (Step.INVALIDATE, Step.TLBI, Step.INSTALL, Step.UNMAP)
BOUNDS: Final = {"fwb": True, "vcpus": 1, "accesses": 1}


def text(found: list[Constraint]) -> set[str]:
    return {each.text for each in found}


def test_the_constraints_of_a_rule_are_its_words() -> None:
    every = list(enumerate_orders(BASIC))
    right = [steps for steps in every if is_correct(steps)]
    wrong = [steps for steps in every if not is_correct(steps)]
    found = learn(wrong, right)
    assert text(found) == {
        "invalidate before tlbi",
        "tlbi before install",
        "tlbi before unmap",
        "clean before install",
        *(f"{step} is there" for step in BASIC if step is not Step.INSTALL),
    }
    for steps in every:
        assert any(each.refutes(steps) for each in found) != is_correct(steps)


def test_a_constraint_may_have_a_premise() -> None:
    """As where FEAT_BBM level 2 allows to leave the break out."""
    every = list(enumerate_orders(FOUR))

    def is_right(steps: Steps) -> bool:
        at = {step: steps.index(step) for step in steps}
        if len(at) < 3 or Step.UNMAP not in at or Step.TLBI not in at or at[Step.UNMAP] < at[Step.TLBI]:
            return False
        if Step.INVALIDATE in at:
            return at[Step.INVALIDATE] < min(at[Step.TLBI], at[Step.INSTALL])
        return at[Step.INSTALL] < at[Step.TLBI]

    found = learn([each for each in every if not is_right(each)], [each for each in every if is_right(each)])
    assert "without invalidate: install before tlbi" in text(found)
    for steps in every:
        assert any(each.refutes(steps) for each in found) != is_right(steps)


def test_nothing_is_learned_of_what_was_proved() -> None:
    assert learn([], [FOUR]) == []
    assert learn([FOUR], [FOUR[:2]]) != []
    assert not Constraint((Literal(Step.TLBI, Step.INSTALL),)).refutes(FOUR[::-1])


def test_programs_are_the_same_only_if_they_do_the_same() -> None:
    lock, unlock, clean = Step.LOCK, Step.UNLOCK, Step.CLEAN
    assert program(FOUR, fwb=True) == program((lock, *FOUR, unlock), fwb=True) == (lock, *FOUR, unlock)
    assert program((clean, *FOUR), fwb=True) == program(FOUR, fwb=True)
    assert program((clean, *FOUR), fwb=False) != program(FOUR, fwb=False)
    assert program((clean, lock, *FOUR), fwb=True) == (clean, lock, *FOUR, unlock), "it looks again"
    assert program((Step.TLBI, clean, lock, *FOUR[2:]), fwb=True)[:2] == (Step.TLBI, lock)
    assert written(program(FOUR, fwb=True)) == FOUR
    assert "block-first" in names_of(program(FOUR, fwb=True), fwb=True)
    assert sum(classes_of(classes.BASIC, fwb=False).values()) == 1808
    assert len(classes_of(classes.BASIC, fwb=False)) == 674


@pytest.mark.parametrize("text", ["instal", "tlbi", "", ",", ",".join(Step)])
def test_a_vocabulary_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_vocabulary(text)


def test_verdicts_are_kept(tmp_path: Path) -> None:
    verdict = Verdict(REFUTED, ("bbm",), "", 3, 5, {"choices": [1]}, 2)
    kept = Verdicts(tmp_path)
    kept.put("explore", FOUR, BOUNDS, verdict)
    kept.put("explore", FOUR[:3], BOUNDS, Verdict(UNDECIDED))
    [file] = tmp_path.iterdir()
    file.write_bytes(file.read_bytes() + b'{"key": "cut off')
    again = Verdicts(tmp_path)
    assert again.get("explore", FOUR, BOUNDS) == verdict
    assert again.get("explore", FOUR[:3], BOUNDS) is None
    assert again.get("explore", FOUR, {**BOUNDS, "accesses": 2}) is None
    assert again.get("screen", FOUR, BOUNDS) is None
