"""``stress compare``: two or more orders interleaved cycle by cycle in one set of processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from stress.cli.ci import reporting
from stress.cli.help import SectionCommand
from stress.cli.options import WHAT, config_options, configured, orders_argument
from stress.cli.result_options import result_options
from stress.cli.run_once import session
from stress.cli.trace_option import Trace, trace_options
from stress.config import COMPARED
from stress.errors import UsageError
from stress.results.checks import Check


@click.command(cls=SectionCommand)
@orders_argument("[ORDERS]...", WHAT)
@config_options
@trace_options
@result_options
@reporting
def compare(
    orders: tuple[str, ...],
    config_file: Path | None,
    output: Path | None,
    as_json: bool,
    table_format: str,
    trace: Path | None,
    trace_rebuilds: int | None,
    tested: list[Check],
    **options: Any,
) -> int:
    """Compare ORDERS, cycle by cycle in the same processes; unmap-first and block-first if none are named.

    An order is a name (stress orders) or steps separated by commas. The ratios are to the first one.
    """
    config = configured(config_file, {**options, "orders": orders or None}, {"orders": COMPARED})
    asked = Trace.asked(trace, trace_rebuilds)
    if len(config.orders) < 2:
        (only,) = config.orders
        other = next(order for order in COMPARED if order != only)
        raise UsageError(f"there is only {only} to compare", f"name two or more: stress compare {other} {only}")
    from stress.results.tables import compare_table

    return session(
        config, compare_table, output=output, as_json=as_json, table_format=table_format, trace=asked, tested=tested
    )
