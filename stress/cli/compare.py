"""``stress compare``: two or more orders interleaved cycle by cycle in one set of processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from stress.cli.help import SectionCommand
from stress.cli.options import WHAT, configured, orders_argument
from stress.cli.run_once import Render, measuring
from stress.config import COMPARED, RunConfig
from stress.errors import UsageError


@click.command(cls=SectionCommand)
@orders_argument("[ORDERS]...", WHAT)
@measuring
def compare(config_file: Path | None, orders: tuple[str, ...], **options: Any) -> tuple[RunConfig, Render]:
    """Compare ORDERS, cycle by cycle in the same processes; unmap-first and block-first if none are named.

    An order is a name (stress orders) or steps separated by commas. The ratios are to the first one.
    """
    config = configured(config_file, {**options, "orders": orders or None}, {"orders": COMPARED})
    if len(config.orders) < 2:
        (only,) = config.orders
        other = next(order for order in COMPARED if order != only)
        raise UsageError(f"there is only {only} to compare", f"name two or more: stress compare {other} {only}")
    from stress.results.tables import compare_table

    return config, compare_table
