"""Figures of rows by chosen keys, aggregated over all other keys, as tables or as CSV."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from stress.results.rows import Row, figure_key, figure_text
from stress.results.schema import COLUMNS
from stress.results.text import inert, joined, table

#: Name -> the function that makes one figure of several runs'.
AGGREGATES: Final[dict[str, Callable[[Sequence[float]], float]]] = {
    "median": statistics.median,
    "mean": statistics.fmean,
    "min": min,
    "max": max,
}

_Label = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Pivot:
    """Figures by the row's and the column's labels; a figure that was not measured is absent."""

    row_keys: tuple[str, ...]
    column_keys: tuple[str, ...]
    figures: tuple[str, ...]
    aggregate: str
    rows: tuple[_Label, ...]
    columns: tuple[_Label, ...]
    cells: dict[tuple[_Label, _Label, str], float]
    runs: int  # the most that one cell stands for


def pivot(
    rows: Sequence[Row],
    row_keys: Sequence[str],
    column_keys: Sequence[str],
    figures: Sequence[str] = COLUMNS,
    aggregate: str = "median",
) -> Pivot:
    """The rows' figures by the values of the keys; labels come in the order in which the rows have them."""
    values: dict[tuple[_Label, _Label, str], list[float]] = {}
    row_labels: dict[_Label, None] = {}
    column_labels: dict[_Label, None] = {}
    for row in rows:
        at, across = (tuple(row.text(key) for key in keys) for keys in (row_keys, column_keys))
        row_labels[at] = column_labels[across] = None
        for figure in figures:
            if (value := row.figures.get(figure)) is not None:
                values.setdefault((at, across, figure), []).append(value)
    return Pivot(
        tuple(row_keys),
        tuple(column_keys),
        tuple(figures),
        aggregate,
        tuple(row_labels),
        tuple(column_labels),
        {place: AGGREGATES[aggregate](found) for place, found in values.items()},
        max(map(len, values.values()), default=0),
    )


def pivot_tables(found: Pivot, fmt: str = "simple") -> str:
    """A table per figure with the columns' labels across; without column keys one table of all figures."""
    if found.column_keys:
        parts = [f"{_title(figure)}\n\n{_across(found, figure, fmt)}" for figure in found.figures]
    else:
        parts = [_together(found, fmt)]
    if found.runs > 1:
        parts.append(f"Each figure is the {found.aggregate} of up to {found.runs} runs.")
    return joined(*parts)


def pivot_csv(found: Pivot) -> str:
    """One line per row and column with plain numbers in the units that the figures' names say."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(inert([*found.row_keys, *found.column_keys, *found.figures]))
    for at in found.rows:
        for across in found.columns:
            numbers = [found.cells.get((at, across, figure)) for figure in found.figures]
            if any(number is not None for number in numbers):
                writer.writerow([*inert([*at, *across]), *map(_plain, numbers)])
    return text.getvalue().rstrip("\n")


def _plain(number: float | None) -> float | None:
    """A number that prints without a decimal point if it is whole."""
    return int(number) if number is not None and number == int(number) else number


def _title(figure: str) -> str:
    key = figure_key(figure)
    return f"{figure}: {key.meaning}" if key else figure


def _across(found: Pivot, figure: str, fmt: str) -> str:
    headers = [*found.row_keys, *("\n".join(label).replace(",", ",\n") for label in found.columns)]
    rows = [
        [*at, *(figure_text(figure, found.cells.get((at, across, figure))) for across in found.columns)]
        for at in found.rows
    ]
    return table(headers, rows, fmt)


def _together(found: Pivot, fmt: str) -> str:
    headers = [*found.row_keys, *(figure.replace(".", "\n.") for figure in found.figures)]
    rows = [
        [*at, *(figure_text(figure, found.cells.get((at, (), figure))) for figure in found.figures)]
        for at in found.rows
    ]
    return table(headers, rows, fmt)
