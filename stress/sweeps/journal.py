"""The file of a sweep while it is written: it must be of this sweep, and its finished trials are kept."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from stress import __version__
from stress.config import SweepPlan
from stress.errors import UsageError
from stress.results import lines
from stress.results.document import plain
from stress.results.schema import SCHEMA_VERSION
from stress.results.trials import SWEEP_SCHEMA, SweepFile, TrialResult, parse_sweep


class Journal:
    """An open file of a sweep. Use `opened`."""

    def __init__(self, file: lines.Lines, before: tuple[TrialResult, ...], cut_off: bool) -> None:
        self._file = file
        self.before = before
        self.cut_off = cut_off  # whether half a line at the end was dropped

    @property
    def done(self) -> frozenset[str]:
        """Ids of the trials that an earlier sweep has finished."""
        return frozenset(trial.id for trial in self.before if trial.done)

    def append(self, trial: TrialResult) -> None:
        """Add a line, as `Lines.append`."""
        self._file.append(trial.to_record())


@contextmanager
def opened(path: Path, plan: SweepPlan, *, resume: bool) -> Iterator[Journal]:
    """The journal of ``plan`` in ``path``. With ``resume`` a file may be there, and is continued.

    `UsageError` if it may not be there, is of another sweep, is damaged, cannot be written, or another sweep writes it.
    """
    with lines.opened(path, "sweep") as file:
        content = file.begin(header(plan), resume)
        if not content:
            yield Journal(file, (), False)
            return
        found = parse_sweep(content, str(path))
        if found.header["sweep"] != sweep_hash(plan):
            raise UsageError(
                f"{path} is of another sweep: {_difference(found, plan)}",
                "restore the configuration, or start anew with another --output",
            )
        file.keep(found.end)
        yield Journal(file, found.trials, found.cut_off)


def header(plan: SweepPlan) -> dict[str, Any]:
    """The first line of the file."""
    return {
        "sweep_schema": SWEEP_SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "stress_version": __version__,
        "sweep": sweep_hash(plan),
        "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "points": len(plan.points),
        "repeats": plan.repeats,
        "trials": plan.runs,
        "seed": plan.seed,
        "swept": list(plan.swept),
        "tables": plain(plan.tables),
    }


def sweep_hash(plan: SweepPlan) -> str:
    """A hash that is equal for sweeps with the same trials, in whatever order they run."""
    digest = hashlib.sha256()
    for identity in sorted(point.identity for point in plan.points):
        digest.update(f"{identity}x{plan.repeats} ".encode())
    return digest.hexdigest()[:16]


def _difference(found: SweepFile, plan: SweepPlan) -> str:
    """The keys whose values differ between a file and a plan."""
    before, now = (
        {path: value for path, value in _flat(tables) if path != "plan.seed"}
        for tables in (found.header["tables"], plain(plan.tables))
    )
    same = "its file is the same, but the defaults are those of another machine or version of stress"
    return lines.changed(before, now) or same


def _flat(tables: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, table in tables.items():
        if isinstance(table, dict):
            yield from ((f"{name}.{key}", value) for key, value in table.items())
        else:
            yield name, table
