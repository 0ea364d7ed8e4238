"""Text for spreadsheets, which execute a cell that starts like a formula, whoever wrote it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from stress.errors import one_line
from stress.results.cells import NONE

#: The one format of tabulate that spreadsheets open.
FORMAT: Final = "tsv"

#: What a formula starts with (OWASP, CSV Injection); tabs and line breaks do not stay.
_FORMULA: Final = ("=", "+", "-", "@")


def inert(cells: Iterable[str]) -> list[str]:
    """The cells on one line each, formulas with the quote that makes text of them; numbers are as they were."""
    return [f"'{cell}" if _is_formula(cell) else cell for cell in map(one_line, cells)]


def _is_formula(cell: str) -> bool:
    if cell == NONE or not cell.startswith(_FORMULA):
        return False
    try:
        float(cell)
    except ValueError:
        return True
    return False
