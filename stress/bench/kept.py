"""Launches as they end, in a file of lines beside the one that is to hold the result.

    {"bench_launches": 1, "started_at": ..., "measured": {"suite": hash, "launches": 7, "cores": 2, ...}}
    {"case": "2m", "launch": 0, "elapsed_s": 2.1, "samples": {figure: [ratio, ...], ...}}

The file is there while launches are missing. Only the same measurement goes on with it: the same cases with the same
options, the same program, the same machine.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stress import __version__
from stress.bench.baseline import HOST_KEYS, Ratios
from stress.bench.suite import Suite
from stress.errors import UsageError
from stress.results import lines

_VERSION: Final = 1
_KEY: Final = "bench_launches"
_ANEW: Final = "remove it, and start anew"
#: Where the package is; in a checkout the C reference is beside it.
CHECKOUT: Final = Path(__file__).resolve().parent.parent.parent


class Launch(BaseModel):
    """One launch of a case that came to its end."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    case: str
    launch: int = Field(ge=0)
    elapsed_s: float = Field(ge=0, allow_inf_nan=False)
    samples: dict[str, Ratios]  # by figure


class Kept:
    """Launches of this bench and of the one that it continues, in a file if there is one; made by `opened`."""

    def __init__(self, file: lines.Lines | None, started_at: str, before: dict[tuple[str, int], Launch]) -> None:
        self._file = file
        self.started_at = started_at
        self.launches = before
        self.earlier = len(before)

    def append(self, launch: Launch) -> None:
        """Add a launch, which is on the disk when this returns. Raises what `Lines.append` raises."""
        if self._file is not None:
            self._file.append(launch.model_dump())
        self.launches[launch.case, launch.launch] = launch


def beside(path: Path) -> Path | None:
    """The file in which launches for ``path`` are kept; None if ``path`` is a special file."""
    target = path.resolve()
    return None if target.exists() and not target.is_file() else target.with_name(f"{target.name}.launches")


@contextmanager
def opened(path: Path | None, measured: dict[str, Any], started_at: str, *, resume: bool) -> Iterator[Kept]:
    """The launches of what `identity` calls ``measured``, kept in ``path``; with ``resume`` those that it has already.

    `UsageError` if the file may not be there, is of another measurement, is damaged, or another bench writes it.
    """
    if path is None:
        yield Kept(None, started_at, {})
        return
    with lines.opened(path, "bench") as file:
        content = file.begin({_KEY: _VERSION, "started_at": started_at, "measured": measured}, resume)
        before: dict[tuple[str, int], Launch] = {}
        if content:
            if not lines.is_of(_KEY, content):
                raise UsageError(f"{path} holds no launches of stress bench", "choose another file with --output")
            found = lines.parse(content, str(path), _ANEW)
            started_at = _judged(found, measured)
            before = {(each.case, each.launch): each for each in _launches(found)}
            file.keep(found.end)
        kept = Kept(file, started_at, before)
        try:
            yield kept
        finally:
            if not kept.launches:
                path.unlink(missing_ok=True)


def identity(suite: Suite, launches: int, host: dict[str, Any]) -> dict[str, Any]:
    """What must be the same for launches to be samples of one measurement."""
    options = [case.config.to_json() for case in suite.order_case]
    return {
        "suite": suite.hash,
        "launches": launches,
        "options": hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()[:16],
        "version": __version__,
        "sources": _sources(("stress", "benchmarks") if suite.kernel_case else ("stress",)),
        **{key: host[key] for key in HOST_KEYS},
    }


def _sources(parts: tuple[str, ...]) -> str:
    """Sixteen hexadecimal digits of a hash over all sources that run."""
    digest = hashlib.sha256()
    for path in sorted(path for part in parts for path in (CHECKOUT / part).rglob("*")):
        if path.suffix in (".py", ".c", ".h"):
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _judged(found: lines.Found, measured: dict[str, Any]) -> str:
    """When the measurement in the file began; `UsageError` unless it is the one that is asked for."""
    kept, started_at = found.header.get("measured"), found.header.get("started_at")
    if found.header[_KEY] != _VERSION or not isinstance(kept, dict) or not isinstance(started_at, str):
        raise UsageError(f"{found.name} is damaged, or of another version of stress", _ANEW)
    if difference := lines.changed(kept, measured):
        raise UsageError(f"the launches in {found.name} are of another measurement: {difference}", _ANEW)
    return started_at


def _launches(found: lines.Found) -> Iterator[Launch]:
    for where, record in found.records(_ANEW):
        try:
            yield Launch.model_validate(record)
        except ValidationError:
            raise lines.damaged(where, _ANEW) from None
