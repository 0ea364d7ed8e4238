"""Tables of what there is to choose from (orders, bugs, platforms), no wider than a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tabulate import multiline_formats, tabulate

from stress.results.text import SPREADSHEET, inert


def table(
    headers: Sequence[str], rows: Sequence[Sequence[str]], fmt: str, widths: Mapping[int, int] | None = None
) -> str:
    """The rows as text. Columns with a width are wrapped to it, in formats whose cells may have several lines."""
    if fmt == SPREADSHEET:
        headers, rows = inert(headers), [inert(row) for row in rows]
    wrapped = [widths.get(index) for index in range(len(headers))] if widths and fmt in multiline_formats else None
    # No cell is a number, even if it looks like one.
    return tabulate(rows, headers=headers, tablefmt=fmt, maxcolwidths=wrapped, disable_numparse=True)
