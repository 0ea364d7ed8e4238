"""A counterexample played again, made simpler, kept in a file and read back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from stress.errors import UsageError
from stress.orders import Order, parse_order
from stress.results.counterexamples import MAGIC, VERSION, Timeline
from stress.verify.accesses import Shared
from stress.verify.hooks import Hooks
from stress.verify.scene import Bounds, Scene
from stress.verify.verification import Counterexample, complexity

_TRIES: Final = 400


def stage(hooks: Hooks, order: Order, example: Counterexample) -> Scene:
    """The machine that a counterexample was found on."""
    scene = Scene(hooks, order, example.bounds, example.guess)
    scene.world.visible.update(example.stops)
    return scene


def follow(scene: Scene, choices: Sequence[int]) -> tuple[list[int], frozenset[str], bool]:
    """Play these choices where they are possible, then on to the end; the choices made, and what `Scene.judge` says."""
    world = scene.world
    world.reset()
    made = []
    at = 0
    while enabled := world.enabled():
        while at < len(choices) and choices[at] not in enabled:
            at += 1
        actor = choices[at] if at < len(choices) else enabled[0]
        at += 1
        world.step(actor)
        made.append(actor)
    found, met = scene.judge()
    return made, frozenset(found), met


def simplify(hooks: Hooks, order: Order, example: Counterexample) -> Counterexample:
    """A schedule with the same violations that changes actors less often, as far as leaving out turns leads there."""
    scene = stage(hooks, order, example)
    actors = scene.world.actors // 2
    best = list(example.choices)
    _, wanted, met = follow(scene, best)
    tries = 0
    improved = True
    while improved and tries < _TRIES:
        improved = False
        turns = [at for at in range(len(best)) if at == 0 or best[at] != best[at - 1]] + [len(best)]
        variants = [best[:cut] for cut in turns] + [best[:start] + best[end:] for start, end in pairwise(turns)]
        for variant in variants:
            tries += 1
            try:
                made, found, its = follow(scene, variant)
            except Shared:
                return example  # never seen: what was found before is left as it is
            simpler = complexity(made, actors) < complexity(best, actors)
            if found >= wanted and its == met and simpler:
                best, improved = made, True
                break
    return replace(example, choices=tuple(best), stops=tuple(sorted(scene.world.visible)))


def as_kept(example: Counterexample, timeline: Timeline | None = None) -> dict[str, Any]:
    """What a file with a counterexample holds, as JSON has it; only one with a timeline can be shown unplayed."""
    shown = {"timeline": asdict(timeline)} if timeline else {}
    return {"magic": MAGIC, "version": VERSION, **asdict(example), **shown}


def write(path: Path, examples: Sequence[tuple[Counterexample, Timeline]]) -> None:
    """Keep counterexamples."""
    path.write_text(json.dumps([as_kept(*each) for each in examples], indent=1) + "\n")


def read(path: Path) -> list[tuple[Order, Counterexample]]:
    """Read kept counterexamples, one or a list of them. `UsageError` if the file has none."""
    try:
        kept: Any = json.loads(path.read_text())
        found = [_read(data) for data in (kept if isinstance(kept, list) else [kept])]
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise UsageError(f"{path} is not a counterexample: {error}", "let stress verify --output write it") from None
    if not found:
        raise UsageError(f"{path} has no counterexample", "let stress verify --output write one")
    return found


def _read(data: Any) -> tuple[Order, Counterexample]:
    if data["magic"] != MAGIC or data["version"] != VERSION:
        raise ValueError("it is of another version")
    example = Counterexample(
        order=str(data["order"]),
        bounds=Bounds(**data["bounds"]),
        guess=(int(data["guess"][0]), int(data["guess"][1])) if data["guess"] else None,
        stops=tuple(map(int, data["stops"])),
        choices=tuple(map(int, data["choices"])),
        kinds=tuple(map(str, data["kinds"])),
    )
    return parse_order(example.order), example
