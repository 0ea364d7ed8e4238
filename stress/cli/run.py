"""``stress run``: one order under test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from stress.cli.ci import reporting
from stress.cli.completion import completing, orders
from stress.cli.help import SectionCommand, SectionOption
from stress.cli.options import WHAT, config_options, configured
from stress.cli.result_options import result_options
from stress.cli.run_once import session
from stress.cli.trace_option import Trace, trace_options
from stress.errors import UsageError
from stress.results.checks import Check


@click.command(cls=SectionCommand)
@click.option(
    "--order",
    metavar="ORDER",
    cls=SectionOption,
    section=WHAT,
    shell_complete=completing(orders),
    help="Order under test: a name (stress orders) or steps separated by commas",
)
@config_options
@trace_options
@result_options
@reporting
def run(
    config_file: Path | None,
    output: Path | None,
    as_json: bool,
    table_format: str,
    trace: Path | None,
    trace_rebuilds: int | None,
    tested: list[Check],
    **options: Any,
) -> int:
    """Rebuild blocks under one order while vCPU processes hammer the table."""
    config = configured(config_file, options)
    asked = Trace.asked(trace, trace_rebuilds)
    if len(config.orders) > 1:
        names = " ".join(config.orders)
        raise UsageError(f"{config_file} names {len(config.orders)} orders", f"use stress compare {names}, or --order")
    from stress.results.tables import run_table

    return session(
        config, run_table, output=output, as_json=as_json, table_format=table_format, trace=asked, tested=tested
    )
