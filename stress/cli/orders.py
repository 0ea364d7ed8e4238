"""``stress orders``: the named orders and the steps they are made of."""

from __future__ import annotations

import click
from tabulate import multiline_formats, tabulate

from stress.cli.options import format_option
from stress.cli.output import emit
from stress.orders import NAMED_ORDERS, STEPS


@click.command()
@format_option
def orders(table_format: str) -> int:
    """List the named orders, and the steps an order may be made of."""
    named = [(o.name, ",".join(o.steps), o.provenance, o.description) for o in NAMED_ORDERS.values()]
    steps = [(step.value, step.description) for step in STEPS]
    headers = ("order", "steps", "provenance", "description")
    # Long texts are wrapped where a cell may have several lines.
    widths = [None, None, 30, 28] if table_format in multiline_formats else None
    emit(tabulate(named, headers=headers, tablefmt=table_format, maxcolwidths=widths))
    emit("")
    emit(tabulate(steps, headers=("step", "does"), tablefmt=table_format))
    return 0
