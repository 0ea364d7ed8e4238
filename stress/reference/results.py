"""The page of result keys, from their registry and the warnings that a result may carry."""

from __future__ import annotations

from typing import Final

from stress.reference.markdown import code, page, table
from stress.results.document import SCHEMA_VERSION
from stress.results.keys import RESULT_KEYS, ResultKey
from stress.results.warnings import RunWarning

#: Headings, and what the paths below them begin with; the first one that fits.
_SECTIONS: Final = {
    "Each order": ("orders[].",),
    "Each order against the first": ("comparison[].",),
    "Each stage": ("stages[].",),
    "Over time": ("timeline.",),
    "The guest's life": ("life_cycle.",),
    "The run": ("",),
}

_ABOUT: Final = f"""\
`--json` and `--output` give one JSON document per run, schema version {SCHEMA_VERSION}; older versions are read, newer
ones are refused. A path joins keys with dots, `[]` stands for the elements of a list, `<step>` for a step's name,
`<class>` for a class of faults. A type with `?` may be null: what was not measured is null, never 0 or NaN. Paths in
*italics* are absent from some documents. In Python every key is an attribute of `stress.Result`, where `orders` is a
mapping by name."""


def results_page() -> str:
    """The page as Markdown."""
    sections: dict[str, list[ResultKey]] = {title: [] for title in ("The run", *_SECTIONS)}
    for each in RESULT_KEYS:
        title = next(title for title, starts in _SECTIONS.items() if each.path.startswith(starts))
        sections[title].append(each)
    parts = [_ABOUT]
    for title, keys in sections.items():
        parts += [f"## {title}", table(("path", "type", "unit", "meaning"), [_row(each) for each in keys])]
    warnings = [(code(each.value), each.description, each.remedy) for each in RunWarning]
    return page("Result keys", *parts, "## Warnings", table(("name", "means", "remedy"), warnings))


def _row(each: ResultKey) -> list[str]:
    path = f"*{code(each.path)}*" if each.optional else code(each.path)
    return [path, each.type, each.unit, each.meaning]
