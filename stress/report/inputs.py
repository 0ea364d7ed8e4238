"""The inputs of a report: stored runs, sweeps with one run per trial, searches, and counterexamples."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stress.results.counterexamples import Kept
from stress.results.stored import stored

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Run:
    """One result document."""

    name: str
    document: Document


@dataclass(frozen=True, slots=True)
class Point:
    """One measurement of a sweep: the swept values as they were written, and the result document."""

    index: int  # of the point in the sweep's configuration
    values: dict[str, Any]
    repeat: int
    document: Document


@dataclass(frozen=True, slots=True)
class Sweep:
    """A sweep's finished trials."""

    name: str
    points: list[Point]
    missing: int  # trials without a result


@dataclass(frozen=True, slots=True)
class Search:
    """The document of a search."""

    name: str
    document: Document


@dataclass(frozen=True, slots=True)
class Counterexamples:
    """Schedules that break an order."""

    name: str
    found: list[Kept]


Source = Run | Sweep | Search | Counterexamples


def read(path: Path) -> Source:
    """What is in ``path``; `UsageError` if it is none of them, or of a newer schema."""
    found = stored(path)
    if found.search is not None:
        return Search(path.name, found.search)
    if found.counterexamples is not None:
        return Counterexamples(path.name, found.counterexamples)
    if found.document is not None:
        return Run(path.name, found.document)
    assert found.sweep is not None
    points = [
        Point(trial.point, trial.values, trial.repeat, trial.document)
        for trial in found.sweep.trials
        if trial.document is not None
    ]
    # Points ran in a random order; the report has them in the order of the configuration.
    points.sort(key=lambda point: (point.index, point.repeat))
    return Sweep(path.name, points, found.sweep.header["trials"] - len(points))
