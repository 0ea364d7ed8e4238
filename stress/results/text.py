"""The layout of text for people: tables in tabulate's formats, wrapped lines, sections; 100 columns at most.

Cells for spreadsheets are made inert: a spreadsheet executes a cell that starts like a formula.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from typing import Any, Final

import tabulate

from stress.errors import UsageError, one_line
from stress.results import cells

WIDTH: Final = 100

#: The formats that ``--format`` takes.
FORMATS: Final = tuple(tabulate.tabulate_formats)

# Columns are as wide as their cells: tabulate would leave two more blanks beside each header.
tabulate.MIN_PADDING = 0

#: Evidence that is an address or a descriptor, and so hexadecimal.
_HEXADECIMAL: Final = frozenset({"ipa", "pa", "oa", "address", "descriptor", "entry", "old", "new"})


def numbers(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> list[bool]:
    """Which columns hold numbers: all their cells start with a digit, are empty or say that there is no number."""
    return [
        all(not row[index] or row[index][0].isdigit() or row[index] in (cells.NONE, cells.NO_RATIO) for row in rows)
        and any(row[index] for row in rows)
        for index in range(len(headers))
    ]


def table(headers: Sequence[str], rows: Sequence[Sequence[str]], fmt: str, *, words: bool = False) -> str:
    """A table with numbers on the right of columns unless all is ``words``; `UsageError` for an unknown format."""
    if fmt not in FORMATS:
        raise UsageError(f"unknown table format {fmt!r}", f"use one of {', '.join(FORMATS)}")
    if fmt == SPREADSHEET:
        headers, rows = inert(headers), [inert(row) for row in rows]
    align = ["right" if numeric and not words else "left" for numeric in numbers(headers, rows)]
    return str(tabulate.tabulate(rows, headers, tablefmt=fmt, disable_numparse=True, colalign=align))


def grouped(name: str, rows: Sequence[list[str]]) -> list[list[str]]:
    """The rows with a first column in front, down which the lines of ``name`` run."""
    lines = cells.name(name).split("\n")
    lines += [""] * (len(rows) - len(lines))
    first = [*lines[: len(rows) - 1], "\n".join(lines[len(rows) - 1 :])]
    return [[head, *row] for head, row in zip(first, rows, strict=True)]


def pairs(values: dict[str, Any]) -> str:
    """``key=value`` for everything that has a value, lists with commas; addresses and descriptors in hexadecimal."""
    return " ".join(f"{key}={_value(key, value)}" for key, value in values.items() if value is not None)


def _value(key: str, value: Any) -> str:
    if key in _HEXADECIMAL and isinstance(value, int) and not isinstance(value, bool):
        return f"{value:#x}"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def wrapped(text: str, indent: str = "") -> str:
    """``text`` in lines of at most `WIDTH`, those after the first indented by two more."""
    return textwrap.fill(text, WIDTH, initial_indent=indent, subsequent_indent=indent + "  ", break_on_hyphens=False)


def joined(*sections: str) -> str:
    """The sections that say anything, a blank line between them, and no escape codes."""
    text = "\n\n".join(section for section in sections if section)
    return "".join(char for char in text if char in "\n\t" or char.isprintable())


def counted(count: int, noun: str, plural: str = "") -> str:
    """``1 rebuild``, ``12,345 rebuilds``."""
    return f"{cells.count(count)} {noun if count == 1 else plural or noun + 's'}"


#: The one format of tabulate that spreadsheets open.
SPREADSHEET: Final = "tsv"

#: First characters of a formula (OWASP, CSV Injection); tabs and line breaks are gone before.
_FORMULA: Final = ("=", "+", "-", "@")


def inert(cells: Iterable[str]) -> list[str]:
    """The cells on one line each; a formula gets the quote that makes text of it, a number stays as it is."""
    return [f"'{cell}" if _is_formula(cell) else cell for cell in map(one_line, cells)]


def _is_formula(cell: str) -> bool:
    if cell == cells.NONE or not cell.startswith(_FORMULA):
        return False
    try:
        float(cell)
    except ValueError:
        return True
    return False
