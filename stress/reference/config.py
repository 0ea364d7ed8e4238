"""The page of configuration keys, from the fields of the models that read them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from pydantic import BaseModel

from stress.cli.options import SECTIONS
from stress.cli.selftest import LETTERS
from stress.config import RunConfig
from stress.config.keys import Form, Key, key
from stress.config.sweep import TABLES, PlanTable
from stress.reference.markdown import code, page, table


@dataclass(frozen=True)
class ConfigTable:
    """A TOML table, the model that reads it, and what people need to know first.

    ``sections`` groups the fields under headings; those it leaves out come first. ``letters`` are short options.
    """

    name: str
    model: type[BaseModel]
    about: str
    sections: Mapping[str, Sequence[str]] = field(default_factory=dict)
    letters: Mapping[str, str] = field(default_factory=dict)


#: Every table of a configuration file.
CONFIG_TABLES: Final = (
    ConfigTable(
        "run",
        RunConfig,
        "What a run does. Each key is also an option of `stress run` and `stress compare` (`--key`), which overrides "
        "the file, and an argument of `stress.run` and `stress.compare` in Python (`block_size` for `block-size`). "
        "`order` is the same as one of `orders`; on the command line it is `--order`, or the arguments of `compare`. "
        "The last column is the key's name in the `config` of a result.",
        SECTIONS,
        LETTERS,
    ),
    ConfigTable(
        "plan",
        PlanTable,
        "In the file of a sweep alone. The last column is the key's name in the first line of the sweep's file.",
    ),
)

_VALUES: Final = """\
A **size** is written as `4K`, `2M`, `1G`, plain bytes, or in hexadecimal; a **duration** as `250ns`, `5us`, `500ms`,
`10s` or `2m`, always with its unit. A **flag** is `true` or `false` in a file, `--key` or `--no-key` as an option.
A default that is missing follows from other keys, or means that nothing is set; the meaning says which.
Everything that is wrong with a file is reported at once, each problem with the path of its key."""

_SWEEP: Final = """\
`stress sweep` reads these tables. A point's own values override those of `[run]`. Every key may be swept:
`order = ["unmap-first", "block-first"]` makes a point of each order, `orders = [["unmap-first", "block-first"]]` makes
one that compares them."""

_HEADERS: Final = ("key", "option", "value", "default", "bounds", "meaning", "in a result")


def config_page() -> str:
    """The page as Markdown."""
    parts = [_VALUES]
    for each in CONFIG_TABLES:
        parts += [f"## [{each.name}]", each.about, *_tables(each)]
    parts += ["## The file of a sweep", _SWEEP, _listed(TABLES)]
    return page("Configuration keys", *parts)


def _listed(tables: Mapping[str, str]) -> str:
    return "\n".join(
        f"- {code(f'[[{name}]]' if name == 'point' else f'[{name}]')}: {what}" for name, what in tables.items()
    )


def _tables(about: ConfigTable) -> Iterator[str]:
    listed = {name for fields in about.sections.values() for name in fields}
    first = [name for name in about.model.model_fields if name not in listed]
    for title, fields in {"": first, **about.sections}.items():
        if fields:
            yield from (f"### {title}",) if title else ()
            yield table(_HEADERS, [_row(key(about.model, name), about.letters) for name in fields])


def _row(each: Key, letters: Mapping[str, str]) -> list[str]:
    letter = letters.get(each.field, "")
    value = "flag" if each.form is Form.FLAG else each.form.value
    bounds = ", ".join(map(code, each.words)) if each.words else each.bounds
    # The words of a default that depends on the machine are no value to copy.
    default = each.default if " " in each.default else code(each.default)
    return [code(each.name), code(letter), value, default, bounds, each.meaning, code(each.stored)]
