"""Exploration by partial-order reduction finds what brute force finds; memory is x86-TSO; what blocks is seen."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random

import pytest
from played import explored
from small_programs import Program, State, brute_force, random_program, reduced, world_of

from stress.shm.atomics import exchange, load, store
from stress.shm.mode import JIT_DISABLED
from stress.shm.processor import use
from stress.verify.dpor import Dpor, explore
from stress.verify.hooks import Stopping
from stress.verify.stops import Shared
from stress.verify.world import World

pytestmark = [
    pytest.mark.thorough,
    pytest.mark.skipif(not JIT_DISABLED, reason="compiled code cannot be stopped between two accesses"),
]


def outcomes(program: Program, *, tso: bool, words: int = 3) -> set[State]:
    """Final states, which brute force agrees with."""
    world = world_of(program, tso=tso, words=words)
    found, _ = reduced(world)
    every = brute_force(world, 100_000)
    assert every is not None
    assert found == every[0]
    return found


def notes(found: set[State], words: int = 3) -> set[tuple[int, ...]]:
    """What the actors noted, in the order of their words."""
    return {tuple(value - 100 for word, value in memory if word >= words) for memory, _ in found}


def by_actor(found: set[State], words: int = 3) -> set[tuple[tuple[int, ...], ...]]:
    """The same for each of two actors."""
    return {
        tuple(tuple(value - 100 for word, value in memory if first <= word - words < first + 16) for first in (0, 16))
        for memory, _ in found
    }


@pytest.mark.parametrize("seed", range(8))
def test_the_reduction_loses_no_final_state(seed: int) -> None:
    """Of random programs with loads, stores, atomics, fences, membarriers, locks and waits."""
    random = Random(seed)
    compared = reductions = schedules = 0
    while compared < 12:
        words = random.choice([1, 2, 2, 3])
        program, tso = random_program(random, words), random.random() < 0.6
        world = world_of(program, tso=tso, words=words + 1)
        found, played = reduced(world)
        every = brute_force(world, 2000)
        if every is None:
            continue
        assert found == every[0], program
        compared += 1
        reductions += played
        schedules += every[1]
    assert schedules > 1.5 * reductions


def test_a_race_between_two_plain_stores_is_found() -> None:
    """Neither loads anything: only that both are steps tells which comes last."""
    found = outcomes([[("store", 0, 1)], [("store", 0, 2)]], tso=False)
    assert {dict(memory)[0] for memory, _ in found} == {1, 2}


def test_schedules_that_cannot_differ_are_played_once() -> None:
    world = world_of([[("store", 0, 1), ("load", 0)], [("store", 1, 1), ("load", 1)]], tso=True, words=2)
    assert reduced(world)[1] == 1
    world = world_of([[("load", 0)], [("load", 0)], [("load", 0)]], tso=True, words=2)
    assert reduced(world)[1] == 1


STORE_BUFFERING = [[("store", 0, 1), ("load", 1)], [("store", 1, 1), ("load", 0)]]


def test_stores_are_buffered_under_tso_alone() -> None:
    assert (0, 0) in notes(outcomes(STORE_BUFFERING, tso=True))
    assert (0, 0) not in notes(outcomes(STORE_BUFFERING, tso=False))


@pytest.mark.parametrize("between", [("fence",), ("add", 2, 1)])
def test_a_fence_or_an_atomic_drains_the_buffer(between: tuple[str | int, ...]) -> None:
    program = [[first, between, second] for first, second in STORE_BUFFERING]
    assert (0, 0) not in {(first[-1], second[-1]) for first, second in by_actor(outcomes(program, tso=True))}


def test_a_membarrier_drains_the_others() -> None:
    """One side needs no fence of its own: the live run's vCPUs have none."""
    fast, slow = STORE_BUFFERING
    assert (0, 0) not in notes(outcomes([fast, [slow[0], ("barrier",), slow[1]]], tso=True))
    assert (0, 0) in notes(outcomes([fast, [slow[0], ("fence",), slow[1]]], tso=True))


def test_loads_are_not_reordered() -> None:
    found = notes(outcomes([[("store", 0, 1), ("store", 1, 1)], [("load", 1), ("load", 0)]], tso=True))
    assert (1, 0) not in found
    assert (1, 1) in found


def test_a_deadlock_is_an_end_of_its_own() -> None:
    crossed = [
        [("lock", 0), ("lock", 1), ("store", 1, 0), ("store", 0, 0)],
        [("lock", 1), ("lock", 0), ("store", 0, 0), ("store", 1, 0)],
    ]
    found = outcomes(crossed, tso=True)
    assert {done for _, done in found} == {(True, True), (False, False)}


def test_who_waits_for_a_word_sees_it_pass() -> None:
    """What it waits for is there for a moment only: it may go on or stay for ever."""
    found = outcomes([[("store", 0, 1), ("store", 0, 2)], [("await", 0, 1)]], tso=False)
    assert {done for _, done in found} == {(True, True), (True, False)}


def test_who_try_again_under_a_lock_do_not_wake_each_other() -> None:
    """Each tries until its own word is set, which a third does under the same lock. A third try shows nothing new."""
    world = World()
    lock, asked = world.region("lock", (1,)), world.region("asked", (2,))

    def locked(me: int, work: Callable[[], int | None]) -> int | None:
        world.lock(lock.place(0), me + 1)
        found = work()
        store(lock, 0, 0)
        return found

    def try_until_set(me: int) -> None:
        while load(asked, me - 1) == 0 and locked(me, lambda: load(asked, me - 1)) == 0:
            world.try_again()

    world.actor("who sets", lambda: [locked(0, partial(store, asked, each, 1)) for each in range(2)])
    for me in (1, 2):
        world.actor(f"who tries {me}", partial(try_until_set, me))
    world.keep()
    turns: set[int] = set()

    def judge() -> None:
        turns.update(one.turns for one in world.team)

    assert explored(world, judge) > 100
    assert turns == {0, 1, 2}


def test_who_takes_a_lock_alone_excludes_those_who_share_it() -> None:
    """Readers meet all that the writer does or nothing of it, and do not depend on each other: four schedules."""
    world = World()
    alone, shared = world.region("alone", (1,)), world.region("shared", (2,))
    data = world.region("data", (2,))
    read: dict[int, tuple[int, int]] = {}

    def write() -> None:
        world.lock(alone.place(0), 1, (shared.place(0), shared.place(1)))
        store(data, 0, 1)
        store(data, 1, 1)
        store(alone, 0, 0)

    def look(me: int) -> None:
        world.lock(shared.place(me), 1, (alone.place(0),))
        read[me] = load(data, 0), load(data, 1)
        exchange(shared, me, 0)

    world.actor("writer", write)
    for me in (0, 1):
        world.actor(f"reader {me}", partial(look, me))
    world.keep()
    found: set[tuple[tuple[int, int], ...]] = set()
    assert explored(world, lambda: found.add((read[0], read[1]))) == 4
    assert found == {(one, other) for one in ((0, 0), (1, 1)) for other in ((0, 0), (1, 1))}


def test_who_tries_again_is_woken_by_a_writer_that_was_never_met() -> None:
    """Only where the third actor meets the second's store does it store to what the first waits for."""
    world = World(tso=False)
    memory = world.region("memory", (2,))

    def try_until_set() -> None:
        store(memory, 0, 1)
        while load(memory, 0) != 2:
            load(memory, 1)
            world.try_again()

    one = world.actor("who tries", try_until_set)
    world.actor("who begins", lambda: store(memory, 1, load(memory, 0)))
    world.actor("who sets", lambda: store(memory, 0, 2) if load(memory, 1) else None)
    world.keep()
    ends: set[tuple[int, bool]] = set()
    with use(Stopping(world)):
        explore(world, lambda _: ends.add((world.words[0], one.done)))
    assert ends == {(2, True), (1, False)}


def test_who_tries_again_for_its_own_word_alone_waits_for_others() -> None:
    world = World(tso=False)
    memory = world.region("memory", (1,))

    def try_until_set() -> None:
        while load(memory, 0) == 0:
            world.try_again()

    world.actor("who tries", try_until_set)
    world.actor("who sets", lambda: store(memory, 0, 1))
    world.keep()
    assert explored(world, lambda: None) > 0


def test_a_word_that_is_found_shared_begins_the_exploration_anew() -> None:
    world = World()
    memory = world.region("memory", (2,))
    world.actor("one", lambda: store(memory, 0, 1))
    world.actor("other", lambda: store(memory, 1, load(memory, 0)))
    world.keep()
    with use(Stopping(world)):
        with pytest.raises(Shared):
            list(Dpor(world).schedules())
        assert world.visible == {0}
        assert len(list(Dpor(world).schedules())) == 2


def test_what_an_attempt_read_that_is_thrown_away_is_not_explored() -> None:
    """It is thrown away whatever it read: once. One that counts may have read 0 or 2 from either word."""
    program: Program = [[("store", 0, 2), ("store", 1, 2), ("publish",)], [("try", 0, 1)]]
    assert {values for _, values in by_actor(outcomes(program, tso=False))} == {(0, 0), (0, 2), (2, 0), (2, 2)}
    world = world_of(program, tso=False, words=2)
    assert reduced(world)[1] == 5


@pytest.mark.parametrize("other", ["bits", "set", "clear"])
def test_parts_of_a_word_are_words_of_their_own_to_who_accesses_them_alone(other: str) -> None:
    for bits, schedules in ((1, 1), (2, 2), (3, 2)):
        world = world_of([[("set", 0, 2)], [(other, 0, bits)]], tso=False, words=1)
        assert reduced(world)[1] == schedules
        outcomes([[("set", 0, 2)], [(other, 0, bits)]], tso=False)


def test_the_low_part_of_a_word_that_nobody_looks_at_is_not_explored() -> None:
    world = world_of([[("add", 0, 1)], [("try", 0)]], tso=False, words=1)
    assert reduced(world)[1] == 1
    world = world_of([[("add", 0, 2)], [("try", 0)]], tso=False, words=1)
    assert reduced(world)[1] == 2
