"""What a report is made of: stored runs, and sweeps with one run per trial."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from stress.errors import UsageError
from stress.results import store

Document = dict[str, Any]

#: How the header of a sweep's file begins.
_SWEEP: Final = b'{"sweep_schema": '
_REPAIR: Final = "remove that line, and run its trial again with --resume"


@dataclass(frozen=True, slots=True)
class Run:
    """One result document."""

    name: str
    document: Document


@dataclass(frozen=True, slots=True)
class Point:
    """One measurement of a sweep: the swept values as they were written, and what came out."""

    values: dict[str, Any]
    repeat: int
    document: Document


@dataclass(frozen=True, slots=True)
class Sweep:
    """A sweep's finished trials."""

    name: str
    points: list[Point]
    missing: int  # trials without a result


Source = Run | Sweep


def read(path: Path) -> Source:
    """The run or sweep in ``path``; `UsageError` if it is neither, or of a newer schema."""
    try:
        with path.open("rb") as file:
            start = file.read(len(_SWEEP))
    except OSError:
        start = b""  # the store says why
    return _sweep(path) if start == _SWEEP else Run(path.name, store.read(path))


def _sweep(path: Path) -> Sweep:
    """The last line of every trial; what follows the last line break was cut off while it was written."""
    trials: dict[str, Point | None] = {}
    for number, line in enumerate(path.read_bytes().split(b"\n")[1:-1], start=2):
        where = f"{path} line {number}"
        try:
            entry = json.loads(line)
            identity, values, repeat = str(entry["trial"]), dict(entry["values"]), int(entry["repeat"])
            document = entry["document"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise UsageError(f"{where} is damaged", _REPAIR) from error
        found = None if document is None else Point(values, repeat, store.checked(document, where, _REPAIR))
        trials[identity] = found
    points = [point for point in trials.values() if point is not None]
    return Sweep(path.name, points, len(trials) - len(points))
