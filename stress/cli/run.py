"""``stress run``: one order under test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from stress.cli.completion import completing, orders
from stress.cli.help import SectionCommand, SectionOption
from stress.cli.options import WHAT, configured
from stress.cli.run_once import Render, measuring
from stress.config import RunConfig
from stress.errors import UsageError


@click.command(cls=SectionCommand)
@click.option(
    "--order",
    metavar="ORDER",
    cls=SectionOption,
    section=WHAT,
    shell_complete=completing(orders),
    help="Order under test: a name (stress orders) or steps separated by commas",
)
@measuring
def run(config_file: Path | None, **options: Any) -> tuple[RunConfig, Render]:
    """Rebuild blocks under one order while vCPU processes hammer the table."""
    config = configured(config_file, options)
    if len(config.orders) > 1:
        names = " ".join(config.orders)
        raise UsageError(f"{config_file} names {len(config.orders)} orders", f"use stress compare {names}, or --order")
    from stress.results.tables import run_table

    return config, run_table
