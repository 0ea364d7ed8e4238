"""What an order of steps leads to without any vCPU, by an oracle of its own, for every order that can be written.

Each wrong order is caught, and called what it is; no correct one is reported.
"""

from __future__ import annotations

from random import Random
from typing import Any, NamedTuple

import pytest
from basic_orders import BASIC, Steps, is_correct
from machines import (
    ALL,
    SHAPES,
    SMALL,
    block_gfn,
    block_leaf,
    evidence,
    fault,
    naive_audit,
    naive_tree,
    rebuild_block,
    run_audit,
    small_machine,
    split_block,
    violations,
)

from stress.arch import bbm
from stress.arch.descriptors import KIND, KIND_BROKEN_LEAF, REBUILD
from stress.arch.geometry import Geometry
from stress.kernels.codes import FREED_TOO_EARLY, POPULATION
from stress.kernels.entries import find
from stress.kernels.rebuild import DONE
from stress.kernels.split import write_unmapped
from stress.kernels.teardown import reap
from stress.orders import CLEANS, INSTALLS, NAMED_ORDERS, TEAR_DOWNS, Step, enumerate_orders, parse_order
from stress.shm.accounts import BY_RULE, R_FREED, T_FREED, Kind
from stress.shm.layout import Machine

pytestmark = pytest.mark.thorough

INVALIDATE, TLBI, CLEAN, INSTALL, UNMAP = Step.INVALIDATE, Step.TLBI, Step.CLEAN, Step.INSTALL, Step.UNMAP
INSTALL_NT, CLEAR_NT, TLBI_IPA = Step.INSTALL_NT, Step.CLEAR_NT, Step.TLBI_IPA
DEFERRED, CLEAN_UNMAPPED, LOCK, UNLOCK = Step.UNMAP_DEFERRED, Step.CLEAN_UNMAPPED, Step.LOCK, Step.UNLOCK


ALPHABETS = {
    "basic": BASIC,
    "nT": (INVALIDATE, TLBI, INSTALL_NT, CLEAR_NT, UNMAP),
    "deferred, one IPA": (INVALIDATE, TLBI, TLBI_IPA, INSTALL, DEFERRED),
    "unlock": (INVALIDATE, TLBI, INSTALL, UNLOCK, UNMAP),
    "lock": (LOCK, INVALIDATE, TLBI, CLEAN, INSTALL, UNMAP),
    "clean-unmapped": (INVALIDATE, TLBI, CLEAN_UNMAPPED, INSTALL, UNMAP),
}


def split_machine(granule: int, block_size: int, share: int, bbm_level: int = 0, **more: Any) -> Machine:
    """Block 0 split, block 1 mapped as a block."""
    s = small_machine(granule, block_size, bbm_level=bbm_level, **more)
    assert fault(s, block_gfn(s.geo, 1)) == POPULATION
    assert split_block(s, 0, share) == DONE
    assert violations(s) == {}
    return s


class Outcome(NamedTuple):
    """What an order leads to by itself."""

    violations: dict[str, int]
    left: str  # what its last store to the entry leaves there: "block", "nT block" or "nothing"


def outcome(steps: Steps, bbm_level: int, below: int, unclean: bool = False) -> Outcome:
    """What docs/architecture.md says of an order, by positions; ``unclean``: the host wrote what was not mapped."""
    at = {step: steps.index(step) for step in steps}
    [install] = [step for step in steps if step in INSTALLS]
    unlinked = min(at[step] for step in (INVALIDATE, install) if step in at)
    tlbi = at.get(TLBI, -1)  # one IPA's is never enough for a table
    found: dict[str, int] = {}

    # What needs no break needs no TLBI of one either.
    bbm_count = 0
    if bbm_level < (1 if install is INSTALL_NT else 2):
        bbm_count += not at.get(INVALIDATE, tlbi) < tlbi < at[install]
    left = "block" if install is INSTALL else "nT block"
    if INVALIDATE in at and at[install] < at[INVALIDATE]:
        left = "nothing"
    if CLEAR_NT in at:
        if bbm_level < 2:  # nT may go when no TLB can hold what the block replaced
            bbm_count += not unlinked < tlbi < at[CLEAR_NT]
        if at.get(INVALIDATE, -1) < at[CLEAR_NT]:
            left = "block"
    if bbm_count:
        found["bbm"] = int(bbm_count)
    if unclean and not any(at[step] < at[install] for step in CLEANS if step in at):
        found["not-at-poc"] = 1
    if left != "block":
        found["not-installed"] = 1
    tear_down = [at[step] for step in steps if step in TEAR_DOWNS]
    if not tear_down:
        found["table-leak"] = below
    elif not unlinked < tlbi < tear_down[0]:
        found["table-use-after-free"] = 1
    return Outcome(found, left)


def check_order(s: Machine, steps: Steps, bbm_level: int) -> dict[str, int]:
    """Run an order on a machine made by `split_machine` and compare with the oracle; its violations."""
    below = Geometry(1 << s.geo.granule_shift).tables_below(s.geo.block_level)
    unclean = bool(s.geo.poc_checked) and any(s.unclean)
    expected, left = outcome(steps, bbm_level, below, unclean)
    assert rebuild_block(s, 0, steps) == DONE
    assert reap(s, s.geo.hypervisor) == (DEFERRED in steps)
    by_rule = {kind: count for kind, count in expected.items() if kind != "table-leak"}
    assert violations(s) == by_rule, (steps, "told at the step, before anybody looks")
    run_audit(s)
    audited = dict(expected)
    if left == "nT block":
        audited["not-installed"] += 1  # and the audit meets it
    if "not-at-poc" in expected and left != "nothing" and not any(step in CLEANS for step in steps):
        audited["not-at-poc"] += 1
    assert violations(s) == audited, steps
    assert {kind.label: int(s.tally[BY_RULE + kind]) for kind in Kind if s.tally[BY_RULE + kind]} == by_rule
    leaves = naive_tree(s).leaves
    mapped = left != "nothing"
    assert leaves == [block_leaf(s.geo, 0)] * mapped + [block_leaf(s.geo, 1)]
    torn_down = any(step in TEAR_DOWNS for step in steps)
    assert s.records[1, R_FREED] + s.totals[0, T_FREED] == (below if torn_down else 0)
    index, level = find(s, s.geo.base_gfn, 3)
    assert level == s.geo.block_level
    if not mapped:
        word = int(s.tables[index])
        assert (KIND.take(word), REBUILD.take(word)) == (KIND_BROKEN_LEAF, 1)
    if torn_down:
        assert naive_audit(s) == [], "counts and pool are right whatever else is wrong"
    return expected


def correct_orders(bbm_level: int, tear_down: Step = UNMAP) -> set[Steps]:
    """The correct ones without their cleans, counted out by hand."""
    good: set[Steps] = {(INVALIDATE, TLBI, INSTALL, tear_down), (INVALIDATE, TLBI, tear_down, INSTALL)}
    if bbm_level >= 2:
        good |= {(INSTALL, TLBI, tear_down), (INVALIDATE, INSTALL, TLBI, tear_down)}
    return good


@pytest.mark.parametrize("bbm_level", [0, 1, 2, 3])
def test_every_basic_order(bbm_level: int) -> None:
    every = list(enumerate_orders(BASIC))
    assert len(every) == 261
    correct = []
    for steps in every:
        s = split_machine(4096, 2 << 20, ALL // 2, bbm_level)
        if not check_order(s, steps, bbm_level):
            correct.append(steps)
    # Nothing depends on when, or whether, memory that is clean is cleaned.
    good = correct_orders(bbm_level)
    assert correct == [steps for steps in every if tuple(step for step in steps if step not in CLEANS) in good]


@pytest.mark.parametrize(("granule", "block_size"), SMALL[:1])
def test_every_basic_order_where_the_guest_sees_what_is_at_the_poc(granule: int, block_size: int) -> None:
    """No FWB, caches off, half of the block never mapped and written by the VMM since: seven orders are right."""
    correct = []
    for steps in list(enumerate_orders(BASIC)):
        s = split_machine(granule, block_size, ALL // 2, fwb=False, guest_caches=False)
        assert write_unmapped(s, s.geo.hypervisor, s.geo.base_gfn) == DONE
        assert s.unclean[0] == 256
        if not check_order(s, steps, 0):
            correct.append(steps)
    assert correct == [steps for steps in list(enumerate_orders(BASIC)) if is_correct(steps)]
    assert len(correct) == 7


@pytest.mark.parametrize("bbm_level", [0, 1, 2, 3])
@pytest.mark.parametrize("alphabet", [name for name in ALPHABETS if name != "basic"])
def test_every_order_of_the_other_steps(alphabet: str, bbm_level: int) -> None:
    correct: set[Steps] = set()
    kinds: set[str] = set()
    for steps in list(enumerate_orders(ALPHABETS[alphabet])):
        s = split_machine(4096, 2 << 20, ALL // 2, bbm_level)
        found = check_order(s, steps, bbm_level)
        kinds |= found.keys()
        if not found:
            correct.add(tuple(step for step in steps if step not in (*CLEANS, TLBI_IPA, LOCK, UNLOCK)))
    # From level 2 on a rebuild, which changes nothing but a size, has no break to make.
    assert kinds == {"table-use-after-free", "table-leak", "not-installed"} | ({"bbm"} if bbm_level < 2 else set())
    match alphabet:
        case "nT":
            good: set[Steps] = {
                (INVALIDATE, TLBI, INSTALL_NT, CLEAR_NT, UNMAP),
                (INVALIDATE, TLBI, INSTALL_NT, UNMAP, CLEAR_NT),
                (INVALIDATE, TLBI, UNMAP, INSTALL_NT, CLEAR_NT),
            }
            if bbm_level >= 1:
                good |= {
                    (INSTALL_NT, TLBI, CLEAR_NT, UNMAP),
                    (INSTALL_NT, TLBI, UNMAP, CLEAR_NT),
                    # The block is broken, and made again without nT.
                    (INSTALL_NT, INVALIDATE, TLBI, CLEAR_NT, UNMAP),
                    (INSTALL_NT, INVALIDATE, TLBI, UNMAP, CLEAR_NT),
                    # The break is worth nothing: its TLBI comes later.
                    (INVALIDATE, INSTALL_NT, TLBI, CLEAR_NT, UNMAP),
                    (INVALIDATE, INSTALL_NT, TLBI, UNMAP, CLEAR_NT),
                    # Once the TLBI has taken the pages the block may be broken for nothing.
                    (INSTALL_NT, TLBI, INVALIDATE, CLEAR_NT, UNMAP),
                    (INSTALL_NT, TLBI, INVALIDATE, UNMAP, CLEAR_NT),
                    (INSTALL_NT, TLBI, UNMAP, INVALIDATE, CLEAR_NT),
                }
            if bbm_level >= 2:  # both sizes may be there with nT and without
                good |= {
                    (INSTALL_NT, CLEAR_NT, TLBI, UNMAP),
                    (INSTALL_NT, INVALIDATE, CLEAR_NT, TLBI, UNMAP),
                    (INVALIDATE, INSTALL_NT, CLEAR_NT, TLBI, UNMAP),
                }
            assert correct == good
        case "deferred, one IPA":
            assert correct == correct_orders(bbm_level, DEFERRED)
        case _:  # where mmu_lock is taken and given back decides nothing without others
            assert correct == correct_orders(bbm_level)


def test_named_orders_are_correct_from_their_level_on_and_not_below() -> None:
    for order in NAMED_ORDERS.values():
        for bbm_level in (0, 1, 2, 3):
            s = split_machine(4096, 2 << 20, ALL // 2, bbm_level)
            found = check_order(s, order.steps, bbm_level)
            assert found == ({} if bbm_level >= order.bbm_level else {"bbm": 1}), order.name


@pytest.mark.parametrize(("granule", "block_size"), SHAPES)
def test_random_orders_on_every_geometry(granule: int, block_size: int) -> None:
    random = Random(granule + block_size)
    every = [steps for alphabet in ALPHABETS.values() for steps in enumerate_orders(alphabet)]
    seen: set[str] = set()
    for steps in random.sample(every, 24):
        s = split_machine(granule, block_size, random.choice([0, ALL // 7, ALL // 2]))
        seen |= check_order(s, steps, 0).keys()
    assert seen == {"bbm", "table-use-after-free", "table-leak", "not-installed"}


@pytest.mark.parametrize(
    ("steps", "bbm_level", "kinds", "detail"),
    [
        ("invalidate,install", 0, {"bbm", "table-leak"}, bbm.NO_TLBI),
        ("tlbi,install,unmap", 0, {"bbm", "table-use-after-free"}, bbm.NO_BREAK_SIZE),
        ("clean,install", 0, {"bbm", "table-leak"}, bbm.NO_BREAK_SIZE),
        ("invalidate,unmap,tlbi,install", 0, {"table-use-after-free"}, None),
        ("unmap,invalidate,tlbi,install", 0, {"table-use-after-free"}, None),
        ("unmap-deferred,invalidate,tlbi,install", 0, {"table-use-after-free"}, None),
        ("invalidate,tlbi,install", 0, {"table-leak"}, None),
        ("install,tlbi,unmap", 0, {"bbm"}, bbm.NO_BREAK_SIZE),
        ("install,tlbi,unmap", 1, {"bbm"}, bbm.NO_BREAK_SIZE),
        ("install-nt,tlbi,clear-nt,unmap", 0, {"bbm"}, bbm.NO_BREAK_SIZE),
        ("install-nt,clear-nt,tlbi,unmap", 1, {"bbm"}, bbm.NT_CLEARED),
        ("tlbi,install-nt,clear-nt,unmap", 1, {"bbm", "table-use-after-free"}, bbm.NT_CLEARED),
        ("invalidate,install,tlbi,unmap", 0, {"bbm"}, bbm.NO_TLBI),
        ("invalidate,tlbi-ipa,install,unmap", 0, {"bbm", "table-use-after-free"}, bbm.NO_TLBI),
        ("invalidate,install,tlbi,unmap", 1, {"bbm"}, bbm.NO_TLBI),
        ("invalidate,install,tlbi,unmap", 2, set(), None),
        ("invalidate,install,unmap", 3, {"table-use-after-free"}, None),
        ("install-nt,invalidate,clear-nt,tlbi,unmap", 1, {"bbm"}, bbm.NT_CLEARED),
        ("invalidate,install,unmap-unlocked", 0, {"bbm", "table-use-after-free"}, bbm.NO_TLBI),
    ],
)
def test_what_a_wrong_order_is_called(steps: str, bbm_level: int, kinds: set[str], detail: int | None) -> None:
    s = split_machine(4096, 2 << 20, ALL, bbm_level)
    order = parse_order(steps)
    assert rebuild_block(s, 0, order.steps) == DONE
    reap(s, s.geo.hypervisor)
    run_audit(s)
    assert set(violations(s)) == kinds
    if detail is not None:
        [install] = [step for step in order.steps if step in INSTALLS]
        step = CLEAR_NT if detail == bbm.NT_CLEARED else install
        piece = evidence(s, Kind.BBM)
        assert (piece["detail"], piece["step"], piece["level"]) == (detail, step.code, 2)
        assert (piece["gfn"], piece["who"]) == (s.geo.base_gfn, s.geo.hypervisor)
    if "table-use-after-free" in kinds:
        [tear_down] = [step for step in order.steps if step in TEAR_DOWNS]
        piece = evidence(s, Kind.TABLE_USE_AFTER_FREE)
        assert (piece["detail"], piece["step"]) == (FREED_TOO_EARLY, tear_down.code)
