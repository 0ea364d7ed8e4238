"""``python -m benchmarks [FIGURES]``: measure, print one table, exit with 1 if a target is missed."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import click
from tabulate import tabulate

from benchmarks import calibrate, compilation, fault, memory, oracle, predict, startup, unmap, vcpu, window
from benchmarks.figure import HEADS, Figure
from stress.errors import ExitCode, StressError, UsageError
from stress.live.first_compilation import compile_in_background
from stress.shm import cache
from stress.shm.mode import JIT_DISABLED

#: What can be measured, each with the number of rounds of its contests.
GROUPS: dict[str, Callable[[int], Iterator[Figure]]] = {
    "vcpu": vcpu.figures,
    "fault": fault.figures,
    "unmap": unmap.figures,
    "oracle": oracle.figures,
    "window": window.figures,
    "startup": startup.figures,
    "compilation": compilation.figures,
    "memory": memory.figures,
    "predict": predict.figures,
    "calibrate": calibrate.figures,
}


def measure(groups: tuple[str, ...], rounds: int) -> Iterator[Figure]:
    """The figures of ``groups``, with a line on standard error before each."""
    if JIT_DISABLED:
        raise UsageError("without the JIT there is nothing to measure", "unset NUMBA_DISABLE_JIT")
    if not cache.is_complete():
        click.echo("compiling kernels, once", err=True)
        compile_in_background(threading.Event())
    for group in groups:
        click.echo(f"measuring {group}", err=True)
        yield from GROUPS[group](rounds)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("figures", nargs=-1, type=click.Choice(list(GROUPS)), metavar="[FIGURES]...")
@click.option("--rounds", default=15, show_default=True, type=click.IntRange(min=3), help="Rounds of each contest")
@click.option("--samples", type=click.Path(path_type=Path), metavar="FILE", help="Write every round's ratio as JSON")
def main(figures: tuple[str, ...], rounds: int, samples: Path | None) -> None:
    """Print ratios measured in one run: of some FIGURES (vcpu fault unmap ... predict), or of all."""
    try:
        found = list(measure(figures or tuple(GROUPS), rounds))
    except StressError as error:
        click.echo(f"benchmarks: {error}", err=True)
        sys.exit(error.exit_code)
    if samples is not None:
        samples.write_text(json.dumps({figure.name: figure.ratios for figure in found if figure.ratios}))
    click.echo(tabulate([figure.row() for figure in found], HEADS, disable_numparse=True))
    if not all(figure.reached for figure in found):
        sys.exit(ExitCode.CHECK_FAILED)


if __name__ == "__main__":
    main()
