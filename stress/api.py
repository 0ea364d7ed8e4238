"""The Python API: what `stress run`, `compare`, `predict` and `sweep` do, from a notebook or a script.

A violation is a result, not an exception: look at `Result.verdict`. What goes wrong otherwise is a
`stress.errors.StressError`, with the remedy in its text. One measurement runs at a time. docs/api.md shows it at work.
"""

from __future__ import annotations

import re
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from stress import interrupt
from stress.config import COMPARED, ConfigError, RunConfig, Scenario, from_sources, load_sweep, plan_sweep
from stress.errors import Interrupted, UsageError
from stress.results.document import build, plain
from stress.results.result import Result
from stress.results.stored import stored
from stress.results.sweep_result import SweepResult
from stress.shipped import Kind, find

if TYPE_CHECKING:  # loads numba
    from stress.live import Progress

__all__ = ["Result", "RunInterrupted", "SweepResult", "compare", "load", "predict", "run", "sweep"]

#: Held by the measurement under way: two at once would measure each other.
_measuring: Final = threading.Lock()

# Where an error of the command line names an option.
_OPTION: Final = re.compile(r"^--([a-z-]+)|(?<=did you mean )([a-z-]+)(?=\?)")


class RunInterrupted(KeyboardInterrupt):
    """Ctrl-C (in a notebook: interrupt) ended a run; ``result`` is what the run had measured, None if nothing.

    The result of a sweep is a `SweepResult`.
    """

    def __init__(self, result: Result | SweepResult | None) -> None:
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

    ``order`` is a name or steps separated by commas; ``config`` a TOML file, or the name of one that comes with the
    program; ``options`` are those of ``stress run`` in
    Python's spelling (``block_size="2M"``, ``duration="2s"``, ``fwb=False``), and override the file. ``progress`` is
    called about ten times a second. Raises `StressError`; `RunInterrupted` after Ctrl-C.
    """
    settings = _configured(config, {**options, "order": order})
    if len(settings.orders) > 1:
        raise UsageError(f"{config} names {len(settings.orders)} orders", "use compare, or name one")
    return _measured(settings, progress)


def compare(
    *orders: str, config: str | Path | None = None, progress: Callable[[Progress], None] | None = None, **options: Any
) -> Result:
    """Compare orders, cycle by cycle in the same processes; unmap-first and block-first if none are named.

    Other arguments are those of `run`. ``result.comparison`` has the ratios to the first order, with their intervals.
    """
    settings = _configured(config, {**options, "orders": orders or None}, {"orders": COMPARED})
    if len(settings.orders) < 2:
        raise UsageError(f"there is only {settings.orders[0]} to compare", "name two orders or more")
    return _measured(settings, progress)


def predict(
    *orders: str,
    config: str | Path | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    **options: Any,
) -> Result:
    """Predict orders in virtual time on the machine of ``platform``; unmap-first and block-first if none are named.

    The scenario is kvm-page-table-test if none is. ``options`` are those of ``stress predict``. ``progress`` is called
    with the order's name, the virtual time in ns and the events played. Nothing is checked: the verdict is
    ``predicted``. Raises `StressError`; `RunInterrupted` after Ctrl-C.
    """
    defaults = {"orders": COMPARED, "scenario": Scenario.PAGE_TABLE_TEST}
    settings = _configured(config, {**options, "orders": orders or None}, defaults)
    from stress import predict as executor

    result = Result.of(build(executor.predict(settings, progress)))
    if not result.complete:
        raise RunInterrupted(result)
    return result


def sweep(
    config: str | Path | Mapping[str, Any],
    *,
    output: str | Path | None = None,
    resume: bool = False,
    repeats: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> SweepResult:
    """Run every point of a sweep: a TOML file, or its tables, such as ``{"sweep": {"vcpus": [1, 2]}}``.

    Each result is in the file ``output`` as soon as its run ends, and ``resume`` continues that file; without one,
    results are only returned. ``repeats`` and ``options`` overrule the configuration. ``progress`` is called with the
    runs done and those expected after each. Raises `StressError`; `RunInterrupted` after Ctrl-C, between two runs or
    within one, which then does not count.
    """
    if resume and output is None:
        raise UsageError("there is no file to resume", "name the sweep's file with output")
    given = {name.replace("_", "-"): _plain(value) for name, value in options.items() if value is not None}
    with _in_python():
        if isinstance(config, Mapping):
            plan = plan_sweep(_plain(config), given, repeats)
        else:
            plan = load_sweep(_file(Kind.SWEEP, config), given, repeats)
    from stress.sweeps.execution import Observer, carry_out
    from stress.sweeps.local import run_here

    expected = plan.runs

    class Watching(Observer):
        """Counts the runs that ended."""

        done = 0

        def begins(self, trials: Any, done: int) -> None:
            self.done = done

        def finished(self, trial: Any, result: Any) -> None:
            self.done += 1
            if progress is not None:
                progress(self.done, expected)

        def note(self, line: str) -> None:
            _note(line)

    place = nullcontext(str(output)) if output is not None else tempfile.TemporaryDirectory(prefix="stress-")
    with _alone(), place as path, interrupt.caught() as interrupted:
        journal = Path(path) if output is not None else Path(path, "sweep.jsonl")
        outcome = carry_out(plan, journal, run_here, Watching(), resume=resume)
        stopped = interrupted.is_set()
    result = SweepResult.of(outcome.results, plan.swept, expected)
    if stopped and outcome.left:
        raise RunInterrupted(result)
    return result


def load(path: str | Path) -> Result | SweepResult:
    """What ``--output``, `Result.save` or a sweep wrote to ``path``; `UsageError` if it cannot be read."""
    found = stored(Path(path))
    if found.document is not None:
        return Result.of(found.document, str(path))
    if found.sweep is None:
        finder = "a search" if found.search else "verify"
        raise UsageError(f"{path} is what {finder} found, no result of a run", "read it with json.load")
    return SweepResult.of(found.sweep.trials, found.swept, found.sweep.header["trials"])


def _configured(
    config: str | Path | None, options: dict[str, Any], defaults: dict[str, Any] | None = None
) -> RunConfig:
    given = {name: value if value is None else _plain(value) for name, value in options.items()}
    with _in_python():
        return from_sources(_file(Kind.CONFIG, config) if config is not None else None, given, defaults)


def _file(kind: Kind, config: str | Path) -> Path:
    """The file of a configuration: a path as it is, a text as the command line reads it."""
    return config if isinstance(config, Path) else find(kind, config)


def _plain(value: Any) -> Any:
    """``value`` in TOML's types. NaN stays what it is: as None it would silently mean the default."""
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, float):
        return float(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    return plain(value)


@contextmanager
def _in_python() -> Iterator[None]:
    """Let problems name Python's arguments, not the command line's options."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError([_OPTION.sub(_spelled, problem) for problem in error.problems]) from None


def _spelled(option: re.Match[str]) -> str:
    return (option[1] or option[2]).replace("-", "_")


@contextmanager
def _alone() -> Iterator[None]:
    if not _measuring.acquire(blocking=False):
        raise UsageError("another run of this process is under way", "wait for it: two at once measure each other")
    try:
        yield
    finally:
        _measuring.release()


def _note(line: str) -> None:
    print(f"stress: {line}", file=sys.stderr)


def _measured(config: RunConfig, progress: Callable[[Progress], None] | None) -> Result:
    try:
        with _alone():
            from stress.live.server import start_early

            start_early()
            from stress.live import execute

            data = execute(config, progress, note=_note)
    except Interrupted:
        raise RunInterrupted(None) from None
    result = Result.of(build(data))
    if not data.complete and data.failure is None:
        raise RunInterrupted(result)
    return result
