"""The catalogue of bugs: what each says, and what it does to the steps of an order."""

from __future__ import annotations

from dataclasses import replace

import pytest

from stress import bugs
from stress.bugs import BUGS, Need
from stress.config import from_sources
from stress.orders import BLOCK_FIRST, NAMED_ORDERS, TEAR_DOWNS, Step, parse_order
from stress.shm.accounts import Kind

FLAGS = {
    "entry-read-again": bugs.ENTRY_READ_AGAIN,
    "leak-on-update": bugs.LEAK_ON_UPDATE,
    "wrong-fault-level": bugs.WRONG_FAULT_LEVEL,
    "root-table-kept": bugs.ROOT_TABLE_KEPT,
    "missing-dsb": bugs.MISSING_DSB,
    "harvest-without-tlbi": bugs.HARVEST_WITHOUT_TLBI,
    "missing-tlbi": bugs.MISSING_TLBI,
    "reference-kept": bugs.REFERENCE_KEPT,
    "freed-twice": bugs.FREED_TWICE,
    "event-lost": bugs.EVENT_LOST,
    "no-grace": bugs.NO_GRACE,
    "no-recheck": bugs.NO_RECHECK,
    "no-cmo": bugs.NO_CMO,
    "freed-in-walk": bugs.FREED_IN_WALK,
    "table-level-hint": bugs.TABLE_LEVEL_HINT,
    "range-level-hint": bugs.RANGE_LEVEL_HINT,
    "batch-first-tlbi-only": bugs.FIRST_OF_BATCH,
    "range-scale": bugs.RANGE_SCALE,
    "range-unaligned": bugs.RANGE_UNALIGNED,
    "no-local-tlbi": bugs.NO_LOCAL_TLBI,
}
REWRITES = ("tlbi-one-ipa", "free-before-tlbi", "no-break", "nt-kept")

#: Bug, order -> the steps with the bug in them; the same steps where there is nothing to spoil.
WRONG = {
    ("tlbi-one-ipa", "unmap-first"): "invalidate,tlbi-ipa,unmap,clean,install",
    ("tlbi-one-ipa", "nt"): "clean,install-nt,tlbi-ipa,clear-nt,unmap",
    ("free-before-tlbi", "unmap-first"): "invalidate,unmap,tlbi,clean,install",
    ("free-before-tlbi", "block-first"): "invalidate,unmap,tlbi,clean,install",
    ("free-before-tlbi", "clean-first"): "clean,invalidate,unmap,tlbi,install",
    ("free-before-tlbi", "block-first-deferred"): "invalidate,unmap,tlbi,clean,install",
    ("free-before-tlbi", "clean-first-unlocked"): "clean,invalidate,unmap,tlbi,install,unlock",
    ("free-before-tlbi", "bbml2"): "clean,install,unmap,tlbi",
    ("free-before-tlbi", "invalidate,tlbi,install"): "invalidate,tlbi,install",
    ("free-before-tlbi", "invalidate,install,unmap"): "invalidate,install,unmap",
    ("no-break", "block-first"): "tlbi,clean,install,unmap",
    ("no-break", "bbml2"): "clean,install,tlbi,unmap",
}


def test_every_bug_is_either_one_bit_or_wrong_steps() -> None:
    assert set(BUGS) == {*FLAGS, *REWRITES}
    assert {name: bug.flag for name, bug in BUGS.items() if bug.flag} == FLAGS
    assert sorted(FLAGS.values()) == [1 << bit for bit in range(len(FLAGS))]
    for order in NAMED_ORDERS.values():
        assert all(BUGS[name].rewrite(order) is order for name in FLAGS)
        assert all(BUGS[name].affects(order) for name in FLAGS.keys() - {"no-grace", "no-recheck"})
        late = ("block-first-deferred", "clean-first-unlocked", "clean-unlocked")
        assert BUGS["no-grace"].affects(order) is (order.name in late)
        assert BUGS["no-recheck"].affects(order) is (order.name in ("clean-unlocked", "unmap-first"))


def test_every_kind_of_violation_has_a_bug_that_shows_it() -> None:
    assert {bug.kinds[0] for bug in BUGS.values()} == {kind.label for kind in Kind}


def test_every_bug_says_what_it_is_in_one_line_each() -> None:
    kinds: set[str] = set()
    for name, bug in BUGS.items():
        assert bug.name == name
        for text in (bug.source, bug.effect):
            assert text
            assert text.isprintable()
        assert bug.kinds
        kinds.update(bug.kinds)
    assert {"tlb-conflict", "table-leak", "endless-fault", "not-at-poc", "lost-dirty"} <= kinds


@pytest.mark.parametrize(("name", "order"), WRONG)
def test_the_wrong_steps(name: str, order: str) -> None:
    right, bug = parse_order(order), BUGS[name]
    wrong = bug.rewrite(right)
    assert ",".join(wrong.steps) == WRONG[name, order]
    assert replace(wrong, steps=right.steps) == right  # the same name and story
    assert bug.affects(right) is (wrong.steps != right.steps)
    assert bug.rewrite(wrong).steps == wrong.steps


def test_every_rewrite_spoils_every_order_that_has_what_it_spoils() -> None:
    spoilt = 0
    for order in NAMED_ORDERS.values():
        steps = order.steps
        expected = {
            "tlbi-one-ipa": Step.TLBI in steps,
            "free-before-tlbi": Step.TLBI in steps and any(step in TEAR_DOWNS for step in steps),
            "no-break": Step.INVALIDATE in steps,
            "nt-kept": Step.CLEAR_NT in steps,
        }
        assert {name: BUGS[name].affects(order) for name in REWRITES} == expected
        spoilt += sum(expected.values())
    # nt and bbml2 have no break to leave out, and nt alone has nT to keep.
    assert spoilt == 3 * len(NAMED_ORDERS) - 2 + 1


@pytest.mark.parametrize("name", [name for name, bug in BUGS.items() if Need.EVERY_FAULT not in bug.needs])
def test_a_bug_brings_the_settings_that_show_it(name: str) -> None:
    config = from_sources(None, {"inject": name})
    bug = config.bug
    assert bug is BUGS[name]
    assert config.block_size in (2 << 20, 32 << 20), "small"
    assert config.dwell_ns <= 4_000_000
    assert config.duration_ns == 3_000_000_000
    settings = dict(bug.settings)
    order = settings.pop("order", "block-first")
    assert from_sources(None, {**settings, "inject": name, "order": order}) == config
    (executed,) = config.parsed_orders
    assert executed.name == order
    assert executed == bug.rewrite(NAMED_ORDERS[executed.name])


def test_without_a_bug_the_steps_are_the_orders_own() -> None:
    config = from_sources()
    assert config.bug is None
    assert config.parsed_orders == (BLOCK_FIRST,)
