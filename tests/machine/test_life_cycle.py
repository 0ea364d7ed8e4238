"""Whole lives of a machine: dirty logging, migration, rebuilds, moving frames and memslots, under guests that go on.

After each operation the table is the model's entry by entry, memory holds what was written where the host says it is,
the dirty bitmap is exact, every count adds up, and no oracle has spoken. Each fault is of the class the model predicts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st
from life import BLOCK, TABLE_CHANGES, Life
from machines import ALL, evidence, rebuild_block, run_audit, set_order, small_machine, split_block, violations
from programs import execute, program

from stress.bugs import BUGS
from stress.kernels.codes import STILL_FORBIDDEN
from stress.kernels.dirty import clear_log, compare_copy, harvest, send, send_all, set_logging
from stress.kernels.notifier import invalidate_end, invalidate_start, move_frames
from stress.kernels.split import populate
from stress.kernels.teardown import reap
from stress.kernels.tlb import new_cpu
from stress.orders import BLOCK_FIRST, BLOCK_FIRST_DEFERRED, NAMED_ORDERS
from stress.shm.accounts import ACTED, Kind
from stress.shm.layout import Machine
from stress.shm.mode import JIT_DISABLED

#: Lets a vCPU access a page, and write there or not.
Guest = Callable[[int, bool], None]

BLOCKS, VCPUS, EITHER = range(3), range(2), (False, True)
#: Operation -> how often it comes up, and what its arguments may be. The host acts seldom: it takes away what the
#: others need time to build up.
OPERATIONS: dict[str, tuple[int, dict[str, Sequence[Any]]]] = {
    "touch": (
        24,
        {
            "vcpu": VCPUS,
            "block": BLOCKS,
            "page": (0, 1, BLOCK // 2, BLOCK - 20),  # few, so that they meet
            "count": range(1, 41),
            "stride": (1, 7, 64),
            "write": EITHER,
        },
    ),
    "update_stage": (1, {"vcpu": VCPUS, "block": BLOCKS}),
    "switch_logging": (8, {"how": ("at once", "lazily", "lazily", "eagerly"), "first": range(BLOCK)}),
    "migrate": (6, {"what": ("harvest", "send", "stop and copy", "send everything")}),
    "get_log": (2, {}),
    "clear_log": (6, {"fresh": EITHER, "first": (0, 1, 31, BLOCK), "count": (1, 33, BLOCK, 3 * BLOCK)}),
    "rebuild": (6, {"block": BLOCKS}),
    "recover": (3, {}),
    "choose_an_order": (2, {"number": range(len(NAMED_ORDERS))}),
    "split": (2, {"block": BLOCKS, "share": (ALL, ALL // 2, ALL // BLOCK), "map_first": EITHER}),
    "populate": (2, {"block": BLOCKS}),
    "vmm_writes_what_is_unmapped": (2, {"block": BLOCKS}),
    "reap": (1, {}),
    "move_a_block": (2, {"block": BLOCKS, "scattered": EITHER}),
    "move_pages": (1, {"first": range(2 * BLOCK), "count": range(1, 6)}),
    "unmap": (1, {"first": range(2 * BLOCK), "count": range(1, BLOCK)}),
    # Elsewhere; where no block is aligned.
    "move_the_memslots": (1, {"base": (0, 4 * BLOCK, 0, 4 * BLOCK, 1, 8 * BLOCK + 3)}),
}
#: Pages of guest memory, and memslots: their boundaries and the end of memory cut blocks, or do not.
LAYOUTS = ((3 * BLOCK, 1), (3 * BLOCK, 2), (3 * BLOCK, 3), (5 * BLOCK // 2, 1), (2 * BLOCK, 3))
CONFIGURATION: dict[str, Sequence[Any]] = {
    "layout": LAYOUTS,
    "backing": ("hugetlb", "thp", "hugetlb", "thp", "anonymous"),
    "bbm_level": (0, 1, 2, 2),
    "order": range(len(NAMED_ORDERS)),
    "vcpus_rebuild": EITHER,
    "per_fault": EITHER,
}
#: Every operation once, so that everything happens that can happen to one guest after the other.
LIFE: tuple[tuple[str, dict[str, Any]], ...] = (
    ("touch", {"vcpu": 0, "block": 0, "page": 0, "count": 1, "stride": 1, "write": True}),
    ("touch", {"vcpu": 1, "block": 0, "page": 7, "count": 9, "stride": 1, "write": True}),
    ("populate", {"block": 1}),
    ("switch_logging", {"how": "lazily", "first": 0}),
    ("migrate", {"what": "send everything"}),
    ("touch", {"vcpu": 0, "block": 0, "page": 1, "count": 3, "stride": 1, "write": True}),
    ("touch", {"vcpu": 1, "block": 0, "page": 1, "count": 9, "stride": 1, "write": False}),
    ("touch", {"vcpu": 0, "block": 0, "page": 1, "count": 9, "stride": 1, "write": False}),
    ("touch", {"vcpu": 1, "block": 0, "page": 1, "count": 9, "stride": 1, "write": True}),
    ("touch", {"vcpu": 0, "block": 0, "page": 1, "count": 9, "stride": 1, "write": True}),
    ("migrate", {"what": "harvest"}),
    ("touch", {"vcpu": 0, "block": 0, "page": 1, "count": 5, "stride": 1, "write": True}),
    ("migrate", {"what": "send"}),
    ("update_stage", {"vcpu": 0, "block": 1}),
    ("get_log", {}),
    ("touch", {"vcpu": 1, "block": 0, "page": 1, "count": 9, "stride": 1, "write": True}),
    ("clear_log", {"fresh": False, "first": 2, "count": 3}),
    ("touch", {"vcpu": 0, "block": 0, "page": 1, "count": 4, "stride": 1, "write": True}),
    ("clear_log", {"fresh": False, "first": 0, "count": 2 * BLOCK}),
    ("touch", {"vcpu": 1, "block": 0, "page": 1, "count": 1, "stride": 1, "write": True}),
    ("migrate", {"what": "stop and copy"}),
    ("vmm_writes_what_is_unmapped", {"block": 0}),
    ("switch_logging", {"how": "lazily", "first": 3}),
    ("touch", {"vcpu": 1, "block": 0, "page": 4, "count": 1, "stride": 1, "write": True}),
    ("rebuild", {"block": 0}),
    ("rebuild", {"block": 1}),
    ("touch", {"vcpu": 0, "block": 0, "page": 0, "count": 24, "stride": 64, "write": True}),
    ("split", {"block": 0, "share": ALL // 2, "map_first": True}),
    ("move_a_block", {"block": 0, "scattered": True}),
    ("touch", {"vcpu": 1, "block": 0, "page": 0, "count": 40, "stride": 7, "write": True}),
    ("move_pages", {"first": 5, "count": 4}),
    ("touch", {"vcpu": 0, "block": 0, "page": 0, "count": 40, "stride": 1, "write": True}),
    ("move_a_block", {"block": 0, "scattered": False}),
    ("touch", {"vcpu": 1, "block": 0, "page": 0, "count": 40, "stride": 1, "write": True}),
    ("unmap", {"first": 20, "count": 2}),
    ("switch_logging", {"how": "eagerly", "first": 0}),
    ("switch_logging", {"how": "at once", "first": 0}),
    ("touch", {"vcpu": 0, "block": 1, "page": 2, "count": 1, "stride": 1, "write": True}),
    ("rebuild", {"block": 1}),
    ("move_the_memslots", {"base": 4 * BLOCK + 1}),
    ("touch", {"vcpu": 1, "block": 1, "page": 0, "count": 40, "stride": 7, "write": True}),
    ("move_the_memslots", {"base": 0}),
)
#: What each of them makes happen, besides the rebuilds.
HAPPENS = {
    *TABLE_CHANGES,
    *("population", "permission", "harvested", "cleared", "migrated", "logging switched", "split by the hypervisor"),
    *("broken up", "collapsed", "pages moved", "memslots moved"),
}
IMPOSSIBLE = ("window", "spurious", "retry")  # for guests that run one after the other


def live(life: Life, operations: Sequence[tuple[str, dict[str, Any]]], tell: Callable[[str], None]) -> None:
    """Carry them out, and look after each; at last everything is unmapped."""
    for name, arguments in operations:
        tell(f"{name} {arguments}")
        getattr(life, name)(**arguments)
        life.sound()
    life.end()


@pytest.mark.thorough
@pytest.mark.parametrize("vcpus_rebuild", [pytest.param(True, id="vcpu"), pytest.param(False, id="hypervisor")])
@pytest.mark.parametrize("number", range(len(NAMED_ORDERS)), ids=list(NAMED_ORDERS))
def test_a_whole_life_under_each_order(number: int, vcpus_rebuild: bool) -> None:
    name = list(NAMED_ORDERS)[number]
    for shared in EITHER:
        for fwb in EITHER:
            seen: Counter[str] = Counter()
            life = Life(
                seen,
                shared=shared,
                fwb=fwb,
                layout=(2 * BLOCK, 1),
                backing="thp",
                bbm_level=2,
                order=number,
                vcpus_rebuild=vcpus_rebuild,
                per_fault=False,
            )
            live(life, LIFE, print)
            assert {what for what in HAPPENS if not seen[what]} == set()
            assert [seen[what] for what in IMPOSSIBLE] == [0, 0, 0]
            rebuilds = seen["rebuild"] + seen[f"rebuilt under {name}"]
            assert (rebuilds, seen["deferred"]) == (3, 3 if name == "block-first-deferred" else 0)


@pytest.mark.thorough
@pytest.mark.parametrize("fwb", [pytest.param(True, id="fwb"), pytest.param(False, id="no-fwb")])
@pytest.mark.parametrize("shared", [pytest.param(False, id="exclusive"), pytest.param(True, id="shared")])
def test_any_sequence_of_operations(shared: bool, fwb: bool) -> None:
    seen: Counter[str] = Counter()

    # True randomness: what Hypothesis makes up repeats itself too much to get far. It still finds the shortest life.
    @settings(max_examples=20 if JIT_DISABLED else 40)
    @given(random=st.randoms(use_true_random=True), length=st.integers(1, 120))
    def lives(random: Random, length: int) -> None:
        configuration = {name: random.choice(values) for name, values in CONFIGURATION.items()}
        names = random.choices(list(OPERATIONS), [weight for weight, _ in OPERATIONS.values()], k=length)
        arguments = [{key: random.choice(values) for key, values in OPERATIONS[name][1].items()} for name in names]
        note(f"{configuration}")
        live(Life(seen, shared=shared, fwb=fwb, **configuration), list(zip(names, arguments, strict=True)), note)

    lives()
    # What takes several operations in the right sequence may never come up; each whole life above has it.
    rare = {"migrated", "block split", "harvested", "cleared"}
    assert {what for what in HAPPENS - rare if not seen[what]} == set()
    assert [seen[what] for what in IMPOSSIBLE] == [0, 0, 0]


# Bugs injected, and what must come of them.


def lose_a_reference(s: Machine, guest: Guest) -> None:
    """A read-only page is made writable; its table can never be freed."""
    set_logging(s, s.geo.hypervisor, 1)
    guest(4, False)
    guest(4, True)
    set_logging(s, s.geo.hypervisor, 0)
    assert rebuild_block(s, 0, BLOCK_FIRST.steps) == 0


def write_where_a_block_may_be(s: Machine, guest: Guest) -> None:
    """The guest writes to a read-only page after logging stopped."""
    set_logging(s, s.geo.hypervisor, 1)
    guest(4, False)
    set_logging(s, s.geo.hypervisor, 0)
    guest(4, True)


def split_and_rebuild(s: Machine, guest: Guest) -> None:
    guest(0, True)
    assert split_block(s, 0) == 0
    assert rebuild_block(s, 0, BLOCK_FIRST_DEFERRED.steps) == 0
    reap(s, s.geo.hypervisor)


def write_after_a_harvest(s: Machine, guest: Guest) -> None:
    """What is written after the last harvest but one is in the copy."""
    found = np.zeros_like(s.dirty)
    set_logging(s, s.geo.hypervisor, 1)
    send_all(s, 0, s.geo.pages)
    for _ in range(2):
        guest(4, True)
        harvest(s, s.geo.hypervisor, found)
        send(s, found)
    compare_copy(s, s.geo.hypervisor)


def write_after_a_clear(s: Machine, guest: Guest) -> None:
    """The same with manual protection, chunk by chunk."""
    set_logging(s, s.geo.hypervisor, 1)
    for _ in range(2):
        guest(4, True)
        found = s.dirty.copy()
        for first in (0, 64):
            clear_log(s, s.geo.hypervisor, found, 0, first, first + 64)


def move_a_huge_page(s: Machine, guest: Guest) -> None:
    """Under the guest, which has it in its TLB. No table gets empty, so one TLBI is all."""
    guest(4, True)
    guest(BLOCK, True)
    assert invalidate_start(s, s.geo.hypervisor, s.geo.base_gfn, 0, BLOCK) == 0
    assert move_frames(s, 0, 0, 2 * BLOCK, 0, BLOCK) == BLOCK
    assert invalidate_end(s, s.geo.hypervisor, 0, BLOCK, 2 * BLOCK, 0, 1) == 0
    guest(4, False)


def move_pages(s: Machine, guest: Guest) -> None:
    """Under the guest, which has one in its TLB. Their table gets empty, and goes."""
    guest(4, True)
    assert split_block(s, 0) == 0
    guest(4, True)
    assert invalidate_start(s, s.geo.hypervisor, s.geo.base_gfn, 0, BLOCK) == 0
    assert move_frames(s, 0, 0, 2 * BLOCK, 0, BLOCK) == BLOCK
    assert invalidate_end(s, s.geo.hypervisor, 0, BLOCK, 2 * BLOCK, 0, 1) == 0
    guest(4, False)


SEQUENCES: dict[str, Callable[[Machine, Guest], None]] = {
    "leak-on-update": lose_a_reference,
    "wrong-fault-level": write_where_a_block_may_be,
    "root-table-kept": split_and_rebuild,
    "entry-read-again": split_and_rebuild,
    "harvest-without-tlbi": write_after_a_harvest,
    "missing-dsb": move_a_huge_page,
    "missing-tlbi": move_a_huge_page,
    "reference-kept": move_a_huge_page,
    "freed-twice": split_and_rebuild,
    "freed-in-walk": move_pages,
    "range-level-hint": move_pages,
}
#: More places where a bug can be made.
ALSO = [("harvest-without-tlbi", write_after_a_clear), ("range-level-hint", move_a_huge_page)]
#: Seen by the collector; only beside a walker; only by who looked without mmu_lock; with caches off (test_rebuild); by
#: what a vCPU still holds (test_verify); by a batch (test_batch).
ELSEWHERE = {
    "event-lost",
    "no-grace",
    "no-recheck",
    "no-cmo",
    "table-level-hint",
    "batch-first-tlbi-only",
    "range-scale",
    "range-unaligned",
    "no-local-tlbi",
}


def test_each_bug_in_the_code_has_its_sequence() -> None:
    assert set(SEQUENCES) | ELSEWHERE == {name for name, bug in BUGS.items() if bug.flag}


@pytest.mark.parametrize("injected", [True, False])
@pytest.mark.parametrize(("name", "sequence"), [*SEQUENCES.items(), *ALSO])
def test_a_bug_shows_as_its_violation_and_only_where_it_is_injected(
    name: str, sequence: Callable[[Machine, Guest], None], injected: bool
) -> None:
    s = small_machine(
        vcpus=1, spare_blocks=1, copies=True, vcpu_rebuilds=True, inject=BUGS[name].flag if injected else 0
    )
    set_order(s, BLOCK_FIRST.steps)
    cpu = new_cpu()
    sequence(s, lambda page, write: execute(s, cpu, 0, program(page, write=write), 1))
    run_audit(s)
    assert set(violations(s)) == ({BUGS[name].kinds[0]} if injected else set())


def split_under_the_guest(s: Machine, guest: Guest) -> None:
    guest(4, True)
    assert split_block(s, 0) == 0
    guest(4, True)


def split_by_a_handler(s: Machine, guest: Guest) -> None:
    """No TLB holds the block: what shows is the rule."""
    assert populate(s, s.geo.hypervisor, s.geo.base_gfn) == 0
    assert set_logging(s, s.geo.hypervisor, 1) == 1
    guest(4, True)


def protect_under_the_guest(s: Machine, guest: Guest) -> None:
    """It wrote before logging began, and writes on through its TLB."""
    guest(4, True)
    assert set_logging(s, s.geo.hypervisor, 1) > 0
    guest(4, True)


#: Each operation that must invalidate TLBs, with what shows that it did not.
WITHOUT_TLBI: dict[str, tuple[Callable[[Machine, Guest], None], dict[str, int]]] = {
    "split": (split_under_the_guest, {"bbm": 1, "stale-translation": 1}),
    "split by a handler": (split_by_a_handler, {"bbm": 1, "stale-translation": 1, "lost-dirty": 1}),
    "write protection": (protect_under_the_guest, {"lost-dirty": 2}),  # a rule, and the guest's write
    "unmap by the notifier": (move_a_huge_page, {"stale-translation": 2}),  # a rule, and the guest's read
}


@pytest.mark.parametrize("shared", EITHER)
@pytest.mark.parametrize("injected", [True, False])
@pytest.mark.parametrize("operation", WITHOUT_TLBI)
def test_a_missing_tlbi_shows_in_each_operation(operation: str, injected: bool, shared: bool) -> None:
    s = small_machine(vcpus=1, spare_blocks=1, shared=shared, inject=BUGS["missing-tlbi"].flag if injected else 0)
    cpu = new_cpu()
    sequence, found = WITHOUT_TLBI[operation]
    sequence(s, lambda page, write: execute(s, cpu, 0, program(page, write=write), 1))
    assert violations(s) == (found if injected else {})
    assert bool(s.tally[ACTED]) == injected


@pytest.mark.parametrize("shared", EITHER)
@pytest.mark.parametrize("injected", [True, False])
def test_rules_see_what_the_notifier_unmapped_without_a_tlbi(injected: bool, shared: bool) -> None:
    """No TLB holds the page or its table, so no access can show it: the unmap does, and who maps it.

    Under a shared mmu_lock the entry is given away, and nobody is told.
    """
    s = small_machine(vcpus=1, spare_blocks=1, shared=shared, inject=BUGS["missing-tlbi"].flag if injected else 0)
    assert populate(s, s.geo.hypervisor, s.geo.base_gfn) == 0
    assert invalidate_start(s, s.geo.hypervisor, s.geo.base_gfn, 0, BLOCK) == 0
    assert invalidate_end(s, s.geo.hypervisor, 0, BLOCK, 0, 0, 1) == 0
    execute(s, new_cpu(), 0, program(4), 1)
    told = {"stale-translation": 1, "table-use-after-free": 1} | ({} if shared else {"bbm": 1})
    assert violations(s) == (told if injected else {})


@pytest.mark.parametrize("injected", [True, False])
def test_a_relaxation_without_its_tlbi_shows_in_another_vcpu(injected: bool) -> None:
    """Its TLB forbids what the entry allows. The one that faulted drops its own translation."""
    s = small_machine(vcpus=2, inject=BUGS["missing-tlbi"].flag if injected else 0)
    assert set_logging(s, s.geo.hypervisor, 1) == 0
    cpus = [new_cpu(), new_cpu()]
    for vcpu in (0, 1):
        execute(s, cpus[vcpu], vcpu, program(4, write=False), 1)  # a page without write permission
    assert s.tally[ACTED] == 0
    for vcpu in (0, 1):
        execute(s, cpus[vcpu], vcpu, program(4, write=True), 1)
        assert violations(s) == ({"stale-translation": 1} if injected and vcpu == 1 else {})
    if injected:
        assert evidence(s, Kind.STALE_TRANSLATION)["detail"] == STILL_FORBIDDEN
    assert bool(s.tally[ACTED]) == injected
