"""Orders on a toy machine: correct ones are proved, wrong ones refuted by a schedule that can be played again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from stress.errors import UsageError
from stress.orders import parse_order
from stress.shm.mode import JIT_DISABLED

if not JIT_DISABLED:
    pytest.skip("compiled code cannot be stopped between two accesses", allow_module_level=True)

from stress.verify.columns import Columns
from stress.verify.hooks import Hooks
from stress.verify.replay import follow, read, simplify, stage, write
from stress.verify.scene import Bounds
from stress.verify.search import Judgement, Verified, verify

pytestmark = pytest.mark.thorough

NO_FWB = Bounds(vcpus=1, accesses=2, fwb=False, guest_caches=False)


@pytest.fixture
def hooks() -> Iterator[Hooks]:
    with Hooks() as hooks:
        yield hooks


def verified(hooks: Hooks, order: str, bounds: Bounds = NO_FWB) -> Verified:
    return verify(hooks, parse_order(order), bounds, None)


@pytest.mark.parametrize("order", ["block-first", "clean-first"])
def test_a_correct_order_is_proved(hooks: Hooks, order: str) -> None:
    result = verified(hooks, order, NO_FWB)
    assert (result.judgement, result.why, dict(result.kinds)) == (Judgement.PROVED, "", {})
    assert result.seen["window faults"] > 100
    assert result.seen["redone accesses"] > 100
    assert result.seen["fills before the TLBI"] > 10
    assert result.seen["fills after the TLBI"] > 10


@pytest.mark.parametrize(
    ("order", "kinds"),
    [
        ("invalidate,clean,install,tlbi,unmap", {"bbm", "tlb-conflict"}),
        ("clean,install,tlbi,unmap", {"bbm", "tlb-conflict"}),
        ("invalidate,clean,install,unmap", {"bbm", "tlb-conflict", "table-use-after-free"}),
        ("invalidate,unmap,tlbi,clean,install", {"table-use-after-free"}),
        ("invalidate,tlbi,clean,install", {"table-leak"}),
        ("invalidate,tlbi,install,unmap", {"not-at-poc"}),
    ],
)
def test_a_wrong_order_is_refuted(hooks: Hooks, order: str, kinds: set[str]) -> None:
    """By what a vCPU, or an audit, met: not only by the rule that a step broke."""
    result = verified(hooks, order)
    assert result.judgement is Judgement.VIOLATION
    assert set(result.kinds) == kinds
    example = result.counterexample
    assert example is not None
    made, found, met = follow(stage(hooks, parse_order(order), example), example.choices)
    assert (made, set(found), met) == (list(example.choices), set(example.kinds), True)


def test_a_counterexample_is_simplified_kept_and_played(hooks: Hooks, tmp_path: Path) -> None:
    order = parse_order("invalidate,clean,install,unmap")
    example = verified(hooks, order.name).counterexample
    assert example is not None
    simple = simplify(hooks, order, example)
    assert set(simple.kinds) == set(example.kinds)
    write(tmp_path / "example", simple)
    same, again = read(tmp_path / "example")
    assert (same.steps, again) == (order.steps, simple)
    columns = Columns(stage(hooks, order, again))
    columns.play(again.choices)
    text = "\n".join(" ".join(row) for row in columns.rows)
    assert columns.header == ["step", "rebuilder", "vcpu 0", "entry", "table", "TLB 0"]
    assert "[invalidate]" in text
    assert ">>> tlb-conflict" in columns.rows[-1][2], "the timeline ends with the line that met it"
    assert "block>0" in columns.rows[-1][-1], "and shows both sizes in the TLB"
    assert "page 1>1" in columns.rows[-1][-1]


def test_a_file_that_is_no_counterexample_is_refused(tmp_path: Path) -> None:
    for text in ("", "{}", '{"magic": "stress verify: a counterexample", "version": 99}'):
        (tmp_path / "file").write_text(text)
        with pytest.raises(UsageError, match="counterexample"):
            read(tmp_path / "file")


def test_a_proof_in_which_nothing_was_at_stake_is_none(hooks: Hooks) -> None:
    result = verified(hooks, "block-first", Bounds(vcpus=1, accesses=0, speculating=0))
    assert result.judgement is Judgement.UNFINISHED
    assert result.why == "nothing was at stake: no vCPU met the window, no access was redone"


def test_a_search_out_of_its_budget_proved_nothing(hooks: Hooks) -> None:
    result = verify(hooks, parse_order("block-first"), NO_FWB, 1)
    assert result.judgement is Judgement.UNFINISHED
    assert result.why == "explored 1 schedules, proved nothing"


def test_kernels_are_themselves_again_afterwards() -> None:
    from stress.kernels import vcpu
    from stress.shm.processor import Twins

    before = dict(vars(vcpu)), Twins.processor
    with Hooks():
        assert vars(vcpu)["lookup"] is not before[0]["lookup"]
    assert (vars(vcpu), Twins.processor) == before
