"""The frozen suite: what is measured, and which change of each figure matters. Read from TOML, validated."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import AliasGenerator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from stress.bench.metrics import METRICS, has_step
from stress.config import ConfigError, RunConfig, Scenario, from_sources, load_toml
from stress.config.values import listed
from stress.errors import UsageError, shown
from stress.guess import did_you_mean
from stress.orders import STEPS

#: Groups of ``python -m benchmarks`` that are contests between a compiled kernel and its C reference.
GROUPS: Final = ("vcpu", "fault", "unmap", "oracle")

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=40)]
Threshold = Annotated[float, Field(gt=0, le=10, allow_inf_nan=False)]
Launches = Annotated[int, Field(ge=2, le=1000)]


@dataclass(frozen=True, slots=True)
class Figure:
    """One ratio of the suite."""

    name: str
    threshold: float  # relative change for the worse that matters: 0.1 is 10%
    higher_is_better: bool


class _Model(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        alias_generator=AliasGenerator(alias=lambda field: field.replace("_", "-")),
    )


class OrderCase(_Model):
    """Orders against each other, in one run."""

    name: Name = Field(description="Name of the case")
    run: dict[str, Any] = Field(
        description="Options of the run, as in [run]; the first order is what others are held to"
    )
    thresholds: dict[str, Threshold] = Field(
        min_length=1,
        description=f"Change that matters of each metric measured: {', '.join(METRICS)}, or a step of the orders",
    )

    @property
    def config(self) -> RunConfig:
        """The run's configuration."""
        return from_sources(options=self.run)

    def figures(self) -> Iterator[Figure]:
        """The figures that a launch of this case measures."""
        first, *others = self.config.parsed_orders
        for metric, threshold in self.thresholds.items():
            if metric in METRICS:
                for order in others:
                    better = METRICS[metric].higher_is_better
                    yield Figure(figure_name(self.name, metric, order.name), threshold, better)
            else:
                for order in filter(has_step(metric), (first, *others)):
                    yield Figure(figure_name(self.name, metric, order.name), threshold, False)


class KernelCase(_Model):
    """Compiled kernels against a C reference that does the same work, in one process."""

    name: Name = Field(description="Name of the case")
    group: str = Field(description=f"What competes: {listed(GROUPS)}")
    rounds: int = Field(default=5, ge=3, le=1000, description="Rounds of each contest in one launch")
    threshold: Threshold = Field(description="Change that matters")
    thresholds: dict[str, Threshold] = Field(
        default={}, description="Change that matters of single contests, by name, where it is another"
    )

    def figures(self, names: Collection[str]) -> Iterator[Figure]:
        """The figures of this case among ``names``; `UsageError` if there is none of a contest that has a threshold."""
        prefix = f"{self.name}: "
        contests = [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
        for contest in self.thresholds:
            if contest not in contests:
                hint = did_you_mean(contest, contests, f"use {listed(contests)}")
                raise UsageError(f"case {self.name} has no contest {shown(contest)}", hint)
        for contest in contests:
            yield Figure(prefix + contest, self.thresholds.get(contest, self.threshold), higher_is_better=True)


class Suite(_Model):
    """Everything that ``stress bench`` measures."""

    launches: Launches = Field(description="Launches of each case when it is compared: the samples of the decision")
    baseline_launches: Launches = Field(description="Launches of each case for a baseline")
    order_case: tuple[OrderCase, ...] = Field(default=(), strict=False, description="Orders against each other")
    kernel_case: tuple[KernelCase, ...] = Field(default=(), strict=False, description="Kernels against C")

    @property
    def cases(self) -> tuple[OrderCase | KernelCase, ...]:
        """All cases."""
        return (*self.order_case, *self.kernel_case)

    @property
    def hash(self) -> str:
        """Sixteen hexadecimal digits, equal if the same is measured.

        Thresholds and numbers of launches are no part of it: they change no ratio. Of orders and platforms only the
        names are: a baseline must be able to show what changes when the steps or costs behind a name do.
        """
        measured = [
            *((case.name, case.run, sorted(case.thresholds)) for case in self.order_case),
            *((case.name, case.group, case.rounds) for case in self.kernel_case),
        ]
        return hashlib.sha256(json.dumps(measured, sort_keys=True).encode()).hexdigest()[:16]

    def only(self, names: tuple[str, ...]) -> Suite:
        """The suite with the cases of these names alone; `UsageError` for an unknown name."""
        known = [case.name for case in self.cases]
        for name in names:
            if name not in known:
                raise UsageError(
                    f"the suite has no case {shown(name)}", did_you_mean(name, known, f"use {listed(known)}")
                )
        return self.model_copy(
            update={
                "order_case": tuple(case for case in self.order_case if case.name in names),
                "kernel_case": tuple(case for case in self.kernel_case if case.name in names),
            }
        )


def figure_name(case: str, metric: str, order: str) -> str:
    """The name of an order case's figure."""
    return f"{case}: {metric} of {order}"


def load(path: Path) -> Suite:
    """The suite in a TOML file. `UsageError` if it cannot be read, `ConfigError` with all that is wrong in it."""
    tables = load_toml(path)
    problems = [problem for case in _tables(tables, "order-case") for problem in _run_problems(*case)]
    try:
        suite = Suite.model_validate(tables)
    except ValidationError as error:
        raise ConfigError([*_problems(error), *problems]) from None
    names = [case.name for case in suite.cases]
    problems += [f"name: {name} is the name of two cases" for name in sorted({n for n in names if names.count(n) > 1})]
    if not names:
        problems.append("order-case: there is no case; give at least one [[order-case]] or [[kernel-case]]")
    for index, case in enumerate(suite.kernel_case):
        if case.group not in GROUPS:
            hint = did_you_mean(case.group, GROUPS, f"use {listed(GROUPS)}")
            problems.append(f"kernel-case[{index}].group: unknown group {shown(case.group)}; {hint}")
    if problems:
        raise ConfigError(problems)
    return suite


def _tables(tables: Mapping[str, Any], key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    cases = tables.get(key, ())
    for index, case in enumerate(cases if isinstance(cases, list) else ()):
        if isinstance(case, dict):
            yield f"{key}[{index}]", case


def _run_problems(path: str, case: dict[str, Any]) -> Iterator[str]:
    """The problems of an order case beyond its shape."""
    run, thresholds = case.get("run"), case.get("thresholds")
    if not isinstance(run, dict):
        return
    for key in run:
        if "_" in key:
            yield f"{path}.run.{key}: unknown key; did you mean {key.replace('_', '-')}?"
    if "vcpus" not in run:
        yield f"{path}.run.vcpus: missing; its default depends on the machine, and a suite must not"
    try:
        config = from_sources(options={key: value for key, value in run.items() if "_" not in key})
    except ConfigError as error:
        yield from (f"{path}.run.{problem.removeprefix('--')}" for problem in error.problems)
        return
    if len(config.orders) < 2:
        yield f"{path}.run.orders: there is only {config.orders[0]} to compare; give two or more"
    if config.scenario is not Scenario.REBUILD:
        yield f"{path}.run.scenario: ratios need the cycles of scenario rebuild, not {config.scenario}; leave it out"
    for metric in thresholds if isinstance(thresholds, dict) else ():
        if metric not in METRICS and not any(map(has_step(metric), config.parsed_orders)):
            steps = [step for step in STEPS if any(map(has_step(step), config.parsed_orders))]
            yield f"{path}.thresholds.{metric}: nothing to measure; use {listed([*METRICS, *steps])}"


def _problems(error: ValidationError) -> Iterator[str]:
    for detail in error.errors(include_url=False):
        path = ""
        for part in detail["loc"]:
            path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else str(part)
        words = {"missing": "missing", "extra_forbidden": "unknown key"}.get(detail["type"])
        if words is None:
            message = detail["msg"].replace("Input should", "must").replace("valid tuple", "list")
            words = f"{message}, not {shown(detail['input'])}"
        yield f"{path}: {words}"
