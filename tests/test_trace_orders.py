"""The checker of casemate traces and our oracle agree about every order that can be written, each by its own rules."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from casemate_rules import judge
from machines import ALL, SHAPES, block_gfn, rebuild_block, small_machine, split_block, violations
from test_order_outcomes import ALPHABETS, orders_of, outcome
from traces import TRACED, lines_of, trace_of, verdict

from stress.bugs import BUGS
from stress.kernels.notifier import unmap_memslots
from stress.kernels.rebuild import DONE
from stress.kernels.split import populate
from stress.kernels.teardown import reap
from stress.orders import BLOCK_FIRST, NAMED_ORDERS, Step, parse_order
from stress.shm.layout import Machine
from stress.shm.traced import W_KIND, Traced
from stress.trace.casemate import encoded

Steps = tuple[Step, ...]
FEW = ALL // 64  # pages of a block that are mapped: 8 of 512


def rebuilt(steps: Steps, granule: int = 4096, block_size: int = 2 << 20, share: int = FEW, **more: Any) -> Machine:
    """A machine on which a block was mapped, split and rebuilt, and then all was unmapped."""
    s = small_machine(granule, block_size, **{**TRACED, **more})
    assert populate(s, s.geo.hypervisor, block_gfn(s.geo, 1)) == DONE
    assert split_block(s, 0, share) == DONE
    assert rebuild_block(s, 0, steps) == DONE
    reap(s, s.geo.hypervisor)
    unmap_memslots(s, s.geo.hypervisor)
    return s


@pytest.mark.parametrize("alphabet", [name for name in ALPHABETS if name != "nT"])
def test_checker_and_oracle_agree(alphabet: str) -> None:
    verdicts = []
    for steps in orders_of(*ALPHABETS[alphabet]):
        found, _ = outcome(steps, 0, 1)
        wrong = verdict(rebuilt(steps))
        # A leaked table is no matter of translations.
        assert bool(wrong) == bool(found.keys() - {"table-leak"}), (steps, wrong, found)
        verdicts.append(bool(wrong))
    assert {True, False} == set(verdicts)


@pytest.mark.parametrize(
    ("steps", "what"),
    [
        ("tlbi,install,unmap", "valid->valid"),
        ("clean,install", "valid->valid"),
        ("install,tlbi,unmap", "valid->valid"),
        ("invalidate,install", "invalid unclean->valid"),
        ("invalidate,install,tlbi,unmap", "invalid unclean->valid"),
        ("invalidate,tlbi-ipa,install,unmap", "invalid unclean->valid"),
        ("invalidate,unmap,tlbi,install", "children are written between the invalidate and the TLBI"),
        ("invalidate,unmap-deferred,tlbi,install", "children are written between the invalidate and the TLBI"),
        ("invalidate,install,unmap-unlocked", "invalid unclean->valid"),
        ("unmap,invalidate,tlbi,install", "a table is released before its parent is clean"),
    ],
)
def test_what_the_checker_says_of_a_wrong_order(steps: str, what: str) -> None:
    assert verdict(rebuilt(parse_order(steps).steps)).startswith(what)


@pytest.mark.parametrize(("granule", "block_size"), SHAPES)
def test_named_orders_that_break_pass_on_every_geometry(granule: int, block_size: int) -> None:
    for order in NAMED_ORDERS.values():
        s = rebuilt(order.steps, granule, block_size, FEW if block_size < 1 << 30 else FEW >> 9)
        wrong = verdict(s)
        # A checker of the base architecture knows no FEAT_BBM.
        assert wrong.startswith("valid->valid") if order.bbm_level else wrong == "", order.name
        assert (violations(s) == {}) == (order.bbm_level == 0)


@pytest.mark.parametrize("bug", ["tlbi-one-ipa", "free-before-tlbi", "no-break"])
def test_bugs_in_the_steps_are_seen(bug: str) -> None:
    assert verdict(rebuilt(BUGS[bug].rewrite(BLOCK_FIRST).steps)) != ""


def test_a_missing_dsb_is_seen() -> None:
    wrong = verdict(rebuilt(BLOCK_FIRST.steps, inject=BUGS["missing-dsb"].flag))
    assert wrong.startswith("invalid unclean->valid")


def test_a_full_trace_is_a_prefix() -> None:
    whole = lines_of(rebuilt(BLOCK_FIRST.steps))
    part = lines_of(rebuilt(BLOCK_FIRST.steps, trace_rows=20))
    assert len(part) < len(whole)
    assert part == whole[: len(part)]


def test_what_follows_a_row_that_was_never_completed_is_left_out() -> None:
    s = rebuilt(BLOCK_FIRST.steps)
    whole = lines_of(s)
    s.trace[20, W_KIND] = 0  # its writer was killed
    part = lines_of(s)
    assert 15 < len(part) < len(whole)
    assert part == whole[: len(part)]


def test_it_ends_with_the_last_rebuild_asked_for() -> None:
    ended = lines_of(rebuilt(BLOCK_FIRST.steps, trace_rebuilds=1))
    whole = lines_of(rebuilt(BLOCK_FIRST.steps))
    assert ended == whole[: len(ended)]
    assert ended[-1].startswith("(unlock ")
    assert sum("ipas2e1is" in line for line in ended) == 1, "that of the split; unmapping is left out"
    assert sum("ipas2e1is" in line for line in whole) > 1


def test_an_untraced_machine_keeps_nothing() -> None:
    s = rebuilt(BLOCK_FIRST.steps, trace_rows=0)
    assert s.trace.size == 0
    assert verdict(s) == ""
    assert len(lines_of(s)) == 15


def test_a_change_without_the_lock_is_seen() -> None:
    data = trace_of(rebuilt(BLOCK_FIRST.steps))
    data.changes = data.changes[~np.isin(data.changes[:, W_KIND], [Traced.LOCK, Traced.UNLOCK])]
    assert judge(b"".join(encoded(data)).decode().splitlines()).startswith("written without the root's lock")
