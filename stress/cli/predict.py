"""``stress predict``: orders in virtual time, with a platform's costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from stress.cli.help import SectionCommand
from stress.cli.options import WHAT, configured, orders_argument, prediction_options
from stress.cli.output import Announcer, announce, emit, make_way, say_what_is_compiled
from stress.cli.result_options import result_options
from stress.cli.run_once import keep
from stress.config import COMPARED, Scenario


@click.command(cls=SectionCommand)
@orders_argument("[ORDERS]...", WHAT)
@prediction_options
@result_options
def predict(
    orders: tuple[str, ...],
    config_file: Path | None,
    output: Path | None,
    as_json: bool,
    table_format: str,
    **options: Any,
) -> int:
    """Predict ORDERS on the machine of --platform, without running anything; unmap-first and block-first if none.

    The stages of kvm-page-table-test or dirty-log-perf, or --rebuilds cycles of --scenario rebuild, migration or thp,
    pass in virtual time: faults, mmu_lock's queue, TLBIs and rebuilds take what they cost there (stress platforms
    NAME). Nothing is checked: stress run does that.
    """
    asked = {**options, "orders": orders or None}
    defaults = {"orders": COMPARED, "scenario": Scenario.PAGE_TABLE_TEST}
    config = configured(config_file, asked, defaults)
    if config.scenario is Scenario.THP and len(config.orders) > 1:  # what nobody asked to compare is no comparison
        config = configured(config_file, asked, {**defaults, "orders": COMPARED[:1]})
    from stress.results import document, store
    from stress.results.store import encode
    from stress.results.tables import compare_table

    if output is not None:
        store.check_writable(output)
    announce("starting")
    from stress.predict import check
    from stress.predict import predict as predicted

    check(config)
    say_what_is_compiled()
    tell = Announcer()

    def progress(order: str, virtual_ns: int, events: int) -> None:
        tell(f"{order}: {virtual_ns / 1e9:.2f} s have passed there, {events:,} events played")

    data = predicted(config, progress)
    make_way()
    result = document.build(data)
    exit_code = keep(result, output, data.exit_code)
    emit(encode(result) if as_json else compare_table(result, table_format))
    return exit_code
