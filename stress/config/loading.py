"""From a file, options and defaults to a configuration, or to everything that is wrong with them.

Keys (``block-size``) are spelled alike in files and on the command line. Each problem starts with its key's path.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from stress.bugs import BUGS
from stress.config.costs import cannot_finish
from stress.config.injection import cannot_act
from stress.config.model import RunConfig
from stress.config.values import Scenario, key_of
from stress.errors import UsageError, shown
from stress.guess import did_you_mean
from stress.reading import read_bytes
from stress.units import format_duration

#: Pairs of keys that say the same thing: a source that gives one takes back the other of a weaker source.
_ALTERNATIVES: Final = {"memory": "blocks", "blocks": "memory", "backing": "block-size", "block-size": "backing"}

#: Every key of a run.
KEYS: Final = ("order", *(key_of(field) for field in RunConfig.model_fields))
_OTHER_TABLES: Final = dict.fromkeys(("sweep", "point", "plan"), "is for stress sweep; here the only table is [run]")
_DURATIONS: Final = {key_of(field) for field in RunConfig.model_fields if field.endswith("_ns")}
_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")
_BOUNDS: Final = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}


class ConfigError(UsageError):
    """A configuration that makes no sense. ``problems`` has one line per bad key, starting with its path."""

    def __init__(self, problems: Sequence[str], remedy: str = "") -> None:
        self.problems = tuple(" ".join(problem.split()) for problem in problems)
        count = len(self.problems)
        super().__init__(self.problems[0] if count == 1 else f"{count} problems: {' | '.join(self.problems)}", remedy)


def load_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file; `UsageError` if it cannot be read or is not TOML."""
    try:
        return tomllib.loads(read_bytes(path).decode())
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", "name a readable TOML file") from None
    except (ValueError, RecursionError) as error:
        # ValueError: TOMLDecodeError, UnicodeDecodeError, and numbers with thousands of digits.
        raise UsageError(f"{path} is not TOML: {error}", "see configs/ for examples") from None


@dataclass(frozen=True, slots=True)
class Source:
    """Values by key (``block-size``), and the path by which an error names a key."""

    values: Mapping[str, Any]
    path: Callable[[str], str] = str


def from_sources(
    file: Path | None = None,
    options: Mapping[str, Any] | None = None,
    defaults: Mapping[str, Any] | None = None,
    problems: Iterable[str] = (),
) -> RunConfig:
    """The configuration of defaults, overridden by the file's ``[run]`` table, overridden by options.

    Keys are those of files (``block-size``); code may write ``block_size``. Raises `ConfigError` with every problem
    found, after those that the caller has found already.
    """
    found = list(problems)
    table = run_table(file, found) if file else {}
    return resolved([Source(table, path_below("run")), of_options(options or {})], defaults, found)


def spelled(key: str) -> str:
    """A key as TOML writes it: quoted, unless it is bare."""
    return key if _BARE.fullmatch(key) else json.dumps(key)


def path_below(table: str) -> Callable[[str], str]:
    """The paths of a table's keys: ``run.vcpus``."""
    return lambda key: f"{table}.{spelled(key)}"


def of_options(options: Mapping[str, Any]) -> Source:
    """The source of a command line's options. Several orders are arguments, not an option."""
    values = {name.replace("_", "-"): value for name, value in options.items()}
    return Source(values, lambda key: key if key == "orders" else f"--{key}")


def resolved(
    stated: Sequence[Source], defaults: Mapping[str, Any] | None = None, problems: Iterable[str] = ()
) -> RunConfig:
    """The configuration of defaults and of sources, the weakest first; `ConfigError` with every problem found.

    ``order`` is the same as one of ``orders``. A value that is None counts as absent. An injected bug's settings are
    defaults of their own.
    """
    found = list(problems)
    values, paths = merged(stated, defaults or {}, found)
    try:
        config = RunConfig.model_validate(values, by_alias=True, by_name=False, context="text")
    except ValidationError as error:
        found += in_words(error, values, paths)
    else:
        if idle := cannot_act(config):
            found.append(f"{paths['inject']}: {idle}")
        if costly := cannot_finish(config):
            found.append(f"{paths['platform']}: {costly}")
    if found:
        raise ConfigError(found)
    return config


def merged(
    stated: Sequence[Source], defaults: Mapping[str, Any], found: list[str]
) -> tuple[dict[str, Any], dict[str, str]]:
    """The values of the sources, a later one's over an earlier one's, and the path of each key.

    An injected bug's settings overrule the defaults, and any source overrules them.
    """
    values: dict[str, Any] = {}
    paths: dict[str, str] = {}
    bug = Source(_of_bug(source.values for source in stated))
    for source in (of_options(defaults), bug, *stated):
        given = {}
        if "order" in source.values and "orders" in source.values:
            found.append(f"{source.path('order')}: given together with orders; give one of them")
        for name, value in source.values.items():
            if value is None:
                continue
            key = "orders" if name == "order" else name
            given[key] = _Single([value]) if name == "order" else value
            paths[key] = source.path(name)
        for key in given:
            values.pop(_ALTERNATIVES.get(key, ""), None)
        values |= given
    return values, paths


class _Single(list[Any]):
    """The list made of a single value: it has no index in a path."""


def _of_bug(sources: Iterable[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The settings of the bug that the last of the sources injects, without those that mean nothing beside the others.

    Each granule has block sizes of its own; the programs of kvm-page-table-test have no pattern.
    """
    stated: dict[str, Any] = {}
    for source in sources:
        stated |= {name: value for name, value in source.items() if value is not None}
    name = stated.get("inject")
    bug = BUGS.get(name) if isinstance(name, str) else None
    if bug is None:
        return {}
    settings = dict(bug.settings)
    if "granule" in stated:
        settings.pop("block-size", None)
    if stated.get("scenario") == Scenario.PAGE_TABLE_TEST:
        settings.pop("pattern", None)
    return settings


def run_table(file: Path, problems: list[str]) -> Mapping[str, Any]:
    """The table [run] of a TOML file; what else is in it is added to ``problems``."""
    tables = load_toml(file)
    for key in tables:
        if key != "run":
            hint = (
                "belongs in the table [run]"
                if key in KEYS
                else _OTHER_TABLES.get(key, "unknown; the only table is [run]")
            )
            problems.append(f"{spelled(key)}: {hint}")
    run = tables.get("run", {})
    if not isinstance(run, dict):
        problems.append("run: must be a table, [run]")
        return {}
    return run


def in_words(
    error: ValidationError, values: Mapping[str, Any], paths: Mapping[str, str], keys: Sequence[str] = KEYS
) -> list[str]:
    """One line per key that pydantic found wrong, in the words and spellings of the user."""
    lines = []
    for detail in error.errors(include_url=False):
        kind, message = detail["type"], detail["msg"]
        key, *inner = (str(part) for part in detail["loc"])
        path = paths.get(key, key)
        if not isinstance(values.get(key), _Single):
            path += "".join(f"[{part}]" for part in inner)
        if kind == "extra_forbidden":
            message = unknown(key, keys)
        elif kind != "config":
            if kind in _BOUNDS:
                name, words = _BOUNDS[kind]
                bound = detail["ctx"][name]
                message = f"must be {words} {format_duration(bound) if key in _DURATIONS else bound}"
            message = message.replace("Input should be", "must be").replace("valid tuple", "list")
            message += f", not {shown(detail['input'] if inner else values.get(key, detail['input']))}"
        lines.append(f"{path}: {message}")
    return lines


def unknown(key: str, keys: Sequence[str] = KEYS) -> str:
    """The problem with an unknown key, and the key that may have been meant."""
    listed = ", ".join(keys)
    return f"unknown key; {did_you_mean(key, keys, f'the keys are {listed}')}"
