"""A measuring command from configuration to exit code: check, execute, keep the result, show it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from stress.cli.output import emit, say
from stress.cli.trace_option import Trace
from stress.config import RunConfig
from stress.errors import StressError
from stress.results.checks import Check, of_document

#: Makes a table of a result document, in a format of tabulate.
Render = Callable[[dict[str, Any], str], str]


def keep(result: dict[str, Any], output: Path | None, exit_code: int) -> int:
    """Write a result to the file ``output``, if there is one; returns ``exit_code``, or if 0 that of a failed write."""
    from stress.results import store

    if output is not None:
        try:
            store.write(output, result)
        except StressError as error:
            say(str(error))
            return exit_code or error.exit_code
    return exit_code


def session(
    config: RunConfig,
    render: Render,
    *,
    output: Path | None,
    as_json: bool,
    table_format: str,
    trace: Trace | None = None,
    tested: list[Check],
) -> int:
    """Run ``config`` and return the process's exit code; what it ``tested`` is added to the list."""
    from stress.results import store

    if output is not None:
        store.check_writable(output)
    if trace is not None:
        trace.check(config, output)
    from stress.cli.progress import display

    asked = {"trace": trace.request} if trace else {}
    with display(config) as (progress, note):
        # This begins only now: the terminal shows something to read, and bad usage has been answered.
        from stress.live.server import start_early

        start_early()
        from stress.live import execute
        from stress.results import document
        from stress.results.store import encode
        from stress.trace import files

        data = execute(config, progress=progress, note=note, **asked)
    if trace is not None and data.trace is not None:
        files.name_records(trace.path, data.trace, data.violations)
    result = document.build(data)
    tested += of_document(result)
    exit_code = keep(result, output, data.exit_code)
    if trace is not None and data.trace is not None:
        try:
            files.export(trace.path, data.trace)
        except StressError as error:
            say(str(error))
            exit_code = exit_code or error.exit_code
    emit(encode(result) if as_json else render(result, table_format))
    return exit_code
