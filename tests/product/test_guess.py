"""Guesses at what was meant: the nearest name, and only names that are as near."""

from __future__ import annotations

import pytest

from stress.bugs import BUGS
from stress.errors import UsageError
from stress.guess import did_you_mean
from stress.orders import NAMED_ORDERS, STEPS, parse_order, vocabulary


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("blok-first", "block-first"),
        ("BLOCK_FIRST", "block-first"),
        ("unmap-frist", "unmap-first"),
        ("block-first-defered", "block-first-deferred"),
        ("instal,unmap", None),
        ("x", None),
        ("", None),
        ("x" * 100_000, None),
    ],
)
def test_orders(word: str, meant: str | None) -> None:
    assert did_you_mean(word, NAMED_ORDERS, "-") == (f"did you mean {meant}?" if meant else "-")


def test_two_names_as_near() -> None:
    assert did_you_mean("no-c", ("no-cc", "no-cd", "yes"), "-") == "did you mean no-cd or no-cc?"


@pytest.mark.parametrize("names", [tuple(NAMED_ORDERS), tuple(BUGS), STEPS])
def test_every_name_with_a_letter_missing_is_found(names: tuple[str, ...]) -> None:
    for name in filter(lambda name: len(name) > 4, names):
        for place in range(len(name)):
            assert name in did_you_mean(name[:place] + name[place + 1 :], names, "")


def test_an_order_nearly_right_is_refused_with_what_was_meant_not_with_the_vocabulary() -> None:
    for text, remedy in {
        "blok-first": "did you mean block-first?",
        "invalidat,tlbi,install": "did you mean invalidate?",
        "instal": "did you mean install?",
        "install-blok": "did you mean install or install-nt?",
        "clean,blok-first": "did you mean block-first?",
        "clean,block-first": "name it alone, or write its steps, invalidate,tlbi,clean,install,unmap",
        "firstly": vocabulary(),
    }.items():
        with pytest.raises(UsageError) as caught:
            parse_order(text)
        assert caught.value.remedy == remedy
