"""The reduction against brute force on the real kernels: every schedule of a machine that is small enough.

Brute force goes on from each state once. Two states are one if memory, buffers, and all that each actor did and loaded
so far are the same: kernels are deterministic, and nothing else can differ.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from stress.orders import parse_order
from stress.shm.mode import JIT_DISABLED

if not JIT_DISABLED:
    pytest.skip("compiled code cannot be stopped between two accesses", allow_module_level=True)

from stress.verify.dpor import explore
from stress.verify.hooks import Hooks
from stress.verify.scene import Bounds, Scene
from stress.verify.stops import Shared
from stress.verify.verification import look_around

pytestmark = pytest.mark.thorough


@pytest.fixture
def hooks() -> Iterator[Hooks]:
    with Hooks() as hooks:
        yield hooks


def end(scene: Scene) -> tuple[object, ...]:
    """What a schedule led to."""
    found, _ = scene.judge()
    protocol = {at: its for at, its in scene.world.words.items() if its and not scene.world.accounts(at)}
    held = tuple((*cpu.key, *cpu.walk_key) for cpu in scene.cpus)
    return tuple(sorted(protocol.items())), held, frozenset(found)


def brute_force(scene: Scene) -> tuple[set[tuple[object, ...]], int]:
    """Where all schedules end, and how many states there are."""
    world = scene.world
    did: list[list[tuple[Any, ...]]] = [[] for _ in world.team]
    world.watcher = lambda actor, *what: did[actor].append(what)
    known: set[tuple[object, ...]] = set()
    ends: set[tuple[object, ...]] = set()

    def state() -> tuple[object, ...]:
        memory = tuple(sorted((at, its) for at, its in world.words.items() if not world.accounts(at)))
        actors = tuple(
            (tuple(what), one.done, one.does, one.at, tuple(one.barrier), one.landed, tuple(one.waits.items()))
            for what, one in zip(did, world.team, strict=True)
        )
        return memory, actors, tuple(tuple((at, its) for at, its, _ in one.buffer) for one in world.team)

    waiting: list[list[int]] = [[]]
    while waiting:
        choices = waiting.pop()
        for each in did:
            each.clear()
        world.reset()
        for choice in choices:
            world.step(choice)
        while (now := state()) not in known:
            known.add(now)
            enabled = world.enabled()
            if not enabled:
                ends.add(end(scene))
                break
            waiting += [[*choices, other] for other in enabled[1:]]
            choices = [*choices, enabled[0]]
            world.step(enabled[0])
    world.watcher = None
    return ends, len(known)


def settled(scene: Scene, play: Callable[[], Any]) -> Any:
    """What ``play`` returns, once all shared words are known."""
    while True:
        try:
            return play()
        except Shared:
            continue


@pytest.mark.parametrize(
    ("order", "more"),
    [
        ("block-first", {}),
        ("clean-first", {"tso": True}),
        ("invalidate,clean,install,unmap", {}),
        ("clean,install,unmap,tlbi", {"bbm_level": 2}),
        ("block-first", {"scenario": "split", "shared": True}),
        pytest.param("block-first", {"accesses": 2}, marks=pytest.mark.soak),
        pytest.param("clean-unlocked", {"accesses": 2, "vcpu_rebuilds": True}, marks=pytest.mark.soak),
        pytest.param("invalidate,unmap,tlbi,clean,install", {"accesses": 3}, marks=pytest.mark.soak),
    ],
)
def test_the_reduction_loses_no_end(hooks: Hooks, order: str, more: dict[str, Any]) -> None:
    limits = {"vcpus": 1, "accesses": 1, "fwb": False, "guest_caches": False, "tso": False, **more}
    scene = Scene(hooks, parse_order(order), Bounds(**limits), None)
    look_around(scene)
    every, states = settled(scene, lambda: brute_force(scene))
    reduced: set[tuple[object, ...]] = set()
    played = explore(scene.world, lambda _: reduced.add(end(scene)))
    assert reduced == every
    assert states > 10 * played
