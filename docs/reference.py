"""The reference pages, written from the code: ``python docs/reference.py`` (``make docs``) writes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pydantic import BaseModel

from stress.bench.baseline import SCHEMA_VERSION as BENCH_SCHEMA_VERSION
from stress.bench.baseline import Record
from stress.bench.metrics import METRICS
from stress.bench.suite import KernelCase, OrderCase, Suite
from stress.cli.options import SECTIONS
from stress.cli.selftest import LETTERS
from stress.config import RunConfig
from stress.config.keys import Form, Key, key
from stress.config.sweep import TABLES, PlanTable
from stress.results.parts import ResultKey
from stress.results.schema import RESULT_KEYS, SCHEMA_VERSION
from stress.results.warnings import RunWarning

# -- Markdown --


_NOTE = "<!-- Written by `make docs` from the code. Do not edit. -->"


def page(title: str, *parts: str) -> str:
    """A page whose parts stand apart, with a note that it is generated."""
    return "\n\n".join([f"# {title}", _NOTE, *parts]) + "\n"


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of texts. Not padded: a longer cell changes one line, and a test compares these lines."""
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    lines = [headers, ["---"] * len(headers), *escaped]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def code(text: str) -> str:
    """``text`` as code; nothing stays nothing."""
    return f"`{text}`" if text else ""


# -- configuration --


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

_CONFIG_VALUES: Final = """\
A **size** is written as `4K`, `2M`, `1G`, plain bytes, or in hexadecimal; a **duration** as `250ns`, `5us`, `500ms`,
`10s` or `2m`, always with its unit. A **flag** is `true` or `false` in a file, `--key` or `--no-key` as an option.
A default that is missing follows from other keys, or means that nothing is set; the meaning says which.
Everything that is wrong with a file is reported at once, each problem with the path of its key."""

_CONFIG_SWEEP: Final = """\
`stress sweep` reads these tables. A point's own values override those of `[run]`. Every key may be swept:
`order = ["unmap-first", "block-first"]` makes a point of each order, `orders = [["unmap-first", "block-first"]]` makes
one that compares them."""

_CONFIG_HEADERS: Final = ("key", "option", "value", "default", "bounds", "meaning", "in a result")


def config_page() -> str:
    """The page as Markdown."""
    parts = [_CONFIG_VALUES]
    for each in CONFIG_TABLES:
        parts += [f"## [{each.name}]", each.about, *_config_tables(each)]
    parts += ["## The file of a sweep", _CONFIG_SWEEP, _listed(TABLES)]
    return page("Configuration keys", *parts)


def _listed(tables: Mapping[str, str]) -> str:
    return "\n".join(
        f"- {code(f'[[{name}]]' if name == 'point' else f'[{name}]')}: {what}" for name, what in tables.items()
    )


def _config_tables(about: ConfigTable) -> Iterator[str]:
    listed = {name for fields in about.sections.values() for name in fields}
    first = [name for name in about.model.model_fields if name not in listed]
    for title, fields in {"": first, **about.sections}.items():
        if fields:
            yield from (f"### {title}",) if title else ()
            yield table(_CONFIG_HEADERS, [_config_row(key(about.model, name), about.letters) for name in fields])


def _config_row(each: Key, letters: Mapping[str, str]) -> list[str]:
    letter = letters.get(each.field, "")
    value = "flag" if each.form is Form.FLAG else each.form.value
    bounds = ", ".join(map(code, each.words)) if each.words else each.bounds
    # The words of a default that depends on the machine are no value to copy.
    default = each.default if " " in each.default else code(each.default)
    return [code(each.name), code(letter), value, default, bounds, each.meaning, code(each.stored)]


# -- bench --


_BENCH_SUITE: Final = """\
`stress bench` measures the suite in `configs/suites/bench.toml`, or the one that `--suite` names. Everything that is
wrong with a file is reported at once, each problem with the path of its key."""

_BENCH_METRICS: Final = """\
Each is compared as its ratio to that of the case's first order. Besides, the name of each step is a metric: its median
time over the median of its rebuild's rest, in every order that has it. When one step gets slower, the ratios of the
others fall."""

_BENCH_DOCUMENT: Final = f"""\
A baseline, and what `--json` and `--output` give, is one JSON document, schema version {BENCH_SCHEMA_VERSION}; other
versions are refused. With a baseline it also says which one it was (`baseline`), and for each figure its change, its
p-value and its verdict (`figures`). What `--json` and `--output` give says whether all launches were made
(`complete`) and what ended them early (`failure`); `samples` then has fewer of them, and nothing is judged or saved as
a baseline."""

_BENCH_KEPT: Final = """\
With `--output FILE` or `--save-baseline FILE` each launch is in `FILE.launches` as soon as it ends, one JSON line each
after a header, until all are done. Ctrl-C, a launch that broke or a killed `stress bench` loses none: the same command
with `--resume` makes those that are missing. They must be of the same measurement, which the header names: cases and
their options, number of launches, the program down to its source files, the machine and its kernel, Python and
compiler. Anything else is refused. Thresholds and the baseline may change: they decide, but measure nothing."""


def bench_page() -> str:
    """The page as Markdown."""
    parts = ["## The suite", _BENCH_SUITE, _model_table(Suite)]
    parts += ["### [[order-case]]", _model_table(OrderCase), "### [[kernel-case]]", _model_table(KernelCase)]
    metrics = [
        [code(name), metric.meaning, "higher" if metric.higher_is_better else "lower"]
        for name, metric in METRICS.items()
    ]
    parts += ["## Metrics", _BENCH_METRICS, table(("metric", "is", "better is"), metrics)]
    return page(
        "Benchmark keys",
        *parts,
        "## The document",
        _BENCH_DOCUMENT,
        _model_table(Record),
        "## Interrupted",
        _BENCH_KEPT,
    )


def _model_table(model: type[BaseModel]) -> str:
    return table(("key", "meaning", "default"), list(_model_rows(model)))


def _model_rows(model: type[BaseModel]) -> Iterator[list[str]]:
    for name, info in model.model_fields.items():
        has_default = not info.is_required() and isinstance(info.default, int)
        yield [code(info.alias or name), info.description or "", code(str(info.default)) if has_default else ""]


# -- results --


#: Headings, and what the paths below them begin with; the first one that fits.
_RESULT_SECTIONS: Final = {
    "Each order": ("orders[].",),
    "Each order against the first": ("comparison[].",),
    "Each stage": ("stages[].",),
    "Over time": ("timeline.",),
    "The guest's life": ("life_cycle.",),
    "The run": ("",),
}

_RESULTS: Final = f"""\
`--json` and `--output` give one JSON document per run, schema version {SCHEMA_VERSION}; older versions are read, newer
ones are refused. `since` is the version that brought a key, where that is not the first. A path joins keys with dots,
`[]` stands for the elements of a list, `<step>` for a step's name, `<class>` for a class of faults. A type with `?` may
be null: what was not measured is null, never 0 or NaN. Paths in *italics* are absent from some documents. In Python
every key is an attribute of `stress.Result`, where `orders` is a mapping by name."""


def results_page() -> str:
    """The page as Markdown."""
    sections: dict[str, list[ResultKey]] = {title: [] for title in ("The run", *_RESULT_SECTIONS)}
    for each in RESULT_KEYS:
        title = next(title for title, starts in _RESULT_SECTIONS.items() if each.path.startswith(starts))
        sections[title].append(each)
    parts = [_RESULTS]
    for title, keys in sections.items():
        parts += [
            f"## {title}",
            table(("path", "type", "unit", "since", "meaning"), [_result_row(each) for each in keys]),
        ]
    warnings = [(code(each.value), each.description, each.remedy) for each in RunWarning]
    return page("Result keys", *parts, "## Warnings", table(("name", "means", "remedy"), warnings))


def _result_row(each: ResultKey) -> list[str]:
    path = f"*{code(each.path)}*" if each.optional else code(each.path)
    return [path, each.type, each.unit, str(each.since) if each.since > 1 else "", each.meaning]


#: File -> what writes it.
PAGES: Final = {"bench.md": bench_page, "config.md": config_page, "results.md": results_page}

if __name__ == "__main__":
    for name, text in PAGES.items():
        Path(__file__).with_name(name).write_text(text(), encoding="utf-8")
