"""``stress orders``: the named orders and the steps they are made of."""

from __future__ import annotations

import click

from stress.cli.lists import table
from stress.cli.output import emit
from stress.cli.result_options import format_option
from stress.orders import NAMED_ORDERS, STEPS
from stress.splits import SPLIT_ORDERS


@click.command()
@format_option
def orders(table_format: str) -> int:
    """List the named orders, those of splits, and the steps an order may be made of."""
    for what, named in (("order", NAMED_ORDERS), ("split order", SPLIT_ORDERS)):
        steps = [
            (order.name, ",".join(order.steps), f"FEAT_BBM level {order.bbm_level}" if order.bbm_level else "")
            for order in named.values()
        ]
        about = [(order.name, order.description, order.provenance) for order in named.values()]
        emit(table((what, "steps", "needs"), steps, table_format))
        emit("")
        emit(table((what, "is", "comes from"), about, table_format, {1: 40, 2: 44}))
        emit("")
    emit(table(("step", "does"), [(step.value, step.facts.does) for step in STEPS], table_format))
    return 0
