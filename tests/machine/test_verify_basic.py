"""Every basic order on a toy machine: proved are those that the rule calls correct, and no other."""

from __future__ import annotations

import pytest
from basic_orders import BASIC, Steps, is_correct

from stress.orders import Order, enumerate_orders
from stress.shm.mode import JIT_DISABLED

if not JIT_DISABLED:
    pytest.skip("compiled code cannot be stopped between two accesses", allow_module_level=True)

from stress.verify.hooks import Hooks
from stress.verify.scene import Bounds
from stress.verify.verification import Judgement, verify

pytestmark = pytest.mark.thorough

EVERY = list(enumerate_orders(BASIC))
CORRECT = [steps for steps in EVERY if is_correct(steps)]


def judged(hooks: Hooks, steps: Steps, bounds: Bounds) -> Judgement:
    return verify(hooks, Order(",".join(steps), steps, "", ""), bounds, None).judgement


def agree(orders: list[Steps], bounds: Bounds) -> None:
    with Hooks() as hooks:
        wrong = [steps for steps in orders if (judged(hooks, steps, bounds) is Judgement.PROVED) != is_correct(steps)]
    assert wrong == []


def test_a_sample_of_the_basic_orders() -> None:
    assert len(CORRECT) == 7
    agree([*CORRECT, *EVERY[::9]], Bounds(vcpus=1, fwb=False, guest_caches=False, speculating=0))


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_all_basic_orders() -> None:
    assert len(EVERY) == 261
    agree(EVERY, Bounds(vcpus=1, fwb=False, guest_caches=False))
