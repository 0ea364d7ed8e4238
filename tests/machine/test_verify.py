"""Orders on a toy machine: correct ones are proved, wrong ones refuted by a schedule that can be played again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from casemate_rules import judge
from tabulate import tabulate

from stress import interrupt
from stress.bugs import BUGS
from stress.errors import UsageError
from stress.kernels import grace
from stress.orders import NAMED_ORDERS, parse_order
from stress.results.counterexamples import WIDTH, checked, fitted
from stress.shm import words
from stress.shm.atomics import compare_exchange, load, store
from stress.shm.mode import JIT_DISABLED
from stress.shm.toy import toy_geo
from stress.trace.casemate import encoded

if not JIT_DISABLED:
    pytest.skip("compiled code cannot be stopped between two accesses", allow_module_level=True)

from played import explored, played

from stress.verify.chance import Chance
from stress.verify.columns import Columns
from stress.verify.dpor import explore
from stress.verify.example_trace import trace_of
from stress.verify.hooks import Hooks
from stress.verify.replay import follow, read, simplify, stage, write
from stress.verify.scene import Bounds, Guess, Scene, machine_on
from stress.verify.session import orders_for, play
from stress.verify.verification import Judgement, Scheduler, Verified, look_around, verify
from stress.verify.world import World

pytestmark = pytest.mark.thorough

#: For schedules by chance, which end with the first violation: it takes a second, or minutes on a core that others use.
AMPLE_NS = 280 * 10**9
NO_FWB = Bounds(vcpus=1, accesses=2, fwb=False, guest_caches=False)


@pytest.fixture
def hooks() -> Iterator[Hooks]:
    with Hooks() as hooks:
        yield hooks


def verified(hooks: Hooks, order: str, bounds: Bounds = NO_FWB) -> Verified:
    return verify(hooks, parse_order(order), bounds, None)


@pytest.mark.soak
@pytest.mark.parametrize("name", NAMED_ORDERS)
def test_each_named_order_is_proved_within_the_default_bounds(hooks: Hooks, name: str) -> None:
    """Those of the command: FWB unless the order cleans, and the FEAT_BBM level that it needs."""
    order = parse_order(name)
    fwb = not any(step.facts.cleans for step in order.steps)
    result = verify(hooks, order, Bounds(fwb=fwb, guest_caches=fwb, bbm_level=order.bbm_level), None)
    assert (result.judgement, result.why, dict(result.kinds)) == (Judgement.PROVED, "", {})


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
    made, found, met, _ = follow(stage(hooks, parse_order(order), example), example.choices)
    assert (made, set(found), met) == (list(example.choices), set(example.kinds), True)


def test_a_counterexample_is_simplified_kept_and_played(hooks: Hooks, tmp_path: Path) -> None:
    order = parse_order("invalidate,clean,install,unmap")
    example = verified(hooks, order.name).counterexample
    assert example is not None
    simple = simplify(hooks, order, example)
    assert set(simple.kinds) == set(example.kinds)
    shown, before = (follow(stage(hooks, order, each), each.choices) for each in (simple, example))
    assert (shown.kinds, shown.met) == (before.kinds, True)
    assert shown.last < before.last, "no fault of the guest's stands before what it takes"
    timelines = [play(hooks, order, each) for each in (simple, example)]
    write(tmp_path / "example", list(zip((simple, example), timelines, strict=True)))
    assert [each.timeline for each in checked(json.loads((tmp_path / "example").read_text()), tmp_path)] == timelines
    (same, again), (_, other) = read(tmp_path / "example")
    assert (same.steps, again, other) == (order.steps, simple, example)
    columns = Columns(stage(hooks, order, again))
    columns.play(again.choices)
    text = "\n".join(" ".join(row) for row in columns.rows)
    assert columns.header == ["step", "hypervisor", "vcpu 0", "entry", "table", "TLB 0"]
    assert "[invalidate]" in text
    rows = fitted(columns.header, columns.rows, len(columns.names))
    assert max(len(line) for line in tabulate(rows, columns.header).splitlines()) <= WIDTH
    assert [" ".join(row).split() for row in rows] == [" ".join(row).split() for row in columns.rows]
    assert ">>> tlb-conflict" in columns.rows[-1][2], "the timeline ends with the line that met it"
    assert "block>0" in columns.rows[-1][-1], "and shows both sizes in the TLB"
    assert "page 1>1" in columns.rows[-1][-1]


def test_a_file_that_is_no_counterexample_is_refused(tmp_path: Path) -> None:
    none = "is not a counterexample of this version"
    for text, says in (
        ("", "not JSON"),
        ("{}", none),
        ('{"magic": "stress verify: a counterexample", "version": 99}', none),
    ):
        (tmp_path / "file").write_text(text)
        with pytest.raises(UsageError, match=says):
            read(tmp_path / "file")


def test_a_bug_in_the_steps_is_kept_with_its_order(hooks: Hooks, tmp_path: Path) -> None:
    order = BUGS["no-break"].rewrite(parse_order("block-first"))
    example = verify(hooks, order, NO_FWB, None).counterexample
    assert example is not None
    write(tmp_path / "example", [(example, play(hooks, order, example))])
    [(again, _)] = read(tmp_path / "example")
    assert again.steps == order.steps


@pytest.mark.parametrize(
    ("order", "said"),
    [
        ("clean,install,tlbi,unmap", "valid->valid"),
        ("invalidate,clean,install,unmap", "invalid unclean->valid"),
        ("invalidate,unmap,tlbi,clean,install", "unclean parent"),
        ("invalidate,tlbi,clean,install", ""),  # no rule of a table is broken: the table is never freed
    ],
)
def test_another_checker_finds_it_in_the_trace(hooks: Hooks, order: str, said: str) -> None:
    example = verified(hooks, order).counterexample
    assert example is not None
    data = trace_of(hooks, parse_order(order), example)
    found = judge(b"".join(encoded(data)).decode().splitlines())
    assert found.startswith(said) if said else found == ""
    assert len(data.changes) > 10


def test_a_proof_in_which_nothing_was_at_stake_is_none(hooks: Hooks) -> None:
    result = verified(hooks, "block-first", Bounds(vcpus=1, accesses=0, speculating=0))
    assert result.judgement is Judgement.UNFINISHED
    assert result.why == "nothing was at stake: no vCPU met the window, no access was redone"


def test_a_search_out_of_its_budget_proved_nothing(hooks: Hooks) -> None:
    result = verify(hooks, parse_order("block-first"), NO_FWB, 1)
    assert result.judgement is Judgement.UNFINISHED
    assert result.why == "explored 1 schedules, proved nothing"
    assert result.remedy == "try a longer --limit or --no-speculation or --accesses 1 or --memory sc"


@pytest.mark.parametrize(("scenario", "kind"), [("split", "tlb-conflict"), ("migration", "lost-dirty")])
def test_a_missing_tlbi_is_found_elsewhere_too(hooks: Hooks, scenario: str, kind: str) -> None:
    bounds = replace(NO_FWB, scenario=scenario, inject=BUGS["missing-tlbi"].flag)
    assert kind in verify(hooks, parse_order("block-first"), bounds, None).kinds


@pytest.mark.parametrize(
    ("scenario", "bug"),
    [
        ("split", "missing-tlbi"),
        ("migration", "harvest-without-tlbi"),
        ("thp", "reference-kept"),
        ("compaction", "reference-kept"),
    ],
)
def test_who_takes_mmu_lock_alone_is_explored_beside_those_who_share_it(hooks: Hooks, scenario: str, bug: str) -> None:
    bounds = replace(NO_FWB, scenario=scenario, shared=True, speculating=0)
    right = verify(hooks, parse_order("block-first"), replace(bounds, vcpus=1, accesses=1), None)
    assert right.judgement is Judgement.PROVED
    one = BUGS[bug]
    wrong = verify(hooks, parse_order("block-first"), replace(bounds, inject=one.flag), AMPLE_NS, Scheduler.PCT)
    assert wrong.judgement is Judgement.VIOLATION
    assert set(wrong.kinds) & set(one.kinds)


def test_a_batch_needs_a_tlbi_for_all_of_it(hooks: Hooks) -> None:
    bounds = replace(NO_FWB, accesses=1, batch=2, speculating=0)
    right = verify(hooks, parse_order("block-first"), bounds, None)
    assert right.judgement is Judgement.PROVED
    bug = BUGS["batch-first-tlbi-only"]
    wrong = verify(hooks, parse_order("block-first"), replace(bounds, accesses=2, inject=bug.flag), None)
    assert set(bug.kinds) <= set(wrong.kinds), "told by rules, and met"


def test_a_bug_in_the_accounts_is_refused() -> None:
    with pytest.raises(UsageError, match="event-lost is in the accounts"):
        orders_for(["block-first"], "event-lost")


def test_chance_proves_nothing(hooks: Hooks) -> None:
    result = verify(hooks, parse_order("block-first"), NO_FWB, 10**9, Scheduler.RANDOM, 7)
    assert result.judgement is Judgement.UNFINISHED
    assert result.why == f"explored {result.schedules} schedules by chance, seed 7, proved nothing"


# Without each weakness of the hardware a bug goes unseen.


def was_met(hooks: Hooks, bounds: Bounds, bug: str, guess: Guess | None = None) -> bool:
    """Whether a vCPU met what the bug leads to, in any schedule; a rule tells it in any case."""
    scene = Scene(hooks, BUGS[bug].rewrite(parse_order("block-first")), bounds, guess)
    look_around(scene)
    met: list[bool] = []
    if guess is not None:  # soon found by chance
        return any(scene.judge()[1] for _ in islice(Chance(scene.world, 1).schedules(), 3000))
    explore(scene.world, lambda _: met.append(scene.judge()[1]))
    return any(met)


def test_without_speculation_a_tlbi_of_one_page_goes_unseen(hooks: Hooks) -> None:
    """The TLBI covers page 0, which is what the only access of vCPU 1 is to: it has nothing of page 1 by itself."""
    bounds = Bounds(vcpus=2, accesses=1)
    assert was_met(hooks, bounds, "tlbi-one-ipa", (1, 1))
    assert not was_met(hooks, bounds, "tlbi-one-ipa")


def test_without_phases_a_missing_dsb_goes_unseen(hooks: Hooks) -> None:
    bounds = Bounds(vcpus=1, accesses=2, inject=BUGS["missing-dsb"].flag)
    assert was_met(hooks, bounds, "missing-dsb")
    assert not was_met(hooks, replace(bounds, phases=False), "missing-dsb")


@pytest.mark.parametrize("tso", [True, False])
@pytest.mark.parametrize("fenced", [True, False])
def test_without_store_buffers_a_missing_fence_goes_unseen(
    monkeypatch: pytest.MonkeyPatch, tso: bool, fenced: bool
) -> None:
    """A walker that takes no lock says that it walks, and must not read the entry before others can see that."""
    if not fenced:
        monkeypatch.setattr(grace, "fence", lambda: None)
    world = World(tso=tso)
    s = machine_on(world, toy_geo(vcpus=1, shared=True))
    entry, child = 0, 2
    world.words.update({s.tables.place(entry): 1, s.tables.place(child): 1})  # type: ignore[attr-defined]
    world.keep()
    read: list[int] = []

    def walk() -> None:
        grace.begin_walk(s, 0)
        if load(s.tables, entry) == 1:
            read.append(load(s.tables, child))
        grace.end_walk(s, 0)

    def free() -> None:
        compare_exchange(s.tables, entry, 1, 0)
        grace.synchronize(s, 1)
        store(s.tables, child, 2)

    world.actor("walker", walk)
    world.actor("whoever frees", free)
    world.at_reset(read.clear)
    found: set[int] = set()
    explored(world, lambda: found.update(read))
    assert found == ({1} if fenced or not tso else {1, 2})


@pytest.mark.parametrize(
    ("order", "guess", "more"),
    [
        ("block-first", (0, 0), {}),
        ("invalidate,clean,install,unmap", (0, 1), {}),
        ("block-first", None, {"vcpus": 2, "accesses": 1}),
        ("clean-unlocked", None, {"vcpu_rebuilds": True}),
    ],
)
def test_chance_leads_nowhere_that_the_reduction_did_not(
    hooks: Hooks, order: str, guess: Guess | None, more: dict[str, Any]
) -> None:
    """Brute force on the real kernels would take years: a thousand schedules of it, and where each of them ends."""
    scene = Scene(hooks, parse_order(order), replace(NO_FWB, **more), guess)
    look_around(scene)

    def end() -> tuple[object, ...]:
        found, _ = scene.judge()
        protocol = {at: its for at, its in scene.world.words.items() if its and not scene.world.accounts(at)}
        held = [(*cpu.key, *cpu.walk_key) for cpu in scene.cpus]
        return tuple(sorted(protocol.items())), tuple(map(tuple, held)), frozenset(found)

    reduced = set()
    explore(scene.world, lambda _: reduced.add(end()))
    by_chance = {end() for _ in islice(Chance(scene.world, 5).schedules(), 1000)}
    assert by_chance <= reduced
    assert len(by_chance) > 1


def test_tables_queued_after_the_hypervisor_last_freed_some_are_no_leak(hooks: Hooks) -> None:
    """A vCPU that rebuilds may queue its tables when the hypervisor has ended: a run frees them at its end."""
    bounds = replace(NO_FWB, vcpus=2, shared=True, vcpu_rebuilds=True)
    scene = Scene(hooks, parse_order("block-first-deferred"), bounds, None)
    queued_late = 0
    for _ in played(scene.world, 60):
        control = scene.s.control
        queued_late += control[words.DEFERRED_TAIL] > control[words.DEFERRED_HEAD]
        assert scene.judge() == ({}, False)
    assert queued_late > 0


def test_an_interrupt_ends_the_search(hooks: Hooks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupt.requested, "is_set", lambda: True)
    result = verified(hooks, "block-first")
    assert (result.judgement, result.schedules) == (Judgement.UNFINISHED, 1)


def test_kernels_are_themselves_again_afterwards() -> None:
    from stress.kernels import vcpu
    from stress.shm.processor import Twins

    before = dict(vars(vcpu)), Twins.processor
    with Hooks():
        assert vars(vcpu)["lookup"] is not before[0]["lookup"]
    assert (vars(vcpu), Twins.processor) == before
