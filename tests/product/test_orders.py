"""Orders: the named ones say what they must, and every way to write a wrong one is refused."""

from __future__ import annotations

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stress.errors import ExitCode, UsageError
from stress.orders import (
    INSTALLS,
    MAX_STEPS,
    NAMED_ORDERS,
    REBUILD_STEPS,
    STEPS,
    TEAR_DOWNS,
    Order,
    Step,
    enumerate_orders,
    parse_order,
    vocabulary,
)

NAMED = {
    "unmap-first": "invalidate,tlbi,unmap,clean,install",
    "block-first": "invalidate,tlbi,clean,install,unmap",
    "clean-first": "clean,invalidate,tlbi,install,unmap",
    "clean-unmapped-first": "clean-unmapped,invalidate,tlbi,install,unmap",
    "block-first-deferred": "invalidate,tlbi,clean,install,unmap-deferred",
    "clean-first-unlocked": "clean,invalidate,tlbi,install,unlock,unmap",
    "clean-unlocked": "clean,lock,invalidate,tlbi,install,unlock,unmap",
    "nt": "clean,install-nt,tlbi,clear-nt,unmap",
    "bbml2": "clean,install,tlbi,unmap",
}


def test_named_orders_have_the_published_steps() -> None:
    published = {name: ",".join(order.steps) for name, order in NAMED_ORDERS.items()}
    assert list(published.items()) == list(NAMED.items())
    assert all(order.name == name for name, order in NAMED_ORDERS.items())


@pytest.mark.parametrize("name", NAMED)
def test_a_name_gives_the_named_order(name: str) -> None:
    assert parse_order(f" {name} ") is NAMED_ORDERS[name]


def test_every_named_order_breaks_before_it_makes_unless_it_needs_feat_bbm() -> None:
    levels = {}
    for order in NAMED_ORDERS.values():
        index = order.steps.index
        (install,) = (step for step in order.steps if step in INSTALLS)
        (tear_down,) = (step for step in order.steps if step in TEAR_DOWNS)
        if order.bbm_level == 0:
            assert index(Step.INVALIDATE) < index(Step.TLBI) < index(install)
        else:
            assert Step.INVALIDATE not in order.steps
            assert index(install) < index(Step.TLBI)
        assert index(Step.TLBI) < index(tear_down)
        assert order.provenance
        assert order.description
        levels[order.name] = order.bbm_level
    assert {name: level for name, level in levels.items() if level} == {"nt": 1, "bbml2": 2}


@pytest.mark.parametrize(
    ("steps", "level"),
    [
        ("invalidate,tlbi,install", 0),
        ("install,invalidate", 2),  # the break comes too late
        ("install-nt,tlbi,clear-nt", 1),
        ("install-nt", 1),
        ("invalidate,install-nt,tlbi,clear-nt", 0),
        ("tlbi,install", 2),
    ],
)
def test_the_first_of_break_and_install_says_which_feat_bbm_is_needed(steps: str, level: int) -> None:
    assert parse_order(steps).bbm_level == level


def test_an_order_that_installs_nothing_needs_nothing() -> None:
    assert Order("half", (Step.CLEAN, Step.TLBI), "", "").bbm_level == 0


def test_codes_are_the_indices_that_compiled_code_uses() -> None:
    assert [step.code for step in STEPS] == list(range(len(STEPS)))
    written = [Step.INSTALL.code, Step.INVALIDATE.code]
    assert parse_order("install,invalidate").codes == (Step.LOCK.code, *written, Step.UNLOCK.code)
    assert len(REBUILD_STEPS) <= MAX_STEPS
    # Compiled code and stored results know these numbers.
    assert list(STEPS) == [
        "invalidate",
        "tlbi",
        "clean",
        "install",
        "unmap",
        "clean-unmapped",
        "install-nt",
        "clear-nt",
        "unmap-deferred",
        "tlbi-ipa",
        "lock",
        "unlock",
        "build",
        "link",
    ]


def test_every_step_is_described_in_one_line() -> None:
    assert all(step.facts.does.isprintable() and step.facts.does for step in STEPS)


@pytest.mark.parametrize("text", NAMED.values())
def test_a_list_keeps_its_text_as_name(text: str) -> None:
    assert parse_order(text).name == text


def test_spaces_in_a_list_do_not_matter() -> None:
    assert parse_order(" clean , install ") == parse_order("clean,install")


def test_every_list_that_can_be_executed_as_written_is_allowed_however_wrong() -> None:
    accepted = refused = 0
    for length in range(1, 5):
        for steps in permutations(REBUILD_STEPS, length):
            installs = [step for step in steps if step in ("install", "install-nt")]
            frees = [step for step in steps if step.startswith("unmap")]
            nt_set = "clear-nt" not in steps or "install-nt" in steps[: steps.index(Step.CLEAR_NT)]
            text = ",".join(steps)
            locked = steps
            if "lock" in steps:
                locked = locked[locked.index(Step.LOCK) + 1 :]
            if "unlock" in locked:
                locked = locked[: locked.index(Step.UNLOCK)]
            elsewhere = [step for step in steps if step not in locked and step not in ("lock", "unlock")]
            early = steps[: steps.index(Step.LOCK)] if "lock" in steps else ()
            placed = not ({"clean-unmapped", "invalidate", "install", "install-nt", "clear-nt"} & {*elsewhere})
            placed &= not any(step.startswith("unmap") or step == "unlock" for step in early)
            if len(installs) == 1 and len(frees) <= 1 and nt_set and placed:
                assert parse_order(text).steps == steps
                accepted += 1
            else:
                with pytest.raises(UsageError):
                    parse_order(text)
                refused += 1
    assert (accepted, refused) == (2859, 10485)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        ("  ", "empty"),
        ("firstly", "unknown order 'firstly'"),
        ("FIRSTLY", "unknown order"),
        ("invalidate,flush,install", "unknown step 'flush'"),
        ("install,", "unknown step ''"),
        (",", "unknown step ''"),
        ("install,tlbi,install", "'install' appears twice"),
        ("invalidate,tlbi", "without 'install'"),
        ("tlbi", "without 'install' or 'install-nt'"),
        ("install,tlbi,install-nt", "'install' and 'install-nt' install the block twice"),
        ("clear-nt,install", "'clear-nt' needs 'install-nt' before it"),
        ("clear-nt,install-nt", "'clear-nt' needs 'install-nt' before it"),
        ("install,unmap,unmap-deferred", "'unmap' and 'unmap-deferred' free the tables twice"),
        ("unmap-unlocked,install,unmap", "step 'unmap' appears twice"),
        ("unmap-unlocked,install,unmap-deferred", "'unmap' and 'unmap-deferred' free the tables twice"),
        ("invalidate,tlbi,unmap-unlocked,install", "'install' needs mmu_lock: put it before 'unlock'"),
        ("unlock,clean,lock,install", "'unlock' stands before 'lock'"),
        ("invalidate,lock,tlbi,install", "'invalidate' needs mmu_lock: put it behind 'lock'"),
        ("clean-unmapped,lock,install", "'clean-unmapped' needs mmu_lock: put it behind 'lock'"),
        ("unmap,lock,install", "'unmap' needs mmu_lock: put it behind 'lock'"),
        ("build,install", "unknown step 'build'"),
        ("install-nt,tlbi,unlock,clear-nt", "'clear-nt' needs mmu_lock: put it before 'unlock'"),
    ],
)
def test_nonsense_is_refused_with_the_vocabulary(text: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason) as caught:
        parse_order(text)
    assert caught.value.exit_code == ExitCode.USAGE
    assert all(word in caught.value.remedy for word in (*NAMED_ORDERS, *REBUILD_STEPS))
    assert caught.value.remedy == vocabulary()


@given(st.one_of(st.text(), st.lists(st.sampled_from([*STEPS, *NAMED, "", " "])).map(",".join)))
def test_any_text_is_an_order_or_refused_in_one_line(text: str) -> None:
    try:
        order = parse_order(text)
    except UsageError as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert parse_order(order.name) == order


def test_unmap_unlocked_is_a_spelling() -> None:
    order = parse_order("invalidate,tlbi,install,unmap-unlocked")
    assert order.name == "invalidate,tlbi,install,unmap-unlocked"
    assert order.steps == parse_order("invalidate,tlbi,install,unlock,unmap").steps


def test_mmu_lock_is_held_from_the_first_step_to_the_last_where_the_order_does_not_say() -> None:
    assert ",".join(parse_order("clean,install").executed) == "lock,clean,install,unlock"
    assert ",".join(parse_order("clean,lock,install").executed) == "clean,lock,install,unlock"
    assert ",".join(parse_order("install,unlock,unmap").executed) == "lock,install,unlock,unmap"
    for order in NAMED_ORDERS.values():
        assert order.executed[order.first :][: len(order.steps)] == order.steps


def test_261_orders_can_be_written_with_the_basic_steps() -> None:
    basic = (Step.INVALIDATE, Step.TLBI, Step.CLEAN, Step.INSTALL, Step.UNMAP)
    every = list(enumerate_orders(basic))
    assert len(every) == len(set(every)) == 261
    assert all(parse_order(",".join(steps)).steps == steps for steps in every)
