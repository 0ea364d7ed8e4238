"""Laying text out for people: tables in tabulate's formats, wrapped lines, sections; 100 columns at most.

What spreadsheets open is made inert: they execute a cell that starts like a formula, whoever wrote it.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from typing import Any, Final

import tabulate

from stress.errors import UsageError, one_line
from stress.results import cells

WIDTH: Final = 100

#: What ``--format`` takes.
FORMATS: Final = tuple(tabulate.tabulate_formats)

# Columns are as wide as what is in them: tabulate would leave two more blanks beside each header.
tabulate.MIN_PADDING = 0

#: Evidence that is an address or a descriptor, and so hexadecimal.
_HEXADECIMAL: Final = frozenset({"ipa", "pa", "oa", "address", "descriptor", "entry", "old", "new"})


def numbers(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> list[bool]:
    """Which columns hold numbers: whatever starts with a digit or says that there is nothing is one."""
    return [
        all(not row[index] or row[index][0].isdigit() or row[index] in (cells.NONE, cells.NO_RATIO) for row in rows)
        and any(row[index] for row in rows)
        for index in range(len(headers))
    ]


def table(headers: Sequence[str], rows: Sequence[Sequence[str]], fmt: str) -> str:
    """Text left, numbers right."""
    if fmt not in FORMATS:
        raise UsageError(f"unknown table format {fmt!r}", f"use one of {', '.join(FORMATS)}")
    if fmt == SPREADSHEET:
        headers, rows = inert(headers), [inert(row) for row in rows]
    align = ["right" if numeric else "left" for numeric in numbers(headers, rows)]
    return str(tabulate.tabulate(rows, headers, tablefmt=fmt, disable_numparse=True, colalign=align))


def grouped(name: str, rows: Sequence[list[str]]) -> list[list[str]]:
    """Rows under a name, whose lines run down the first column beside them."""
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

#: What a formula starts with (OWASP, CSV Injection); tabs and line breaks do not stay.
_FORMULA: Final = ("=", "+", "-", "@")


def inert(cells: Iterable[str]) -> list[str]:
    """The cells on one line each, formulas with the quote that makes text of them; numbers are as they were."""
    return [f"'{cell}" if _is_formula(cell) else cell for cell in map(one_line, cells)]


def _is_formula(cell: str) -> bool:
    if cell == cells.NONE or not cell.startswith(_FORMULA):
        return False
    try:
        float(cell)
    except ValueError:
        return True
    return False
