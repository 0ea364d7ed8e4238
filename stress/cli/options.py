"""Options that commands share. Every key of a run's configuration is an option, described by its field."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from stress.cli.completion import VALUES, Shipped, completing, words
from stress.cli.help import GENERAL, SectionOption
from stress.cli.output import say
from stress.cli.selftest import LETTERS, access_options, check_mode, meaningless_options, mode_options, translated
from stress.config import RunConfig, from_sources, load_toml
from stress.config.keys import Form, as_written, key
from stress.config.loading import KEYS
from stress.errors import UsageError
from stress.shipped import Kind, names

_Command = TypeVar("_Command", bound=Callable[..., Any])

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
        "passes",
        "dwell_ns",
        "iterations",
        "populated",
        "rebuilder",
        "batch",
        "locking",
        "split_order",
        "yield_every",
        "eager_split",
        "recover",
        "chunk",
        "get_clears",
        "clear_chunk",
    ),
    _MEMORY: ("granule", "ipa_bits", "block_size", "backing", "phys_offset", "memory", "blocks", "memslots"),
    _ACCESSES: ("vcpus", "overlap", "pattern", "stride", "zipf_exponent", "write_fraction", "seed"),
    _MACHINE: ("platform", "cores", "fwb", "bbm_level", "cmo", "guest_caches", "pin"),
    _CHECKS: ("inject", "fail_fast", "audit_interval_ns", "watchdog_ns"),
}


#: The sections of a prediction's help.
PREDICTED: Final = {
    WHAT: tuple(field for field in SECTIONS[WHAT] if field not in ("duration_ns", "passes")),
    _MEMORY: SECTIONS[_MEMORY],
    _ACCESSES: SECTIONS[_ACCESSES],
    _MACHINE: ("platform", "cores", "fwb", "bbm_level", "cmo"),
}

#: Form -> the word for a value in the help, where the configuration reads and judges the text.
_METAVARS: Final = {Form.DURATION: "DURATION", Form.SIZE: "SIZE", Form.TEXT: "NAME"}


def orders_argument(metavar: str, section: str = GENERAL) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Add the orders of a command that takes several: arguments, or ``--order`` as `stress run` spells it."""

    def decorate(command: Callable[..., int]) -> Callable[..., int]:
        @functools.wraps(command)
        def with_orders(orders: tuple[str, ...], order: tuple[str, ...], **options: Any) -> int:
            return command(orders=orders + order, **options)

        complete = completing(VALUES["--order"])
        option = click.option(
            "--order",
            metavar="ORDER",
            multiple=True,
            cls=SectionOption,
            section=section,
            help="One more of ORDERS, as stress run spells it",
            shell_complete=complete,
        )
        return click.argument("orders", nargs=-1, metavar=metavar, shell_complete=complete)(option(with_orders))

    return decorate


def config_option(field: str, section: str) -> Callable[[_Command], _Command]:
    """Add the option of one key."""
    about = key(RunConfig, field)
    metavar = about.name.upper() if about.form is Form.WORD else _METAVARS.get(about.form)
    default = RunConfig.model_fields[field].get_default(call_default_factory=True, validated_data={})
    help_text = about.meaning
    if default is not None:
        flag = {True: "on", False: "off"} if about.form is Form.FLAG else {}
        help_text += f"  [default: {flag.get(default) or as_written(about.form, default)}]"
    letter = [LETTERS[field]] if field in LETTERS else []
    return click.option(
        *letter,
        f"--{about.name}/--no-{about.name}" if about.form is Form.FLAG else f"--{about.name}",
        about.name.replace("-", "_"),
        type=str if metavar else about.kind,
        default=None,  # an absent option leaves the file's value alone
        metavar=metavar,
        cls=SectionOption,
        section=section,
        help=help_text,
        shell_complete=completing(words(about.words)) if about.words else _completion(f"--{about.name}"),
    )


def _completion(option: str) -> Any:
    return completing(VALUES[option]) if option in VALUES else None


def config_options(command: _Command) -> _Command:
    """Add ``--config``, an option for every key but the orders, and the selftests' letters; for `configured`."""
    return _options(command, SECTIONS, {**_LETTERS, _MACHINE: meaningless_options})


def prediction_options(command: _Command) -> _Command:
    """Add ``--config``, and those of `config_options` that say something where no process runs."""
    return _options(command, PREDICTED, _LETTERS)


_LETTERS: Final = {_MEMORY: mode_options, _ACCESSES: access_options}


def _options(command: _Command, sections: Mapping[str, Sequence[str]], letters: Mapping[str, Any]) -> _Command:
    """Add ``--config`` and the options of the sections: those of their fields, then the selftests' ``letters``."""
    for section, fields in reversed([*sections.items()]):
        if section in letters:
            command = letters[section](section)(command)
        for field in reversed(fields):
            command = config_option(field, section)(command)
    return click.option(
        "--config",
        "config_file",
        type=Shipped(Kind.CONFIG),
        metavar="FILE",
        cls=SectionOption,
        section=WHAT,
        help=f"TOML file with a table [run] of these options, which override it; or {', '.join(names(Kind.CONFIG))}",
    )(command)


def configured(file: Path | None, options: Mapping[str, Any], defaults: Mapping[str, Any] | None = None) -> RunConfig:
    """The configuration: ``options`` override the file, and the file ``defaults``. Raises `ConfigError`."""
    keys, problems, notes = translated(dict(options))
    config = from_sources(file, keys, defaults, problems)
    for note in notes:
        say(note)
    return config


def written_options(command: click.Command, words: Sequence[str]) -> dict[str, Any]:
    """The keys of a run that ``words`` set for a command with `config_options`; a mode (``-m``) is left out.

    Raises `UsageError`.
    """
    try:
        given = dict(command.make_context(command.name, [*words]).params)
    except click.UsageError as error:
        raise UsageError(error.format_message().rstrip("."), "write the command line as it was") from None
    except click.exceptions.Exit:
        raise UsageError("the command line asks for help", "write the one of the run") from None
    file = given.pop("config_file", None)
    if given.get("mode") is not None:
        check_mode(given["mode"])
    given |= {"mode": None, "selftest_kernel": None}
    keys, problems, _ = translated({name: value for name, value in given.items() if value is not None and value != ()})
    if problems:
        raise UsageError(problems[0], "write the command line as it was")
    known = {name.replace("_", "-"): value for name, value in keys.items()}
    table = load_toml(file).get("run", {}) if file else {}
    return {**table, **{name: value for name, value in known.items() if name in KEYS}}
