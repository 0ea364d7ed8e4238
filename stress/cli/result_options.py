"""Options that say where a result goes and how it looks; apart from a run's own, which take long to import."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click
from tabulate import tabulate_formats

from stress.guess import did_you_mean

_Command = TypeVar("_Command", bound=Callable[..., Any])

_DEFAULT: Final = "simple"


class OneOf(click.Choice[str]):
    """A word of a set; one that is nearly right is answered with what was meant, not with the whole set."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The word; click's usage error if it is none of the set."""
        if value not in self.choices:
            hint = did_you_mean(str(value), self.choices, f"use one of {', '.join(self.choices)}")
            self.fail(f"unknown word {str(value)[:60]!r}; {hint}", param, ctx)
        return super().convert(value, param, ctx)


def format_option(command: _Command) -> _Command:
    """Add ``--format``, the look of tables."""
    return click.option(
        "--format",
        "table_format",
        type=OneOf(sorted(tabulate_formats)),
        default=_DEFAULT,
        metavar="NAME",
        show_default=True,
        help="Table format, as tabulate names them",
    )(command)


def result_options(command: _Command) -> _Command:
    """Add ``--json``, ``--output`` and ``--format``, which say where the result goes and how it looks."""
    command = format_option(command)
    command = click.option(
        "--output", type=click.Path(path_type=Path), metavar="PATH", help="Write the result document to this file"
    )(command)
    return click.option("--json", "as_json", is_flag=True, help="Print the result document instead of a table")(command)
