"""Two fault handlers, or a handler and a rebuild, under a shared mmu_lock: in every schedule of theirs that can differ,
and in schedules by chance with store buffers, the table is sound, nothing is reported, and both have what they wanted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pytest
from machines import ALL, Tree, assert_sound, block_leaf, fault, split_block

from stress.arch.geometry import KIB
from stress.kernels import entries
from stress.kernels import fault as fault_module
from stress.kernels.clean import write_through_cache
from stress.kernels.codes import PERMISSION, POPULATION, REBUILT, RETRY, SPURIOUS
from stress.kernels.dirty import set_logging
from stress.kernels.rebuild import rebuild
from stress.kernels.split import DONE
from stress.kernels.teardown import reap
from stress.orders import BLOCK_FIRST_DEFERRED, CLEAN_FIRST_UNLOCKED, NAMED_ORDERS, NT, UNMAP_FIRST, Order
from stress.shm.layout import Machine
from stress.shm.mode import JIT_DISABLED
from stress.shm.toy import ToyGeometry, toy_geo
from stress.shm.words import DIRTY_SHIFT, NOT_AT_POC, SLOT_LOGGING

if not JIT_DISABLED:
    pytest.skip("compiled code cannot be stopped between two accesses", allow_module_level=True)

from played import played

from stress.verify.dpor import explore
from stress.verify.hooks import Hooks
from stress.verify.scene import machine_on
from stress.verify.world import World

pytestmark = pytest.mark.thorough

PAGES = 2
LAST = PAGES - 1  # the one that a share of 1 / PAGES maps
ONE_PAGE = ALL // PAGES
HYPERVISOR = 2
BY_CHANCE = 50  # schedules of each kind


def dirty_pages(s: Machine) -> set[int]:
    return {page for page in range(s.geo.pages) if int(s.dirty[page >> DIRTY_SHIFT]) >> (page % 32) & 1}


def fault_until_done(s: Machine, who: int, page: int, write: int) -> int:
    """What a vCPU does: it goes back to the guest and faults again, until there is nothing to retry."""
    while True:
        found = int(fault_module.handle(s, who, s.geo.base_gfn + page, write, 0, 3))
        if found != RETRY:
            return found


Work = Callable[[Machine], int]
Found = tuple[int, int]


def faults(who: int, page: int, write: int = 0) -> Work:
    return lambda s: fault_until_done(s, who, page, write)


def rebuilds(s: Machine) -> int:
    return int(rebuild(s, HYPERVISOR, s.geo.base_gfn))


class Case(NamedTuple):
    """Two that race: the machine's policy, how it is prepared, what they do, and what must have come out."""

    name: str
    policy: dict[str, Any]
    prepare: Callable[[Machine], object]
    works: tuple[Work, Work]
    check: Callable[[Machine, Tree, Found], None]


def prepared(
    *, logging: bool = False, share: int | None = None, writable: int = 1, order: Order | None = None
) -> Callable[[Machine], None]:
    """Block 0 is not mapped, or split."""

    def prepare(s: Machine) -> None:
        if share is not None:
            assert split_block(s, 0, share, writable=writable) == DONE
        s.memslots[0, SLOT_LOGGING] = int(logging)
        if order is not None:
            for at, code in enumerate(order.codes):
                s.orders[0, at] = code

    return prepare


def protected_block(s: Machine) -> None:
    """Mapped as a block before dirty logging began."""
    assert fault(s, s.geo.base_gfn) == POPULATION
    assert set_logging(s, HYPERVISOR, 1) == 1


def pages(tree: Tree, writable: bool | None = None) -> set[int]:
    """Frames mapped as pages."""
    assert all(leaf.level == 3 for leaf in tree.leaves)
    return {leaf.frame for leaf in tree.leaves if writable is None or leaf.writable == writable}


def a_block(s: Machine, tree: Tree, found: Found) -> None:
    assert tree.leaves == [block_leaf(s.geo, 0)]
    assert POPULATION in found
    assert set(found) <= {POPULATION, SPURIOUS}


def both_pages(s: Machine, tree: Tree, found: Found) -> None:
    assert pages(tree) == {0, 1}
    assert found == (POPULATION, POPULATION)


def page_0(s: Machine, tree: Tree, found: Found) -> None:
    assert pages(tree) == {0}
    assert sorted(found) in ([SPURIOUS, POPULATION], [POPULATION, PERMISSION])


def both_split(s: Machine, tree: Tree, found: Found) -> None:
    """The table is made once; who comes second finds it, or has to try again."""
    assert pages(tree, writable=True) == {0, 1}
    assert dirty_pages(s) == {0, 1}
    assert PERMISSION in found
    assert set(found) <= {PERMISSION, POPULATION}


def one_split(s: Machine, tree: Tree, found: Found) -> None:
    assert pages(tree, writable=True) == {0}
    assert dirty_pages(s) == {0}
    # Or who split it found the page mapped then, by the other.
    assert PERMISSION in found or sorted(found) == [SPURIOUS, POPULATION]


def one_relaxed(s: Machine, tree: Tree, found: Found) -> None:
    assert pages(tree, writable=True) == pages(tree) == {LAST}
    assert dirty_pages(s) == {LAST}
    assert PERMISSION in found
    assert set(found) <= {PERMISSION, SPURIOUS}


CASES = [
    Case("map a block", {}, prepared(), (faults(0, 0), faults(1, 1)), a_block),
    Case("add a table", {}, prepared(logging=True), (faults(0, 0, 1), faults(1, 1)), both_pages),
    Case("map a page", {}, prepared(logging=True), (faults(0, 0), faults(1, 0, 1)), page_0),
    Case("fill a table", {}, prepared(logging=True, share=0), (faults(0, 0), faults(1, 1, 1)), both_pages),
    Case("split a block", {}, protected_block, (faults(0, 0, 1), faults(1, 1, 1)), both_split),
    Case("split for a page", {}, protected_block, (faults(0, 0, 1), faults(1, 0, 1)), one_split),
    Case(
        "relax a page",
        {},
        prepared(logging=True, share=ONE_PAGE, writable=0),
        (faults(0, LAST, 1), faults(1, LAST, 1)),
        one_relaxed,
    ),
]


def rebuild_cases(order: Order) -> Iterator[Case]:
    """A rebuild against everything else that may happen to the block's pages."""
    policy = {"bbm_level": order.bbm_level}
    wants = {"vcpu_rebuilds": True, **policy}

    def the_block(s: Machine, tree: Tree, found: Found) -> None:
        assert tree.leaves == [block_leaf(s.geo, 0)]

    def rebuilt_once(s: Machine, tree: Tree, found: Found) -> None:
        the_block(s, tree, found)
        assert REBUILT in found or found[1] == DONE

    def dirty(s: Machine) -> None:
        """Two pages that nobody has mapped are not at the PoC, where the guest would look."""
        prepared(share=0, order=order)(s)
        for frame in range(PAGES):
            write_through_cache(s, frame)

    def at_poc(s: Machine, tree: Tree, found: Found) -> None:
        """Each has cleaned what it mapped, whoever came first, and the count knows."""
        the_block(s, tree, found)
        assert s.unclean.tolist() == [0]
        assert not (s.cells & NOT_AT_POC).any()

    partly, empty = prepared(share=ONE_PAGE, order=order), prepared(share=0, order=order)
    protected = prepared(share=ONE_PAGE, writable=0, order=order)
    no_fwb = {"fwb": False, "guest_caches": False, **policy}
    yield Case(f"{order.name}: two vCPUs", wants, partly, (faults(0, 0), faults(1, 0)), rebuilt_once)
    yield Case(f"{order.name}: vCPU and hypervisor", wants, partly, (faults(0, 0), rebuilds), rebuilt_once)
    yield Case(f"{order.name}: map a page", policy, empty, (faults(0, 0, 1), rebuilds), the_block)
    yield Case(f"{order.name}: clean a page", no_fwb, dirty, (faults(0, 0, 1), rebuilds), at_poc)
    yield Case(f"{order.name}: relax a page", policy, protected, (faults(0, LAST, 1), rebuilds), the_block)


#: Orders that differ in what others can meet; at random schedules all are played.
DIFFERENT = (UNMAP_FIRST, BLOCK_FIRST_DEFERRED, CLEAN_FIRST_UNLOCKED, NT)
EXPLORED = [*CASES, *(case for order in DIFFERENT for case in rebuild_cases(order))]
#: Its schedules that can differ are 9,000.
LONG = "split a block"
#: And its are more than 60,000: it is played by chance alone.
TOO_LONG = "split for a page"
ALL_CASES = [*CASES, *(case for order in NAMED_ORDERS.values() for case in rebuild_cases(order))]


class Race:
    """A case on a toy machine, as a world whose schedules can be played."""

    def __init__(self, hooks: Hooks, case: Case, *, tso: bool) -> None:
        self._case = case
        self.world = world = World(tso=tso)
        hooks.attach(world)
        geometry = ToyGeometry(granule=64 * KIB, block_pages=PAGES)
        self._s = machine_on(world, toy_geo(geometry, vcpus=2, shared=True, **case.policy))
        case.prepare(self._s)
        world.keep()
        self._found: dict[int, int] = {}
        self._ends: set[tuple[tuple[int, int], ...]] = set()  # those that were checked
        world.at_reset(self._found.clear)
        for number in range(len(case.works)):
            world.actor(f"handler {number}", partial(self._work, number))

    def _work(self, number: int) -> None:
        self._found[number] = self._case.works[number](self._s)

    def check(self) -> Found:
        """Both have ended, in the state that they should; what they returned."""
        assert all(one.done for one in self.world.team), "they wait for each other"
        found = self._found[0], self._found[1]
        words = self.world.words
        end = (*sorted(words.items()), found)
        if end in self._ends:
            return found
        self._ends.add(end)
        reap(self._s, HYPERVISOR)
        arrays = {
            name: np.array([words.get(first + at, 0) for at in range(int(np.prod(shape)))], np.int64).reshape(shape)
            for first, name, shape in self.world.names
        }
        s = Machine(**arrays, geo=self._s.geo)
        self._case.check(s, assert_sound(s), found)
        return found


@pytest.fixture
def hooks() -> Iterator[Hooks]:
    with Hooks() as hooks:
        yield hooks


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=case.name, marks=[pytest.mark.soak] * (case.name == LONG))
        for case in EXPLORED
        if case.name != TOO_LONG
    ],
)
def test_every_schedule(hooks: Hooks, case: Case) -> None:
    race = Race(hooks, case, tso=False)
    results: set[Found] = set()
    count = explore(race.world, lambda _: results.add(race.check()))
    assert count > 1
    if case.check is not both_pages:
        assert len(results) > 1, "who comes first makes a difference"


@pytest.mark.parametrize("case", ALL_CASES, ids=lambda case: case.name)
def test_schedules_by_chance(hooks: Hooks, case: Case) -> None:
    race = Race(hooks, case, tso=True)
    for _ in played(race.world, BY_CHANCE):
        race.check()


def test_an_entry_replaced_without_a_compare_and_swap_is_found(hooks: Hooks, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the cases above are about: two that change an entry at once."""

    def torn(tables: Any, index: int, old: int, new: int) -> bool:
        if tables[index] != old:
            return False
        tables[index] = new
        return True

    monkeypatch.setattr(entries, "compare_exchange", torn)
    race = Race(hooks, CASES[0], tso=False)
    unsound = 0
    for _ in played(race.world, BY_CHANCE):
        try:
            race.check()
        except AssertionError:
            unsound += 1
    assert unsound > 0
