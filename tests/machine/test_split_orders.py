"""Every split order, by an oracle of its own: what it breaks without any vCPU, and under every interleaving."""

from __future__ import annotations

import pytest
from machines import ALL, evidence, naive_tree, run_audit, split_block, violations

from stress.kernels.abort import resolve
from stress.kernels.codes import LEFT_UNLINKED, LINKED_UNWRITTEN, NEVER_INVALIDATED, PERMISSION
from stress.kernels.dirty import set_logging
from stress.kernels.split import populate
from stress.orders import BLOCK_FIRST, Step
from stress.shm.accounts import AT_STEP, BY_RULE, Kind
from stress.shm.layout import Machine
from stress.shm.mode import JIT_DISABLED
from stress.shm.toy import Toy, toy_geo
from stress.splits import SPLIT_ORDERS, SplitOrder, enumerate_split_orders, parse_split_order

pytestmark = pytest.mark.thorough

Steps = tuple[Step, ...]
EVERY = list(enumerate_split_orders())


def outcome(steps: Steps, bbm_level: int) -> set[str]:
    """What docs/architecture.md says of a split order, by positions."""
    at = {step: steps.index(step) for step in steps}
    link, invalidate = at[Step.LINK], at.get(Step.INVALIDATE, len(steps))
    flushes = [at[step] for step in (Step.TLBI, Step.TLBI_IPA) if step in at]
    found = set()
    # From level 2 on a size may change without a break, and so without the TLBI of one.
    if bbm_level < 2 and not any(invalidate < flush < link for flush in flushes):
        found.add("bbm")
    if at[Step.BUILD] > link:
        found.add("table-use-after-free")
    if link < invalidate < len(steps):
        found |= {"not-installed", "table-leak"}
    elif not any(flush > min(link, invalidate) for flush in flushes):
        found.add("stale-translation")
    return found


def toy(order: SplitOrder, bbm_level: int) -> Machine:
    """A machine whose block is mapped."""
    s = Toy(toy_geo(bbm_level=bbm_level, split_order=order.word)).machine
    assert populate(s, s.geo.hypervisor, s.geo.base_gfn) == 0
    return s


def split_eagerly(s: Machine) -> None:
    assert split_block(s, 0, ALL) == 0


def split_at_a_fault(s: Machine) -> None:
    set_logging(s, s.geo.hypervisor, 1)
    assert resolve(s, s.geo.base_gfn, True, 0, 0, 0)[0] == PERMISSION


@pytest.mark.parametrize("split", [split_eagerly, split_at_a_fault])
@pytest.mark.parametrize("bbm_level", [0, 2, 3])
def test_what_each_order_breaks_by_itself(bbm_level: int, split: object) -> None:
    correct = 0
    for steps in EVERY:
        s = toy(parse_split_order(",".join(steps)), bbm_level)
        split(s)  # type: ignore[operator]
        run_audit(s)
        found = violations(s)
        expected = outcome(steps, bbm_level)
        assert set(found) == expected, steps
        told = {Kind(kind).label for kind in Kind if s.tally[BY_RULE + kind]}
        assert told == expected - {"table-leak"}, steps
        assert (s.states[:, AT_STEP] == -1).all()
        if not expected:
            correct += 1
            leaves = naive_tree(s).leaves
            assert [leaf.level for leaf in leaves] == [3] * (2 if split is split_eagerly else 1)
    assert correct == {0: 28, 2: 50, 3: 50}[bbm_level]


@pytest.mark.parametrize(
    ("steps", "kind", "detail", "step"),
    [
        ("invalidate,tlbi-ipa,link,build", Kind.TABLE_USE_AFTER_FREE, LINKED_UNWRITTEN, Step.LINK),
        ("build,link,invalidate,tlbi", Kind.NOT_INSTALLED, LEFT_UNLINKED, Step.TLBI),
        ("tlbi,build,link", Kind.STALE_TRANSLATION, NEVER_INVALIDATED, Step.LINK),
    ],
)
def test_what_a_wrong_order_is_called(steps: str, kind: Kind, detail: int, step: Step) -> None:
    s = toy(parse_split_order(steps), 2)
    split_eagerly(s)
    piece = evidence(s, kind)
    assert (piece["detail"], piece["step"], piece["rule"], piece["level"]) == (detail, step.code, 1, 2)


@pytest.mark.skipif(not JIT_DISABLED, reason="compiled code cannot be stopped between two accesses")
def test_every_interleaving_agrees_with_the_rule() -> None:
    from stress.verify.hooks import Hooks
    from stress.verify.scene import Bounds
    from stress.verify.verification import Judgement, verify

    wrong = []
    named = [order.steps for order in SPLIT_ORDERS.values()]
    with Hooks() as hooks:
        for level, sample in ((0, EVERY[::43]), (2, EVERY[7::53])):
            for steps in [*named, *sample]:
                name = ",".join(steps)
                bounds = Bounds("split", vcpus=1, accesses=1, speculating=0, bbm_level=level, split_order=name)
                verified = verify(hooks, BLOCK_FIRST, bounds, None)
                if (verified.judgement is Judgement.PROVED) == bool(outcome(steps, level)):
                    wrong.append((steps, level, verified.judgement, verified.why))
    assert wrong == []
