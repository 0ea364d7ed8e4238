"""``stress bench``: the regression gate."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from stress.cli.ci import reporting
from stress.cli.completion import Shipped
from stress.cli.output import emit, say
from stress.cli.result_options import result_options
from stress.errors import ExitCode, StressError, UsageError
from stress.results.checks import Check
from stress.shipped import Kind

_Path = click.Path(path_type=Path)


@click.command()
@click.option(
    "--suite",
    "suite_file",
    type=Shipped(Kind.SUITE),
    default="bench",
    metavar="FILE",
    show_default=True,
    help="Suite to measure: a TOML file, or a name",
)
@click.option("--baseline", "baseline_file", type=_Path, metavar="FILE", help="Judge by what this file holds")
@click.option("--save-baseline", "new_file", type=_Path, metavar="FILE", help="Keep what is measured as a baseline")
@click.option("--only", "names", multiple=True, metavar="NAME", help="Measure this case alone; may be repeated")
@click.option(
    "--launches", type=click.IntRange(2, 1000), metavar="N", help="Launches of each case; the suite's if left out"
)
@click.option("--resume", is_flag=True, help="Go on with the launches that an interrupted bench kept beside its file")
@result_options
@reporting
def bench(
    suite_file: Path,
    baseline_file: Path | None,
    new_file: Path | None,
    names: tuple[str, ...],
    launches: int | None,
    resume: bool,
    output: Path | None,
    as_json: bool,
    table_format: str,
    tested: list[Check],
) -> int:
    """Measure a frozen suite of ratios, and compare it with a baseline: exit code 1 if anything got worse.

    Without a baseline the ratios are printed, and nothing is judged. With --output or --save-baseline FILE launches are
    kept in FILE.launches as they end, until all are done; --resume goes on from there.
    """
    if new_file and baseline_file:
        raise UsageError("--baseline and --save-baseline exclude each other", "compare first, then save a new one")
    if new_file and names:
        raise UsageError("a baseline holds the whole suite", "leave out --only")
    if output and any(_same(each, output) for each in (new_file, baseline_file, suite_file)):
        raise UsageError(f"--output {output} would replace the baseline or the suite", "choose another path")
    if resume and not (output or new_file):
        raise UsageError("--resume: there is no file beside which launches are kept", "name it with --output")
    from stress.bench import baseline, kept, suite, table
    from stress.results import store

    chosen = suite.load(suite_file)
    for path in filter(None, (new_file, output)):
        store.check_writable(path)
    before = baseline.read(baseline_file) if baseline_file else None
    # The gate is imported here, because it loads numba: bad usage is answered at once.
    from stress.bench import gate
    from stress.bench.tested import checks

    count = launches or (chosen.baseline_launches if new_file else chosen.launches)
    file = output or new_file
    keep = kept.beside(file) if file else None
    with _display() as progress:
        outcome = gate.bench(chosen, names, count, before, progress, say, keep, resume)
    tested += checks(outcome)
    exit_code = int(outcome.exit_code)
    document = outcome.to_json()
    # The measurement is shown, and a regression counts, even if the file cannot be written.
    try:
        if output:
            store.write(output, document)
        if new_file and outcome.failure is None:
            baseline.write(new_file, outcome.record)
            say(f"saved {new_file}: compare with stress bench --baseline {new_file}")
        if keep and outcome.failure is None:
            keep.unlink(missing_ok=True)
    except (OSError, StressError) as error:
        say(str(error))
        exit_code = exit_code or (error.exit_code if isinstance(error, StressError) else ExitCode.BROKEN)
    if outcome.failure is not None:
        say(str(outcome.failure))
        done = f"{outcome.done} of {outcome.total} launches are "
        say(f"{done}kept in {keep}; continue with --resume" if keep else f"{done}lost; --output FILE keeps them")
    emit(json.dumps(document, indent=2, allow_nan=False) if as_json else table.text(outcome, table_format))
    return exit_code


def _same(path: Path | None, other: Path) -> bool:
    try:
        return path is not None and path.resolve() == other.resolve() and not other.is_char_device()
    except (OSError, RuntimeError, ValueError):
        return False  # opening it will say why


@contextmanager
def _display() -> Iterator[Callable[[int, int, str], None]]:
    """The display of progress: a bar on a terminal, elsewhere a line now and then."""
    if not sys.stderr.isatty():
        yield _Lines().show
        return
    columns = (
        BarColumn(40),
        TextColumn("{task.completed} of {task.total} launches"),
        TimeRemainingColumn(compact=True),
    )
    # The bar is refreshed between launches alone: no thread of ours wakes up beside the vCPUs.
    with Progress(
        *columns, TextColumn("{task.description}"), console=Console(stderr=True), auto_refresh=False, transient=True
    ) as bar:
        tasks: list[TaskID] = []

        def show(done: int, total: int, case: str) -> None:
            if not tasks:  # launches of an earlier bench do not tell how long the rest takes
                tasks.append(bar.add_task(case, completed=done, total=total))
            bar.update(tasks[0], completed=done, description=case)
            bar.refresh()

        yield show


class _Lines:
    """A line at the beginning and after each quarter."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._quarter = -1
        self._first = -1  # done before

    def show(self, done: int, total: int, case: str) -> None:
        self._first = done if self._first < 0 else self._first
        if 4 * done // total > self._quarter:
            self._quarter = 4 * done // total
            here = done - self._first
            left = f", {(time.monotonic() - self._started) * (total - done) / here:.0f} s left" if here else ""
            say(f"{done} of {total} launches{left}")
