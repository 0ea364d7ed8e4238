"""Options that commands share. Every key of a run's configuration is an option, described by its field."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Final, TypeVar, get_args, get_origin

import click
from tabulate import tabulate_formats

from stress.cli.help import SectionOption
from stress.cli.selftest import LETTERS, mode_option, translated, write_option
from stress.config import RunConfig, from_sources, key_of
from stress.units import format_duration, format_size

_Command = TypeVar("_Command", bound=Callable[..., Any])

DEFAULT_FORMAT: Final = "simple"

WHAT: Final = "What happens"
_MEMORY: Final = "Guest memory"
_ACCESSES: Final = "Guest accesses"
_MACHINE: Final = "Machine"
_CHECKS: Final = "Checks"

#: The sections of the help, with the fields they list.
SECTIONS: Final = {
    WHAT: (
        "scenario",
        "duration_ns",
        "rebuilds",
        "dwell_ns",
        "iterations",
        "populated",
        "rebuilder",
        "locking",
        "eager_split",
    ),
    _MEMORY: ("granule", "ipa_bits", "block_size", "backing", "phys_offset", "memory", "blocks", "memslots"),
    _ACCESSES: ("vcpus", "pattern", "stride", "zipf_exponent", "write_fraction", "seed"),
    _MACHINE: ("platform", "fwb", "bbm_level", "cmo", "guest_caches", "pin"),
    _CHECKS: ("inject", "fail_fast", "audit_interval_ns", "watchdog_ns"),
}


def _kind(field: str) -> type:
    """The type of a field's values: that of ``Annotated`` and of what may also be None."""
    kind: Any = RunConfig.model_fields[field].annotation
    if NoneType in get_args(kind):
        (kind,) = (each for each in get_args(kind) if each is not NoneType)
    if get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    assert isinstance(kind, type)
    return kind


def _is_size(field: str) -> bool:
    return (RunConfig.model_fields[field].serialization_alias or "").endswith("_bytes")


def _text(field: str, value: object) -> str:
    """A value as one would write it for this option."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, int) and field.endswith("_ns"):
        return format_duration(value)
    if isinstance(value, int) and _is_size(field):
        return format_size(value)
    return str(value)


def _config_option(field: str, section: str) -> Callable[[_Command], _Command]:
    key, kind, info = key_of(field), _kind(field), RunConfig.model_fields[field]
    help_text = info.description
    metavar: str | None = None
    # Sizes, durations and words stay text: the configuration reads and judges them.
    if field.endswith("_ns"):
        metavar = "DURATION"
    elif _is_size(field):
        metavar = "SIZE"
    elif issubclass(kind, StrEnum):
        metavar = key.upper()
    elif kind is str:
        metavar = "NAME"
    default = info.get_default(call_default_factory=True, validated_data={})
    if default is not None:
        help_text = f"{help_text}  [default: {_text(field, default)}]"
    letter = [LETTERS[field]] if field in LETTERS else []
    return click.option(
        *letter,
        f"--{key}/--no-{key}" if kind is bool else f"--{key}",
        key.replace("-", "_"),
        type=str if metavar else kind,
        default=None,  # an absent option leaves the file's value alone
        metavar=metavar,
        cls=SectionOption,
        section=section,
        help=help_text,
    )


def config_options(command: _Command) -> _Command:
    """Add ``--config``, an option for every key but the orders, and the selftests' letters; for `configured`."""
    extra = {_MEMORY: mode_option, _ACCESSES: write_option}
    for section, fields in reversed(SECTIONS.items()):
        if section in extra:
            command = extra[section](section)(command)
        for field in reversed(fields):
            command = _config_option(field, section)(command)
    return click.option(
        "--config",
        "config_file",
        type=click.Path(path_type=Path),
        metavar="FILE",
        cls=SectionOption,
        section=WHAT,
        help="TOML file with a table [run] of these options, which override it",
    )(command)


def configured(file: Path | None, options: Mapping[str, Any], defaults: Mapping[str, Any] | None = None) -> RunConfig:
    """The configuration of `config_options`' values over a file's over ``defaults``. Raises `ConfigError`."""
    keys, problems = translated(dict(options))
    return from_sources(file, keys, defaults, problems)


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
