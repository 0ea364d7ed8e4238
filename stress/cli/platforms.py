"""``stress platforms``: the machine profiles that come with the program."""

from __future__ import annotations

import click

from stress.cli.lists import table
from stress.cli.output import emit
from stress.cli.result_options import format_option
from stress.platforms import load, names


@click.command()
@format_option
def platforms(table_format: str) -> int:
    """List the machine profiles: what the CPU has, and the costs that a run models."""
    rows = [
        (
            each.name,
            each.description,
            ", ".join(f"{what} {cost}" for what, cost in each.costs.items()) or "none",
            ", ".join(
                feature
                for feature, there in (
                    ("FWB", each.fwb),
                    ("DIC", each.dic),
                    (f"BBM level {each.bbm_level}", each.bbm_level),
                )
                if there
            ),
            each.source,
        )
        for each in map(load, names())
    ]
    headers = ("platform", "is", "modelled costs", "features", "source")
    emit(table(headers, rows, table_format, {1: 26, 2: 20, 3: 12, 4: 24}))
    return 0
