"""What a report is made of: stored runs, and sweeps with one run per point."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stress.errors import UsageError
from stress.results import store

Document = dict[str, Any]


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
    """A sweep's finished points."""

    name: str
    points: list[Point]
    missing: int  # points without a result


Source = Run | Sweep


def read(path: Path) -> Source:
    """The run or sweep in ``path``; `UsageError` if it is neither, or of a newer schema."""
    try:
        with path.open("rb") as file:
            header = json.loads(file.readline())
    except (OSError, ValueError, RecursionError):
        header = None  # a document, or nothing that can be read: the store says which
    if isinstance(header, dict) and header.get("kind") == "sweep":
        return _sweep(path)
    return Run(path.name, store.read(path))


def _sweep(path: Path) -> Sweep:
    points: list[Point] = []
    missing = 0
    lines = path.read_bytes().split(b"\n")[1:]
    for number, line in enumerate(lines, 2):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            values, repeat, result = dict(entry["point"]), int(entry.get("repeat", 0)), entry.get("result")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            if number == len(lines) + 1:
                break  # the sweep was cut off while it wrote this
            message = f"cannot read {path}: line {number} is damaged"
            raise UsageError(message, "restore the line or remove it") from error
        if result is None:
            missing += 1
        else:
            points.append(Point(values, repeat, store.accepted(result, f"{path}, line {number},")))
    return Sweep(path.name, points, missing)
