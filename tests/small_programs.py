"""Programs of a few accesses for actors that share a few words, and all their schedules by brute force."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from stress.shm.atomics import clear_bits, compare_exchange, fetch_add, load, load_bits, set_bits, store
from stress.shm.processor import use
from stress.verify.dpor import explore
from stress.verify.hooks import Stopping
from stress.verify.world import World

Operation = tuple[str | int, ...]
Program = Sequence[Sequence[Operation]]
#: Those on some bits of a word: of the low part, the rest, or both.
ON_BITS = {"bits": load_bits, "set": set_bits, "clear": clear_bits}
#: All words, and who came to its end.
State = tuple[tuple[tuple[int, int], ...], tuple[bool, ...]]


def world_of(program: Program, *, tso: bool, words: int) -> World:
    """A world whose actors each run one line of a program, and note what they read in words of their own."""
    world = World(tso=tso)
    memory = world.region("memory", (words,))
    sequence = world.region("sequence", (1,))
    noted = world.region("noted", (len(program), 16))
    world.split = range(memory.place(0), memory.place(0) + words), 1

    def work(me: int, operations: Sequence[Operation]) -> Callable[[], None]:
        def run() -> None:
            notes = []
            seen = 0
            for what, *rest in operations:
                at, *values = map(int, rest or (0,))
                if what == "load":
                    notes.append(load(memory, at))
                elif what == "store":
                    store(memory, at, values[0])
                elif what == "exchange":
                    notes.append(int(compare_exchange(memory, at, values[0], values[1])))
                elif what == "add":
                    notes.append(fetch_add(memory, at, values[0]))
                elif what in ON_BITS:
                    notes.append(ON_BITS[what](memory, at, values[0]))
                elif what == "publish":
                    fetch_add(sequence, 0, 1)
                elif what == "try":  # loads that count only if the sequence has not moved, as an access of a vCPU
                    while True:
                        world.attempt(sequence.place(0))
                        tried = [load(memory, place) & ~1 for place in (at, *values)]
                        if load(sequence, 0) == seen:
                            break
                        world.attempt_ends(well=False)
                        seen = load(sequence, 0)
                    world.attempt_ends(well=True)
                    notes += tried
                elif what == "fence":
                    world.fence()
                elif what == "barrier":
                    world.membarrier()
                elif what == "await":
                    while load(memory, at) != values[0]:
                        world.spin()
                elif what == "lock":
                    world.lock(memory.place(at), me + 1)
                else:
                    raise ValueError(what)
                for place, note in enumerate(notes):
                    noted[me, place] = 100 + note

        return run

    for me, operations in enumerate(program):
        world.actor(f"actor {me}", work(me, operations))
    world.keep()
    return world


def state_of(world: World) -> State:
    """What a schedule left."""
    return tuple(sorted(world.words.items())), tuple(one.done for one in world.team)


def reduced(world: World) -> tuple[set[State], int]:
    """Final states of all schedules that can differ, and how many schedules were played."""
    found: set[State] = set()
    with use(Stopping(world)):
        played = explore(world, lambda _: found.add(state_of(world)))
    return found, played


def brute_force(world: World, most: int) -> tuple[set[State], int] | None:
    """Final states of every schedule there is, and how many there are; None if there are more than ``most``.

    Words are known as shared from a reduced exploration before.
    """
    found: set[State] = set()
    played = 0
    with use(Stopping(world)):
        waiting: list[list[int]] = [[]]
        while waiting:
            choices = waiting.pop()
            world.reset()
            for choice in choices:
                world.step(choice)
            while enabled := world.enabled():
                waiting += [[*choices, other] for other in enabled[1:]]
                world.step(enabled[0])
                choices = [*choices, enabled[0]]
            found.add(state_of(world))
            played += 1
            if played > most:
                return None
    return found, played


def random_program(random: Random, words: int) -> list[list[Operation]]:
    """Two or three actors with a few operations each."""
    actors = random.choice([2, 2, 3])
    program: list[list[Operation]] = []
    for _ in range(actors):
        operations: list[Operation] = []
        for _ in range(random.randint(1, 4 if actors == 2 else 3)):
            at, chance = random.randrange(words), random.random()
            if chance < 0.28:
                operations.append(("load", at))
            elif chance < 0.56:
                operations.append(("store", at, random.randint(1, 2)))
            elif chance < 0.63:
                operations.append(("exchange", at, random.randint(0, 2), random.randint(1, 2)))
            elif chance < 0.69:
                operations.append(("add", at, 1))
            elif chance < 0.79:
                operations.append((random.choice([*ON_BITS]), at, random.randint(1, 3)))
            elif chance < 0.83:
                operations.append(("fence",))
            elif chance < 0.88:
                operations.append(("barrier",))
            elif chance < 0.92:
                operations.append(("publish",))
            elif chance < 0.96:
                operations.append(("try", at, random.randrange(words)))
            else:
                operations.append(("await", at, random.randint(0, 2)))
        if random.random() < 0.3:
            at = random.randint(0, len(operations))
            operations[at : at + 2] = [("lock", words), *operations[at : at + 2], ("store", words, 0)]
        program.append(operations)
    return program
