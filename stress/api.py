"""The Python API: what `stress run` and `stress compare` do, from a notebook or a script.

A violation is a result, not an exception: look at `Result.verdict`. What goes wrong otherwise is a
`stress.errors.StressError`, with the remedy in its text. One measurement runs at a time. docs/api.md shows it at work.
"""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from stress.config import COMPARED, ConfigError, RunConfig, from_sources
from stress.errors import Interrupted, UsageError
from stress.results.document import build, plain
from stress.results.result import Result

if TYPE_CHECKING:  # loads numba
    from stress.live import Progress

__all__ = ["Result", "RunInterrupted", "compare", "load", "run"]

#: Two at once would measure each other.
_measuring: Final = threading.Lock()

# Keys in the errors of the command line.
_OPTION: Final = re.compile(r"^--([a-z-]+)|(?<=did you mean )([a-z-]+)(?=\?)")


class RunInterrupted(KeyboardInterrupt):
    """Ctrl-C (in a notebook: interrupt) ended a run; ``result`` is what it had measured, None if nothing."""

    def __init__(self, result: Result | None) -> None:
        super().__init__("the run was interrupted")
        self.result = result


def run(
    order: str | None = None,
    *,
    config: str | Path | None = None,
    progress: Callable[[Progress], None] | None = None,
    **options: Any,
) -> Result:
    """Rebuild blocks under one order, block-first if none is named, while vCPU processes hammer the table.

    ``order`` is a name or steps separated by commas; ``config`` a TOML file; ``options`` are those of ``stress run`` in
    Python's spelling (``block_size="2M"``, ``duration="2s"``, ``fwb=False``), and override the file. ``progress`` is
    called about ten times a second. Raises `StressError`; `RunInterrupted` after Ctrl-C.
    """
    settings = _configured(config, {**options, "order": order})
    if len(settings.orders) > 1:
        raise UsageError(f"{config} names {len(settings.orders)} orders", "use compare, or name one")
    return _measured(settings, progress)


def compare(
    *orders: str,
    config: str | Path | None = None,
    progress: Callable[[Progress], None] | None = None,
    **options: Any,
) -> Result:
    """Compare orders, cycle by cycle in the same processes; unmap-first and block-first if none are named.

    As `run` otherwise. ``result.comparison`` has the ratios to the first order, with their intervals.
    """
    settings = _configured(config, {**options, "orders": orders or None}, {"orders": COMPARED})
    if len(settings.orders) < 2:
        raise UsageError(f"there is only {settings.orders[0]} to compare", "name two orders or more")
    return _measured(settings, progress)


def load(path: str | Path) -> Result:
    """The result that ``--output`` or `Result.save` wrote to ``path``; `UsageError` if it cannot be read."""
    return Result.load(Path(path))


def _configured(
    config: str | Path | None, options: dict[str, Any], defaults: dict[str, Any] | None = None
) -> RunConfig:
    given = {name: value if value is None else plain(value) for name, value in options.items()}
    try:
        return from_sources(Path(config) if config is not None else None, given, defaults)
    except ConfigError as error:
        raise ConfigError([_OPTION.sub(_in_python, problem) for problem in error.problems]) from None


def _in_python(option: re.Match[str]) -> str:
    return (option[1] or option[2]).replace("-", "_")


def _measured(config: RunConfig, progress: Callable[[Progress], None] | None) -> Result:
    if not _measuring.acquire(blocking=False):
        raise UsageError("another run of this process is under way", "wait for it: two at once measure each other")
    try:
        from stress.live.server import start_early

        start_early()
        from stress.live import execute

        data = execute(config, progress, note=lambda line: print(f"stress: {line}", file=sys.stderr))
    except Interrupted:
        raise RunInterrupted(None) from None
    finally:
        _measuring.release()
    result = Result.of(build(data))
    if not data.complete and data.failure is None:
        raise RunInterrupted(result)
    return result
