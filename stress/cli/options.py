"""Options that commands share. Every key of a run's configuration is an option, described by its field."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click
from tabulate import tabulate_formats

from stress.config import RunConfig, key_of
from stress.units import format_duration, format_size

_Command = TypeVar("_Command", bound=Callable[..., Any])

#: What to write after an option. Sizes and durations stay text: the configuration reads and judges them.
_METAVARS: Final = {"granule": "SIZE", "block_size": "SIZE", "pattern": "PATTERN"}

DEFAULT_FORMAT: Final = "simple"


def _text(field: str, value: object) -> str:
    """A value as one would write it for this option."""
    if isinstance(value, bool):
        return f"--{'' if value else 'no-'}{key_of(field)}"
    if isinstance(value, int) and field.endswith("_ns"):
        return format_duration(value)
    if isinstance(value, int) and field in _METAVARS:
        return format_size(value)
    return str(value)


def _config_option(field: str, default: object) -> Callable[[_Command], _Command]:
    key = key_of(field)
    metavar = "DURATION" if field.endswith("_ns") else _METAVARS.get(field)
    kind = str if metavar else int if default is None else type(default)
    shown = "" if default is None else f"  [default: {_text(field, default)}]"
    return click.option(
        f"--{key}/--no-{key}" if kind is bool else f"--{key}",
        type=kind,
        default=None,  # an absent option leaves the file's value alone
        metavar=metavar,
        help=f"{RunConfig.model_fields[field].description}{shown}",
    )


def config_options(command: _Command) -> _Command:
    """Add ``--config`` and an option for every key but the orders, passed on under the keys' names."""
    defaults = RunConfig()
    for field in reversed(RunConfig.model_fields):
        if field != "orders":
            command = _config_option(field, getattr(defaults, field))(command)
    return click.option(
        "--config",
        "config_file",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="TOML file with a table [run] of these options, which override it",
    )(command)


def format_option(command: _Command) -> _Command:
    """Add ``--format``, the look of tables."""
    return click.option(
        "--format",
        "table_format",
        type=click.Choice(sorted(tabulate_formats)),
        default=DEFAULT_FORMAT,
        metavar="NAME",
        show_default=True,
        help="Table format, as tabulate names them",
    )(command)


def result_options(command: _Command) -> _Command:
    """Add ``--json``, ``--output`` and ``--format``, which say where the result goes and how it looks."""
    command = format_option(command)
    command = click.option(
        "--output",
        type=click.Path(path_type=Path),
        metavar="PATH",
        help="Write the result document to this file",
    )(command)
    return click.option("--json", "as_json", is_flag=True, help="Print the result document instead of a table")(command)
