"""Named orders with vCPUs beside them on a table larger than proofs have, in schedules by chance: nothing is reported.

Each vCPU comes back to its pages, so that it meets what its TLB kept, before, in and after the window.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import pytest

from stress.kernels.codes import REBUILT
from stress.orders import NAMED_ORDERS, Order, parse_order
from stress.shm.accounts import C_FAULTS
from stress.shm.mode import JIT_DISABLED

if not JIT_DISABLED:
    pytest.skip("compiled code cannot be stopped between two accesses", allow_module_level=True)

from played import played

from stress.verify.hooks import Hooks
from stress.verify.scene import Bounds, Scene
from stress.verify.verification import note_sights

pytestmark = pytest.mark.thorough

SCHEDULES = 40  # of each kind
PAGES = 8
PARTIAL = PAGES * 3 // 4  # mapped: population faults, which end a schedule early, are few
BOUNDS = Bounds(pages=PAGES, populated=PARTIAL, accesses=8)


@pytest.fixture
def hooks() -> Iterator[Hooks]:
    with Hooks() as hooks:
        yield hooks


def play_many(hooks: Hooks, order: Order, bounds: Bounds) -> tuple[Counter[str], Counter[str]]:
    """(violations, what else happened) over many schedules; without FWB the guest's caches are off."""
    bounds = replace(bounds, guest_caches=bounds.fwb, bbm_level=order.bbm_level)
    scene = Scene(hooks, order, bounds, None)
    found: Counter[str] = Counter()
    happened: Counter[str] = Counter()
    for _ in played(scene.world, SCHEDULES):
        kinds, _ = scene.judge()
        found.update(kinds)
        note_sights(scene, happened)
        happened["rebuilt by a vCPU's fault"] += scene.counted(C_FAULTS + REBUILT)
    return found, happened


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("fwb", [True, False])
@pytest.mark.parametrize("populated", [PARTIAL, PAGES])
@pytest.mark.parametrize("name", NAMED_ORDERS)
def test_a_named_order_is_never_reported(hooks: Hooks, name: str, populated: int, fwb: bool, shared: bool) -> None:
    order = NAMED_ORDERS[name]
    found, happened = play_many(hooks, order, replace(BOUNDS, populated=populated, fwb=fwb, shared=shared))
    assert found == {}
    if order.bbm_level == 0:
        assert happened["window faults"] > 5, "a vCPU met the window"
    else:
        assert happened["window faults"] == 0, "there is none"
    assert happened["redone accesses"] > 5, "a TLBI overtook one"


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("populated", [PARTIAL, PAGES])
@pytest.mark.parametrize("name", NAMED_ORDERS)
def test_two_vcpus_that_want_the_block(hooks: Hooks, name: str, populated: int, shared: bool) -> None:
    """Either may rebuild; where others are let in meanwhile, one of them may find that it came too late."""
    order = NAMED_ORDERS[name]
    bounds = replace(BOUNDS, populated=populated, fwb=False, shared=shared, vcpu_rebuilds=True)
    found, happened = play_many(hooks, order, bounds)
    assert found == {}
    assert happened["redone accesses"] > 5
    if populated == PARTIAL:
        assert happened["rebuilt by a vCPU's fault"] > 0
        assert (happened["lost races"] > 0) == (shared or order.looks_again)


@pytest.mark.parametrize(("populated", "fwb"), [(PAGES, False), (PARTIAL, True)])
def test_without_the_clean_nothing_else_is_wrong(hooks: Hooks, populated: int, fwb: bool) -> None:
    """With every page mapped, or with FWB, there is nothing to clean."""
    order = parse_order("invalidate,tlbi,install,unmap")
    found, _ = play_many(hooks, order, replace(BOUNDS, populated=populated, fwb=fwb))
    assert found == {}
    found, _ = play_many(hooks, order, replace(BOUNDS, populated=PARTIAL, fwb=False))
    assert set(found) == {"not-at-poc"}
