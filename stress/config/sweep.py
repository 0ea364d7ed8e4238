"""The configuration of a sweep: which points there are, how often each is run, and in which order.

Everything is checked before anything runs: each point is a whole `RunConfig`, and all that is wrong with the file and
with any of its points is said at once.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stress.config.loading import (
    KEYS,
    ConfigError,
    Source,
    in_words,
    load_toml,
    merged,
    of_options,
    path_below,
    resolved,
    spelled,
    unknown,
)
from stress.config.point import Point, Trial, label
from stress.errors import shown
from stress.executors import EXECUTORS, LIVE, PREDICT

#: The most runs of one sweep; more would only be a typing error, or months.
MAX_RUNS: Final = 10_000

#: The key beside a run's options that names the executor of a point.
EXECUTOR: Final = "executor"

#: What the tables of a sweep's file are for; the documentation comes from here.
TABLES: Final = {
    "run": (
        "options of every point, as `stress run --config` reads them; and `executor`: `live`, or `predict` for points "
        "that are predicted, once each"
    ),
    "sweep": "lists of values by option; the points are their Cartesian product",
    "point": "one more point with its own options; as many as wanted, also without `[sweep]`",
    "plan": "how often and in which order the points are run",
}


class PlanTable(BaseModel):
    """The table ``[plan]``."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    repeats: int = Field(
        default=1, ge=1, le=1000, description="Runs of each point; every point runs once before any runs again"
    )
    seed: int = Field(
        default=1, ge=0, lt=1 << 63, description="Seed of the order in which points run, shuffled anew for each repeat"
    )


@dataclass(frozen=True, slots=True)
class SweepPlan:
    """The points of a sweep, checked, and how they are run."""

    tables: Mapping[str, Any]  # as the file has them, and what options changed under "options"
    points: tuple[Point, ...]
    repeats: int
    seed: int

    @property
    def swept(self) -> tuple[str, ...]:
        """The keys in which points may differ, in the order of the file."""
        return tuple(dict.fromkeys(key for point in self.points for key in point.values))

    @property
    def runs(self) -> int:
        """How many runs there are in all."""
        return sum(1 if point.executor == PREDICT else self.repeats for point in self.points)

    def trials(self) -> Iterator[Trial]:
        """Every run in the order of execution: the points shuffled, as often as they are repeated.

        Interleaved, so that whatever drifts on the machine meanwhile meets every point alike. A point that is predicted
        runs once: it would be the same again.
        """
        shuffle = random.Random(self.seed)
        for repeat in range(self.repeats):
            points = [point for point in self.points if repeat == 0 or point.executor != PREDICT]
            shuffle.shuffle(points)
            yield from (Trial(point, repeat) for point in points)


def load_sweep(path: Path, options: Mapping[str, Any] | None = None, repeats: int | None = None) -> SweepPlan:
    """The plan in a TOML file; raises what `load_toml` and `plan_sweep` raise."""
    return plan_sweep(load_toml(path), options, repeats)


def plan_sweep(
    tables: Mapping[str, Any], options: Mapping[str, Any] | None = None, repeats: int | None = None
) -> SweepPlan:
    """The plan that the tables make, or `ConfigError` with every problem, each starting with its key's path.

    ``options`` overrule every point's, ``repeats`` that of ``[plan]``.
    """
    found = [f"{spelled(key)}: {_misplaced(key)}" for key in tables if key not in TABLES]
    overriding = {name: value for name, value in (options or {}).items() if value is not None}
    plan = _plan(_table(tables, "plan", found), repeats, found)
    run = _table(tables, "run", found)
    lists = _lists(_table(tables, "sweep", found), found)
    explicit = _explicit(tables, found)
    found += [
        f"--{key}: is swept; leave it out" for key in overriding if any(key in each for each in (lists, *explicit))
    ]
    product = math.prod(map(len, lists.values())) if lists else 0
    count = (product + len(explicit)) * plan.repeats
    if count > MAX_RUNS:
        found.append(f"sweep: {count:,} runs of {product + len(explicit):,} points, at most {MAX_RUNS:,} are allowed")
    if not lists and not explicit and not found:
        found.append("sweep: there are no points; give a table [sweep] of lists, or [[point]] tables")
    if count > MAX_RUNS or (found and not product + len(explicit)):
        # Problems of [run] alone must not wait until the rest is mended.
        _Checker(run, overriding).check(0, {}, Source({}), found)
        raise ConfigError(found)
    points = _product(run, lists, overriding, found) if lists else []
    checker = _Checker(run, overriding)
    for index, values in enumerate(explicit):
        points += checker.check(len(points), values, Source(values, path_below(f"point[{index}]")), found)
    if not found:
        _distinct(points, product, found)
    if found:
        raise ConfigError(list(dict.fromkeys(found)))
    changed = {"options": overriding} if overriding else {}
    return SweepPlan({**tables, **changed}, tuple(points), plan.repeats, plan.seed)


# -- tables ------------------------------------------------------------------------------


def _misplaced(key: str) -> str:
    if key in KEYS:
        return "belongs in the table [run], or as a list in [sweep]"
    return f"unknown; the tables are {', '.join(f'[[{name}]]' if name == 'point' else f'[{name}]' for name in TABLES)}"


def _table(tables: Mapping[str, Any], name: str, found: list[str]) -> Mapping[str, Any]:
    table = tables.get(name, {})
    if isinstance(table, dict):
        return table
    found.append(f"{name}: must be a table, [{name}]")
    return {}


def _plan(table: Mapping[str, Any], repeats: int | None, found: list[str]) -> PlanTable:
    try:
        plan = PlanTable.model_validate(table)
    except ValidationError as error:
        keys = tuple(PlanTable.model_fields)
        found += in_words(error, table, {key: f"plan.{spelled(key)}" for key in table}, keys)
        plan = PlanTable()
    if repeats is None:
        return plan
    try:
        return PlanTable(repeats=repeats, seed=plan.seed)
    except ValidationError as error:
        found += in_words(error, {"repeats": repeats}, {"repeats": "--repeats"})
        return plan


def _lists(table: Mapping[str, Any], found: list[str]) -> dict[str, list[Any]]:
    """The lists to multiply; a key that cannot be multiplied is a problem and left out."""
    lists = {}
    for key, values in table.items():
        path = f"sweep.{spelled(key)}"
        if key not in KEYS and key != EXECUTOR:
            found.append(f"{path}: {unknown(key)}")
        elif not isinstance(values, list):
            found.append(f"{path}: must be a list of values, not {shown(values)}; a single one belongs in [run]")
        elif not values:
            found.append(f"{path}: has no value; leave it out or give some")
        else:
            first: dict[str, int] = {}
            for index, value in enumerate(values):
                seen = first.setdefault(repr(value), index)
                if seen != index:
                    found.append(f"{path}[{index}]: {shown(value)} is there twice, first as {path}[{seen}]")
            lists[key] = values
    return lists


def _explicit(tables: Mapping[str, Any], found: list[str]) -> list[dict[str, Any]]:
    points = tables.get("point", [])
    if not isinstance(points, list):
        found.append("point: must be an array of tables, [[point]]")
        return []
    found += [f"point[{index}]: must be a table" for index, each in enumerate(points) if not isinstance(each, dict)]
    return [each if isinstance(each, dict) else {} for each in points]


# -- points ------------------------------------------------------------------------------


class _Checker:
    """Makes points of ``[run]``, what is swept, and the options of the command line."""

    def __init__(self, run: Mapping[str, Any], options: Mapping[str, Any]) -> None:
        self._run = Source(run, path_below("run"))
        self._options = of_options(options)

    def check(self, index: int, values: Mapping[str, Any], swept: Source, found: list[str]) -> list[Point]:
        """The point with these values, or none, and problems."""
        given = [self._run, swept, self._options]
        executor = LIVE
        for source in given:
            if EXECUTOR in source.values:
                executor = source.values[EXECUTOR]
                if executor not in EXECUTORS:
                    found.append(f"{source.path(EXECUTOR)}: {shown(executor)}; use {' or '.join(EXECUTORS)}")
                    return []
        sources = [Source(_without_executor(source.values), source.path) for source in given]
        try:
            config = resolved(sources)
        except ConfigError as error:
            found += error.problems
            return []
        options, paths = merged(sources, {}, [])
        if executor == LIVE and config.only_predicted:
            found.append(f"{paths['cores']}: {config.only_predicted}")
            return []
        return [Point(index, dict(values), options, config, executor)]


def _without_executor(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key != EXECUTOR}


def _product(
    run: Mapping[str, Any], lists: Mapping[str, list[Any]], options: Mapping[str, Any], found: list[str]
) -> list[Point]:
    """The Cartesian product, the last key running fastest."""
    checker = _Checker(run, options)
    points: list[Point] = []
    at: dict[str, list[dict[str, Any]]] = {}  # problem -> values of the points that have it
    for chosen in itertools.product(*(enumerate(values) for values in lists.values())):
        indices = {key: index for key, (index, _) in zip(lists, chosen, strict=True)}
        values = {key: value for key, (_, value) in zip(lists, chosen, strict=True)}
        problems: list[str] = []
        points += checker.check(len(points), values, Source(values, _path_in(indices)), problems)
        for line in dict.fromkeys(problems):
            at.setdefault(line, []).append(values)
    total = math.prod(map(len, lists.values()))
    for line, where in at.items():
        swept = next((key for key in lists if line.startswith(f"sweep.{key}[")), None)
        everywhere = total // len(lists[swept]) if swept else total
        found.append(line if len(where) == everywhere else f"{line} (at {_some(where)})")
    return points


def _path_in(indices: Mapping[str, int]) -> Callable[[str], str]:
    return lambda key: f"sweep.{key}[{indices[key]}]"


def _some(where: Sequence[Mapping[str, Any]]) -> str:
    more = f" and {len(where) - 1} more" if len(where) > 1 else ""
    return label(where[0]) + more


def _distinct(points: Sequence[Point], product: int, found: list[str]) -> None:
    """Refuse points that come to the same run: it would be one point, measured more often than the others."""
    first: dict[str, Point] = {}
    for index, point in enumerate(points):
        same = first.setdefault(point.identity, point)
        if same is not point:
            path = "sweep" if index < product else f"point[{index - product}]"
            found.append(f"{path}: {label(point.values)} is the same run as {label(same.values)}; leave one out")
