"""``stress show``: a stored result, or what one asks of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from stress.cli.lists import table
from stress.cli.output import emit, say
from stress.cli.result_options import OneOf, format_option
from stress.errors import ExitCode, UsageError
from stress.results.pivot import AGGREGATES, pivot, pivot_csv, pivot_tables
from stress.results.rows import Row, figure_key, figures_of, keys_of, known, parse_condition, selected
from stress.results.schema import COLUMNS

_WIDTHS = {0: 40, 1: 50}


@click.command()
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@click.option(
    "--filter", "conditions", multiple=True, metavar="CONDITION", help="Only runs such as 'vcpus>=2'; repeatable"
)
@click.option("--rows", metavar="KEY[,KEY]", help="What to tell apart down the table; the swept keys if left out")
@click.option("--columns", metavar="KEY[,KEY]", help="What to tell apart across it; the orders if left out")
@click.option("--values", metavar="KEY[,KEY]", help=f"Result keys to show  [default: {', '.join(COLUMNS)}]")
@click.option("--aggregate", type=OneOf(list(AGGREGATES)), help="What of several runs to show  [default: median]")
@click.option("--list", "as_list", is_flag=True, help="List what can be selected and shown")
@click.option("--csv", "as_csv", is_flag=True, help="Print plain numbers, separated by commas")
@format_option
def show(
    file: Path,
    conditions: tuple[str, ...],
    rows: str | None,
    columns: str | None,
    values: str | None,
    aggregate: str | None,
    as_list: bool,
    as_csv: bool,
    table_format: str,
) -> int:
    """Show a result of run, compare, sweep, search or verify as the command did, or as a table of one's own."""
    # These are imported here, because they load numpy: help is there at once.
    from stress.results.stored import stored
    from stress.results.sweep_table import apart, default_keys

    wanted = [parse_condition(text) for text in conditions]
    found = stored(file)
    if found.sweep and found.sweep.cut_off:
        say(f"the last line of {file} is cut off, and left out")
    if as_list:
        emit(listed(found.rows, table_format))
    elif not (wanted or as_csv or any(each is not None for each in (rows, columns, values, aggregate))):
        emit(found.table(table_format))
    else:
        chosen = selected(found.rows, wanted)
        if not chosen:
            raise UsageError(f"nothing in {file} is left to show", "see all of it without --filter")
        down, across = default_keys(chosen, found.swept)
        figures = figures_of(found.rows)
        down = _names(rows, keys_of(chosen), "key") or down
        across = across if columns is None else _names(columns, keys_of(chosen), "key")
        across = tuple(key for key in across if key not in down)
        down = down if "executor" in across else apart(chosen, down)
        shown = _names(values, figures, "figure") or COLUMNS
        pivoted = pivot(chosen, down, across, shown, aggregate or "median")
        emit(pivot_csv(pivoted) if as_csv else pivot_tables(pivoted, table_format))
    return ExitCode.OK


def _names(text: str | None, names: Sequence[str], what: str) -> tuple[str, ...]:
    """The names in a list separated by commas, each of which there must be."""
    return tuple(known(name.strip(), names, what) for name in (text or "").split(",") if name.strip())


def listed(rows: Sequence[Row], fmt: str) -> str:
    """Keys with the values they have, then figures with what they mean."""
    values = [(key, ", ".join(dict.fromkeys(row.text(key) for row in rows))) for key in keys_of(rows)]
    figures = [
        (path, f"{key.meaning}{f' ({key.unit})' if key.unit else ''}")
        for path in figures_of(rows)
        if (key := figure_key(path))
    ]
    return f"{table(('key', 'values'), values, fmt, _WIDTHS)}\n\n{table(('figure', 'is'), figures, fmt)}"
