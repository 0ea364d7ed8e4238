"""Two fault handlers, or a handler and a rebuild, under a shared mmu_lock: one stops before any of its accesses to
shared memory, the other runs to its end (or until it must wait), then the first goes on. For every such place, and for
random schedules besides: the table is sound, nothing is reported, and both have got what they wanted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from random import Random
from typing import Any, NamedTuple

import pytest
from batons import Actor, before_each
from machines import ALL, Tree, assert_sound, block_leaf, fault, set_order, small_machine, split_block

from stress.kernels import abort, clean, entries, grace, mapping, pool, rebuild, records, tlbi
from stress.kernels import fault as fault_module
from stress.kernels.clean import write_through_cache
from stress.kernels.codes import PERMISSION, POPULATION, REBUILT, RETRY, SPURIOUS
from stress.kernels.dirty import set_logging
from stress.kernels.split import DONE
from stress.kernels.teardown import reap
from stress.orders import BLOCK_FIRST_DEFERRED, CLEAN_FIRST_UNLOCKED, NAMED_ORDERS, NT, UNMAP_FIRST, Order
from stress.shm.layout import Machine
from stress.shm.mode import JIT_DISABLED
from stress.shm.words import DIRTY_SHIFT, NOT_AT_POC, SLOT_LOGGING

pytestmark = [
    pytest.mark.thorough,
    pytest.mark.skipif(not JIT_DISABLED, reason="compiled code cannot be stopped between two accesses"),
]

MODULES = (abort, entries, grace, mapping, pool, rebuild, records, tlbi)
ACCESSES = ("load", "store", "compare_exchange", "exchange", "fetch_add", "fetch_max")
PATIENCE = 150  # accesses after which one is taken for waiting
FEW = ALL // 64  # of a block's pages: 63, 127 and so on
HYPERVISOR = 2


def dirty_pages(s: Machine) -> set[int]:
    return {page for page in range(s.geo.pages) if int(s.dirty[page >> DIRTY_SHIFT]) >> (page % 32) & 1}


def fault_until_done(s: Machine, who: int, page: int, write: int) -> int:
    """What a vCPU does: it goes back to the guest and faults again, until there is nothing to retry."""
    while True:
        found = int(fault_module.handle(s, who, s.geo.base_gfn + page, write, 0, 3))
        if found != RETRY:
            return found


Work = Callable[[Machine], int]


def faults(who: int, page: int, write: int = 0) -> Work:
    return lambda s: fault_until_done(s, who, page, write)


def rebuilds(s: Machine) -> int:
    return int(rebuild.rebuild(s, HYPERVISOR, s.geo.base_gfn))


class Case(NamedTuple):
    """Two that race: how the machine is prepared, what they do, and what must have come out."""

    name: str
    prepare: Callable[[], Machine]
    works: tuple[Work, Work]
    check: Callable[[Machine, Tree, tuple[int, int]], None]


def machine(*, logging: bool = False, share: int | None = None, writable: int = 1, **options: Any) -> Machine:
    """Block 0 not mapped, or split."""
    s = small_machine(blocks=1, vcpus=2, shared=True, **options)
    if share is not None:
        assert split_block(s, 0, share, writable=writable) == DONE
    s.memslots[0, SLOT_LOGGING] = logging
    return s


def protected_block() -> Machine:
    """Mapped as a block before dirty logging began."""
    s = machine()
    assert fault(s, s.geo.base_gfn) == POPULATION
    assert set_logging(s, HYPERVISOR, 1) == 1
    return s


def pages(tree: Tree, writable: bool | None = None) -> set[int]:
    """Frames mapped as pages."""
    assert all(leaf.level == 3 for leaf in tree.leaves)
    return {leaf.frame for leaf in tree.leaves if writable is None or leaf.writable == writable}


def a_block(s: Machine, tree: Tree, found: tuple[int, int]) -> None:
    assert tree.leaves == [block_leaf(s.geo, 0)]
    assert POPULATION in found
    assert set(found) <= {POPULATION, SPURIOUS}


def pages_5_and_9(s: Machine, tree: Tree, found: tuple[int, int]) -> None:
    assert pages(tree) == {5, 9}
    assert found == (POPULATION, POPULATION)


def page_5(s: Machine, tree: Tree, found: tuple[int, int]) -> None:
    assert pages(tree) == {5}
    assert sorted(found) in ([SPURIOUS, POPULATION], [POPULATION, PERMISSION])


def both_split(s: Machine, tree: Tree, found: tuple[int, int]) -> None:
    """The table is made once; who comes second finds it, or has to try again."""
    assert pages(tree, writable=True) == {5, 9}
    assert dirty_pages(s) == {5, 9}
    assert PERMISSION in found
    assert set(found) <= {PERMISSION, POPULATION}


def one_split(s: Machine, tree: Tree, found: tuple[int, int]) -> None:
    assert pages(tree, writable=True) == {5}
    assert dirty_pages(s) == {5}
    # Or who split it found the page mapped then, by the other.
    assert PERMISSION in found or sorted(found) == [SPURIOUS, POPULATION]


def one_relaxed(s: Machine, tree: Tree, found: tuple[int, int]) -> None:
    assert pages(tree, writable=True) == {63}
    assert pages(tree) == set(range(63, 512, 64))
    assert dirty_pages(s) == {63}
    assert PERMISSION in found
    assert set(found) <= {PERMISSION, SPURIOUS}


CASES = [
    Case("map a block", machine, (faults(0, 5), faults(1, 9)), a_block),
    Case("add a table", lambda: machine(logging=True), (faults(0, 5, 1), faults(1, 9)), pages_5_and_9),
    Case("map a page", lambda: machine(logging=True), (faults(0, 5), faults(1, 5, 1)), page_5),
    Case("fill a table", lambda: machine(logging=True, share=0), (faults(0, 5), faults(1, 9, 1)), pages_5_and_9),
    Case("split a block", protected_block, (faults(0, 5, 1), faults(1, 9, 1)), both_split),
    Case("split for a page", protected_block, (faults(0, 5, 1), faults(1, 5, 1)), one_split),
    Case(
        "relax a page",
        lambda: machine(logging=True, share=FEW, writable=0),
        (faults(0, 63, 1), faults(1, 63, 1)),
        one_relaxed,
    ),
]


def rebuild_cases(order: Order) -> Iterator[Case]:
    """A rebuild against everything else that may happen to the block's pages."""

    def prepared(share: int, *, writable: int = 1, **options: Any) -> Callable[[], Machine]:
        def prepare() -> Machine:
            s = machine(share=share, writable=writable, bbm_level=order.bbm_level, **options)
            set_order(s, order.steps)
            return s

        return prepare

    def the_block(s: Machine, tree: Tree, found: tuple[int, int]) -> None:
        assert tree.leaves == [block_leaf(s.geo, 0)]

    def rebuilt_once(s: Machine, tree: Tree, found: tuple[int, int]) -> None:
        the_block(s, tree, found)
        assert REBUILT in found or found[1] == DONE

    def dirty() -> Machine:
        """Two pages that nobody has mapped are not at the PoC, where the guest would look."""
        s = prepared(0, fwb=False, guest_caches=False)()
        for frame in (5, 9):
            write_through_cache(s, frame)
        return s

    def at_poc(s: Machine, tree: Tree, found: tuple[int, int]) -> None:
        """Each has cleaned what it mapped, whoever came first, and the count knows."""
        the_block(s, tree, found)
        assert s.unclean.tolist() == [0]
        assert not (s.cells & NOT_AT_POC).any()

    wants = prepared(FEW, vcpu_rebuilds=True)
    yield Case(f"{order.name}: two vCPUs", wants, (faults(0, 5), faults(1, 9)), rebuilt_once)
    yield Case(f"{order.name}: vCPU and hypervisor", wants, (faults(0, 5), rebuilds), rebuilt_once)
    yield Case(f"{order.name}: map a page", prepared(0), (faults(0, 5, 1), rebuilds), the_block)
    yield Case(f"{order.name}: clean a page", dirty, (faults(0, 5, 1), rebuilds), at_poc)
    yield Case(f"{order.name}: relax a page", prepared(FEW, writable=0), (faults(0, 63, 1), rebuilds), the_block)


#: Orders that differ in what others can meet; at random schedules all are played.
DIFFERENT = (UNMAP_FIRST, BLOCK_FIRST_DEFERRED, CLEAN_FIRST_UNLOCKED, NT)
EVERYWHERE = [*CASES, *(case for order in DIFFERENT for case in rebuild_cases(order))]
ALL_CASES = [*CASES, *(case for order in NAMED_ORDERS.values() for case in rebuild_cases(order))]


def race(patch: pytest.MonkeyPatch, case: Case, schedule: Callable[[list[Actor]], int]) -> tuple[int, tuple[int, int]]:
    """Play one schedule and check what came out; (accesses the first made, what both returned)."""
    s = case.prepare()
    actors: list[Actor] = []

    def pause() -> None:
        for actor in actors:
            actor.pause()

    with patch.context() as inner:
        before_each(inner, MODULES, ACCESSES, pause)
        before_each(inner, (clean,), ("fetch_and", "fetch_add"), pause)  # not before it looks at each of the cells
        actors += [Actor(lambda work=work: work(s)) for work in case.works]  # type: ignore[misc]
        made = schedule(actors)
        for _ in range(1000):  # both to their ends, in turn: neither may wait for ever
            for actor in actors:
                for _ in range(PATIENCE):
                    if actor.done:
                        break
                    actor.step()
            if all(actor.done for actor in actors):
                break
    assert all(actor.done for actor in actors), "they wait for each other"
    found = (int(actors[0].result), int(actors[1].result))
    reap(s, HYPERVISOR)
    case.check(s, assert_sound(s), found)
    return made, found


def stopped_at(first: int, place: int) -> Callable[[list[Actor]], int]:
    """One runs up to its so-manyth access, then the other as far as it gets."""

    def schedule(actors: list[Actor]) -> int:
        made = 0
        while made < place and not actors[first].done:
            actors[first].step()
            made += 1
        for _ in range(PATIENCE):
            if actors[1 - first].done:
                break
            actors[1 - first].step()
        return made

    return schedule


def at_random(random: Random) -> Callable[[list[Actor]], int]:
    """Bursts of accesses of either."""

    def schedule(actors: list[Actor]) -> int:
        for _ in range(60):
            actor = random.choice(actors)
            for _ in range(random.choice([1, 1, 2, 5, 20])):
                if not actor.done:
                    actor.step()
        return 0

    return schedule


@pytest.mark.parametrize("case", EVERYWHERE, ids=lambda case: case.name)
def test_a_handler_stopped_anywhere(monkeypatch: pytest.MonkeyPatch, case: Case) -> None:
    results = set()
    for first in (0, 1):
        for place in count():
            made, found = race(monkeypatch, case, stopped_at(first, place))
            results.add(found)
            if made < place:
                break  # it was through before
        assert made > 10, "there were that many places"
    if case.check is not pages_5_and_9:
        assert len(results) > 1, "who comes first makes a difference"


@pytest.mark.parametrize("case", ALL_CASES, ids=lambda case: case.name)
def test_any_schedule(monkeypatch: pytest.MonkeyPatch, case: Case) -> None:
    random = Random(11)
    for _ in range(25):
        race(monkeypatch, case, at_random(random))
