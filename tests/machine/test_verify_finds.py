"""What is wrong is found within ten seconds: bugs as `stress bugs` says, wrong orders by every scheduler and seed."""

from __future__ import annotations

import click
import pytest
from basic_orders import is_correct

from stress.bugs import BUGS
from stress.cli.verify import verify as verify_command
from stress.orders import parse_order
from stress.shm.mode import JIT_DISABLED

if not JIT_DISABLED:
    pytest.skip("compiled code cannot be stopped between two accesses", allow_module_level=True)

from stress.verify.hooks import Hooks
from stress.verify.session import bounds_for, orders_for
from stress.verify.showing import RUN_ALONE, order_that_shows, settings_that_show
from stress.verify.verification import Judgement, Scheduler, Verified, verify

pytestmark = pytest.mark.thorough

DEFAULTS = {option.name: option.default for option in verify_command.params if isinstance(option, click.Option)}
FOUND = [name for name in BUGS if name not in RUN_ALONE]
CHANCE = (Scheduler.RANDOM, Scheduler.PCT)
SEEDS = range(10)
SOON_NS = 10**10
#: Who finds something ends: it takes a second, or minutes on a core that others use.
AMPLE_NS = 28 * SOON_NS

#: One for each step left out, and for each two that stand the wrong way round.
WRONG = (
    "tlbi,clean,install,unmap",
    "invalidate,clean,install,unmap",
    "invalidate,tlbi,install,unmap",
    "invalidate,tlbi,clean,install",
    "tlbi,invalidate,clean,install,unmap",
    "invalidate,clean,install,tlbi,unmap",
    "invalidate,unmap,tlbi,clean,install",
    "invalidate,tlbi,install,clean,unmap",
    "install,tlbi,invalidate,clean,unmap",
    "invalidate,tlbi,unmap,install,clean",
)


def shown(name: str, limit_ns: int, seed: int = 1) -> Verified:
    """What the command that `stress bugs` names for a bug finds."""
    options = {**DEFAULTS, **settings_that_show(name)}
    [order], bug = orders_for([order_that_shows(name)], name)
    with Hooks() as hooks:
        scheduler = Scheduler(options["scheduler"])
        return verify(hooks, order, bounds_for(order, options, bug), limit_ns, scheduler, seed)


def refuted(steps: str, scheduler: Scheduler, limit_ns: int, seed: int = 1) -> bool:
    """Whether `stress verify STEPS` finds it wrong."""
    order = parse_order(steps)
    bounds = bounds_for(order, {**DEFAULTS, "fwb": False}, None)
    with Hooks() as hooks:
        return verify(hooks, order, bounds, limit_ns, scheduler, seed).judgement is Judgement.VIOLATION


@pytest.mark.parametrize("name", FOUND)
def test_a_bug_is_found_as_stress_bugs_says(name: str) -> None:
    result = shown(name, AMPLE_NS)
    assert result.judgement is Judgement.VIOLATION
    assert set(result.kinds) & set(BUGS[name].kinds)


@pytest.mark.soak
@pytest.mark.parametrize("name", FOUND)
def test_every_bug_is_found_soon_whatever_the_seed(name: str) -> None:
    by_chance = settings_that_show(name).get("scheduler") is not None
    for seed in SEEDS if by_chance else (1,):
        assert set(shown(name, SOON_NS, seed).kinds) & set(BUGS[name].kinds), seed


@pytest.mark.parametrize("scheduler", CHANCE)
@pytest.mark.parametrize("steps", WRONG[1:8:3])
def test_some_wrong_orders_are_refuted_by_chance(steps: str, scheduler: Scheduler) -> None:
    assert all(refuted(steps, scheduler, AMPLE_NS, seed) for seed in (1, 2))


@pytest.mark.soak
@pytest.mark.parametrize("scheduler", Scheduler)
@pytest.mark.parametrize("steps", WRONG)
def test_every_wrong_order_is_refuted_soon_whatever_the_seed(steps: str, scheduler: Scheduler) -> None:
    assert not is_correct(parse_order(steps).steps)
    seeds = SEEDS if scheduler in CHANCE else (1,)
    assert [seed for seed in seeds if not refuted(steps, scheduler, SOON_NS, seed)] == []
