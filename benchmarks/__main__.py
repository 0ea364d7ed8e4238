"""``python -m benchmarks [FIGURES]``: measure, print one table, exit with 1 if a target is missed."""

from __future__ import annotations

import importlib
import sys

import click
from tabulate import tabulate

from benchmarks.figure import HEADS, Figure
from stress.errors import ExitCode, StressError

#: What can be measured: modules of this package, each with ``figures(rounds)``.
GROUPS = ("vcpu", "unmap")


@click.command()
@click.argument("groups", nargs=-1, type=click.Choice(GROUPS), metavar="[FIGURES]...")
@click.option("--rounds", default=9, show_default=True, type=click.IntRange(min=3), help="Rounds per contest")
def main(groups: tuple[str, ...], rounds: int) -> None:
    """Print the figures as ratios measured in one run; all of them unless FIGURES are named."""
    found: list[Figure] = []
    try:
        for group in groups or GROUPS:
            click.echo(f"measuring {group}", err=True)
            found += importlib.import_module(f"benchmarks.{group}").figures(rounds)
    except StressError as error:
        click.echo(f"benchmarks: {error}", err=True)
        sys.exit(error.exit_code)
    click.echo(tabulate([figure.row() for figure in found], HEADS, disable_numparse=True))
    if not all(figure.reached for figure in found):
        sys.exit(ExitCode.CHECK_FAILED)


if __name__ == "__main__":
    main()
