"""A measuring command from configuration to exit code: check, execute, keep the result, show it."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from stress.cli.ci import reporting
from stress.cli.options import config_options
from stress.cli.output import emit, say
from stress.cli.result_options import result_options
from stress.cli.trace_option import Trace, trace_options
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


def measuring(command: Callable[..., tuple[RunConfig, Render]]) -> Callable[..., int]:
    """Make a measuring command of a function that returns its configuration and what makes the table of its result.

    The function gets ``config_file`` and the options of a configuration; all others say what becomes of the result.
    """

    @config_options
    @trace_options
    @result_options
    @reporting
    @wraps(command)
    def measure(
        *,
        config_file: Path | None,
        output: Path | None,
        as_json: bool,
        table_format: str,
        trace: Path | None,
        trace_rebuilds: int | None,
        tested: list[Check],
        **options: Any,
    ) -> int:
        config, render = command(config_file, **options)
        traced = Trace.asked(trace, trace_rebuilds)
        from stress.results import store

        if output is not None:
            store.check_writable(output)
        if traced is not None:
            traced.check(config, output)
        from stress.cli.progress import display

        request = {"trace": traced.request} if traced else {}
        with display(config) as (progress, note):
            # This begins only now: the terminal shows something to read, and bad usage has been answered.
            from stress.live.server import start_early

            start_early()
            from stress.live import execute
            from stress.results import document
            from stress.results.store import encode
            from stress.trace import files

            data = execute(config, progress=progress, note=note, **request)
        if traced is not None and data.trace is not None:
            files.name_records(traced.path, data.trace, data.violations)
        result = document.build(data)
        tested += of_document(result)
        exit_code = keep(result, output, data.exit_code)
        if traced is not None and data.trace is not None:
            try:
                files.export(traced.path, data.trace)
            except StressError as error:
                say(str(error))
                exit_code = exit_code or error.exit_code
        emit(encode(result) if as_json else render(result, table_format))
        return exit_code

    return measure
