"""``stress run``: one order under test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from stress.cli.options import config_options, result_options
from stress.cli.session import session
from stress.config import from_sources
from stress.errors import UsageError


@click.command()
@click.option("--order", metavar="ORDER", help="Order under test: a name (stress orders) or steps separated by commas")
@config_options
@result_options
def run(config_file: Path | None, output: Path | None, as_json: bool, table_format: str, **options: Any) -> int:
    """Rebuild blocks under one order while vCPU processes hammer the table."""
    config = from_sources(config_file, options)
    if len(config.orders) > 1:
        names = " ".join(config.orders)
        raise UsageError(f"{config_file} names {len(config.orders)} orders", f"use stress compare {names}, or --order")
    from stress.results.tables import run_table

    return session(config, run_table, output=output, as_json=as_json, table_format=table_format)
