"""``stress predict``: orders in virtual time, with a platform's costs."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any, Final

import click

from stress.cli.help import SectionCommand
from stress.cli.options import WHAT, configured, orders_argument, prediction_options
from stress.cli.output import announce, emit, make_way, say
from stress.cli.result_options import result_options
from stress.cli.run_once import keep
from stress.config import COMPARED, Scenario

#: Between two lines that say how far a prediction is.
_PATIENCE_S: Final = 1.0


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
    from stress.predict import check, is_compiled
    from stress.predict import predict as predicted

    check(config)
    if not is_compiled():
        say("compiling the event loop for this version, once (up to a minute)")
    data = predicted(config, _Tell())
    make_way()
    result = document.build(data)
    exit_code = keep(result, output, data.exit_code)
    emit(encode(result) if as_json else compare_table(result, table_format))
    return exit_code


class _Tell:
    """A line on the terminal that says how far a long prediction is."""

    def __init__(self) -> None:
        self._next = time.monotonic() + _PATIENCE_S

    def __call__(self, order: str, virtual_ns: int, events: int) -> None:
        if time.monotonic() >= self._next and sys.stderr is not None and sys.stderr.isatty():
            make_way()
            announce(f"{order}: {virtual_ns / 1e9:.2f} s have passed there, {events:,} events played")
            self._next = time.monotonic() + _PATIENCE_S
