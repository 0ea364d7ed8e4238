"""A counterexample played again, made simpler, kept in a file and read back."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, NamedTuple

from pydantic import TypeAdapter, ValidationError

from stress.errors import UsageError
from stress.orders import Order, parse_order
from stress.reading import read_bytes
from stress.results import store
from stress.results.counterexamples import MAGIC, VERSION, Timeline
from stress.splits import parse_split_order
from stress.verify.hooks import Hooks
from stress.verify.scene import Scene, check
from stress.verify.stops import Shared
from stress.verify.verification import Counterexample, complexity

_TRIES: Final = 400


def stage(hooks: Hooks, order: Order, example: Counterexample) -> Scene:
    """The machine that a counterexample was found on."""
    scene = Scene(hooks, order, example.bounds, example.guess)
    scene.world.visible.update(example.stops)
    return scene


class Played(NamedTuple):
    """How a schedule went on after some given choices."""

    choices: list[int]  # all of them, to the end of the schedule
    kinds: frozenset[str]
    met: bool  # an access, walk or audit met a violation; a rule alone did not tell of it
    last: int  # how many choices lead to the last violation; all of them if it was found at the end


def follow(scene: Scene, choices: Sequence[int]) -> Played:
    """Play these choices as far as they are possible, then on to the end by the first actor that can go on."""
    world = scene.world
    world.reset()
    made: list[int] = []
    at = last = violations = 0
    while enabled := world.enabled():
        while at < len(choices) and choices[at] not in enabled:
            at += 1
        actor = choices[at] if at < len(choices) else enabled[0]
        at += 1
        world.step(actor)
        made.append(actor)
        if scene.violations() != violations:
            violations, last = scene.violations(), len(made)
    found, met = scene.judge()
    return Played(made, frozenset(found), met, last if sum(found.values()) == violations else len(made))


def simplify(hooks: Hooks, order: Order, example: Counterexample) -> Counterexample:
    """Leave out parts of the schedule as long as it has the same violations: fewer changes of actor, fewer steps."""
    scene = stage(hooks, order, example)
    actors = scene.world.actors // 2
    best = list(example.choices)
    _, wanted, met, _ = follow(scene, best)
    tries = 0
    improved = True
    while improved and tries < _TRIES:
        improved = False
        for variant in _shorter(best):
            tries += 1
            try:
                played = follow(scene, variant)
                # Choices after the last violation can be dropped if the schedule has the same violations without them.
                cut = played.choices[: played.last]
                if complexity(cut, actors) < complexity(best, actors) and _breaks(follow(scene, cut), wanted, met):
                    best, improved = cut, True
                    break
            except Shared:
                return example  # this has never been seen to happen: the example stays as it was found
    choices = tuple(follow(scene, best).choices)
    return replace(example, choices=choices, stops=tuple(sorted(scene.world.visible)))


def _breaks(played: Played, wanted: frozenset[str], met: bool) -> bool:
    return played.kinds >= wanted and played.met == met


def _shorter(choices: list[int]) -> Iterator[list[int]]:
    """All ways to shorten the choices: cut off before a turn, without a turn, with less of a turn."""
    turns = [at for at in range(len(choices)) if at == 0 or choices[at] != choices[at - 1]] + [len(choices)]
    yield from (choices[:cut] for cut in turns)
    yield from (choices[:start] + choices[end:] for start, end in pairwise(turns))
    for start, end in pairwise(turns):
        yield from (choices[:kept] + choices[end:] for kept in range(start + 1, end))


def as_kept(example: Counterexample, timeline: Timeline | None = None) -> dict[str, Any]:
    """The content of a counterexample's file, as JSON has it; with a timeline it can be shown without being played."""
    shown = {"timeline": asdict(timeline)} if timeline else {}
    return {"magic": MAGIC, "version": VERSION, **asdict(example), **shown}


def write(path: Path, examples: Sequence[tuple[Counterexample, Timeline]]) -> None:
    """Write counterexamples to a file. Raises `StressError`."""
    store.write_text(path, json.dumps([as_kept(*each) for each in examples], indent=1) + "\n")


def read(path: Path) -> list[tuple[Order, Counterexample]]:
    """Read counterexamples from a file, which holds one or a list of them. Raises `UsageError` if it holds none."""
    try:
        kept = store.loaded(read_bytes(path), path)
    except (OSError, ValueError) as error:
        raise store.unreadable(path, error) from error
    found = [_read(data, path) for data in (kept if isinstance(kept, list) else [kept])]
    if not found:
        raise UsageError(f"{path} has no counterexample", "let stress verify --output write one")
    return found


def _read(data: Any, path: Path) -> tuple[Order, Counterexample]:
    if not isinstance(data, dict) or (data.get("magic"), data.get("version")) != (MAGIC, VERSION):
        raise UsageError(f"{path} is not a counterexample of this version", "let stress verify --output write it")
    try:
        example = TypeAdapter(Counterexample).validate_python(data)
        order = parse_order(example.order)
        parse_split_order(example.bounds.split_order)
        check(example.bounds, order)
    except ValidationError as error:
        wrong = f"{'.'.join(map(str, error.errors()[0]['loc']))} is missing or wrong"
    except UsageError as error:
        wrong = error.message
    else:
        vcpu, page = example.guess or (0, 0)
        if 0 <= vcpu < example.bounds.vcpus and 0 <= page < example.bounds.pages * example.bounds.batch:
            return order, example
        wrong = "guess is of another machine"
    raise UsageError(f"cannot read {path}: it is no whole counterexample: {wrong}", "write it again with --output")
