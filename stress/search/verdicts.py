"""Verdicts, and where they are kept between searches: with the kernels, under a hash of all that they depend on."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Self

from stress.search.classes import Steps
from stress.shm.cache import cache_directory

OPEN: Final = "open"
PROVED: Final = "proved"
REFUTED: Final = "refuted"
UNDECIDED: Final = "undecided"

_PACKAGE = Path(__file__).resolve().parent.parent
#: The sources that a verdict depends on.
_SOURCES = ("arch", "shm", "kernels", "verify", "bugs.py", "orders.py", "search/judging.py")


@dataclass(frozen=True, slots=True)
class Verdict:
    """A verdict on an order, and the evidence for it."""

    judgement: str
    kinds: tuple[str, ...] = ()
    why: str = ""
    schedules: int = 1
    elapsed_ns: int = 0
    #: A schedule that refutes the order, for `stress verify --replay`.
    counterexample: dict[str, Any] | None = None
    #: The number of the program's first steps that lead to the violation whatever follows them; 0: that is not known.
    beginning: int = 0

    @classmethod
    def read(cls, data: dict[str, Any]) -> Self:
        """A verdict from a line of the file, as `asdict` made it."""
        return cls(**{**data, "kinds": tuple(data["kinds"])})


def sources_hash() -> str:
    """A hash of the sources that a verdict depends on."""
    digest = hashlib.sha256()
    for name in _SOURCES:
        path = _PACKAGE / name
        for file in sorted(path.glob("*.py")) if path.is_dir() else [path]:
            digest.update(f"{file.relative_to(_PACKAGE)}\0".encode() + file.read_bytes())
    return digest.hexdigest()[:16]


class Verdicts:
    """The verdicts of this version, kept in a file of JSON lines; in memory alone where the file cannot be written."""

    def __init__(self, directory: Path | None = None) -> None:
        directory = cache_directory() if directory is None else directory
        self._path = directory / f"verdicts-{sources_hash()}.jsonl"
        self._known: dict[str, Verdict] = {}
        try:
            lines = self._path.read_bytes().split(b"\n") if self._path.exists() else []
        except OSError:
            lines = []
        for line in lines:
            try:
                data = json.loads(line)
                self._known[data["key"]] = Verdict.read(data["verdict"])
            except (ValueError, KeyError, TypeError):
                continue  # the line was cut off when a machine died: the order is judged again

    def get(self, what: str, steps: Steps, limits: Mapping[str, Any]) -> Verdict | None:
        """The verdict that was kept of an order within bounds, or None."""
        return self._known.get(_key(what, steps, limits))

    def put(self, what: str, steps: Steps, limits: Mapping[str, Any], verdict: Verdict) -> None:
        """Keep a verdict in the file, unless it is open."""
        if verdict.judgement == UNDECIDED:
            return
        key = _key(what, steps, limits)
        self._known[key] = verdict
        line = json.dumps({"key": key, "verdict": asdict(verdict)}).encode() + b"\n"
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.write(descriptor, line)
            finally:
                os.close(descriptor)
        except OSError:
            return  # the order is judged again another time


def _key(what: str, steps: Steps, limits: Mapping[str, Any]) -> str:
    return " ".join((what, ",".join(steps), *(f"{name}={limits[name]}" for name in sorted(limits))))
