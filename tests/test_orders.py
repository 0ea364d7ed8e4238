"""Orders: the named ones say what they must, and every way to write a wrong one is refused."""

from __future__ import annotations

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stress.errors import ExitCode, UsageError
from stress.orders import MAX_STEPS, NAMED_ORDERS, STEPS, Step, parse_order, vocabulary

NAMED = {
    "unmap-first": "invalidate,tlbi,unmap,clean,install",
    "block-first": "invalidate,tlbi,clean,install,unmap",
    "clean-first": "clean,invalidate,tlbi,install,unmap",
}


def test_named_orders_have_the_published_steps() -> None:
    assert {name: ",".join(order.steps) for name, order in NAMED_ORDERS.items()} == NAMED


@pytest.mark.parametrize("name", NAMED)
def test_a_name_gives_the_named_order(name: str) -> None:
    assert parse_order(f" {name} ") is NAMED_ORDERS[name]


def test_every_named_order_breaks_before_it_makes() -> None:
    for order in NAMED_ORDERS.values():
        index = order.steps.index
        assert index(Step.INVALIDATE) < index(Step.TLBI) < index(Step.INSTALL)
        assert index(Step.TLBI) < index(Step.UNMAP)
        assert order.provenance
        assert order.description


def test_codes_are_the_indices_that_compiled_code_uses() -> None:
    assert [step.code for step in STEPS] == list(range(len(STEPS)))
    assert parse_order("install,invalidate").codes == (Step.INSTALL.code, Step.INVALIDATE.code)
    assert len(STEPS) <= MAX_STEPS


def test_every_step_is_described_in_one_line() -> None:
    assert all(step.description and "\n" not in step.description for step in STEPS)


@pytest.mark.parametrize("text", NAMED.values())
def test_a_list_keeps_its_text_as_name(text: str) -> None:
    assert parse_order(text).name == text


def test_spaces_in_a_list_do_not_matter() -> None:
    assert parse_order(" clean , install ") == parse_order("clean,install")


def test_every_list_with_install_is_allowed_however_wrong() -> None:
    accepted = 0
    for length in range(1, len(STEPS) + 1):
        for steps in permutations(STEPS, length):
            text = ",".join(steps)
            if Step.INSTALL in steps:
                assert parse_order(text).steps == steps
                accepted += 1
            else:
                with pytest.raises(UsageError, match="without 'install'"):
                    parse_order(text)
    assert accepted == 261  # of the 325 lists without repetition


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        ("  ", "empty"),
        ("firstly", "unknown order 'firstly'"),
        ("UNMAP-FIRST", "unknown order"),
        ("invalidate,flush,install", "unknown step 'flush'"),
        ("install,", "unknown step ''"),
        (",", "unknown step ''"),
        ("block-first,install", "unknown step 'block-first'"),
        ("install,tlbi,install", "'install' appears twice"),
        ("invalidate,tlbi", "without 'install'"),
        ("tlbi", "without 'install'"),
    ],
)
def test_nonsense_is_refused_with_the_vocabulary(text: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason) as caught:
        parse_order(text)
    assert caught.value.exit_code == ExitCode.USAGE
    assert all(word in caught.value.remedy for word in (*NAMED_ORDERS, *STEPS))
    assert caught.value.remedy == vocabulary()


@given(st.one_of(st.text(), st.lists(st.sampled_from([*STEPS, *NAMED, "", " "])).map(",".join)))
def test_any_text_is_an_order_or_refused_in_one_line(text: str) -> None:
    try:
        order = parse_order(text)
    except UsageError as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert parse_order(order.name) == order
