"""How split orders are written: names, lists of their own steps, and what is refused."""

from __future__ import annotations

import pytest

from stress.errors import UsageError
from stress.orders import SPLIT_STEPS, parse_order
from stress.splits import BUILD_FIRST, SPLIT_ORDERS, STEP_BITS, enumerate_split_orders, parse_split_order


def test_named_split_orders() -> None:
    assert {name: (",".join(order.steps), order.bbm_level) for name, order in SPLIT_ORDERS.items()} == {
        "build-first": ("build,invalidate,tlbi-ipa,link", 0),
        "break-first": ("invalidate,tlbi-ipa,build,link", 0),
        "split-bbml2": ("build,link,tlbi-ipa", 2),
    }
    assert all(parse_split_order(f" {name} ") is order for name, order in SPLIT_ORDERS.items())
    assert all(order.provenance and order.description for order in SPLIT_ORDERS.values())


def test_a_list_keeps_its_text_as_name() -> None:
    order = parse_split_order(" build , link ")
    assert (order.name, order.steps, order.bbm_level) == ("build,link", ("build", "link"), 2)


def test_every_list_with_a_table_to_link_is_a_split_order() -> None:
    every = list(enumerate_split_orders())
    assert len(set(every)) == len(every) == 2 + 3 * 6 + 3 * 24 + 120
    assert all(parse_split_order(",".join(steps)).steps == steps for steps in every)


def test_compiled_code_reads_the_steps_from_one_word() -> None:
    word, found = BUILD_FIRST.word, []
    while word:
        found.append((word & (1 << STEP_BITS) - 1) - 1)
        word >>= STEP_BITS
    assert found == [step.code for step in BUILD_FIRST.steps]
    assert all(0 < parse_split_order(",".join(steps)).word < 1 << 63 for steps in enumerate_split_orders())


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "the split order is empty"),
        ("firstly", "unknown split order 'firstly'"),
        ("build,install,link", "split order 'build,install,link': unknown step 'install'"),
        ("build,link,build", "'build' appears twice"),
        ("invalidate,tlbi,link", "without 'build' no table takes the block's place"),
        ("build,invalidate", "without 'link' no table takes the block's place"),
    ],
)
def test_nonsense_is_refused(text: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason) as caught:
        parse_split_order(text)
    assert all(word in caught.value.remedy for word in (*SPLIT_ORDERS, *SPLIT_STEPS))


def test_a_rebuild_order_has_none_of_its_steps() -> None:
    with pytest.raises(UsageError, match="unknown step 'build'"):
        parse_order("build,install")
