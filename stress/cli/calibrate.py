"""``stress calibrate``: costs of a machine from what the KVM selftests printed there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stress.cli.completion import VALUES, completing
from stress.cli.options import config_option, written_options
from stress.cli.output import announce, emit, make_way, say, say_what_is_compiled
from stress.cli.result_options import format_option
from stress.errors import UsageError
from stress.limits import check_run

if TYPE_CHECKING:
    from stress.calibrate.calibration import Calibration

#: Fields that no selftest prints; an option may set them for all logs.
_SAID = ("locking", "cmo", "fwb", "eager_split")


def _options(command: Any) -> Any:
    for field in reversed(_SAID):
        command = config_option(field, "")(command)
    return command


@click.command()
@click.argument("logs", nargs=-1, metavar="LOG...", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="Write the platform to this TOML file"
)
@click.option("--live", is_flag=True, help="Fit this machine to short runs of its own instead (two minutes)")
@click.option(
    "--platform",
    default="arm64",
    show_default=True,
    metavar="NAME",
    shell_complete=completing(VALUES["--platform"]),
    help="Platform to start from: its costs stand for what the logs do not tell, its features for what nobody said",
)
@click.option(
    "--order",
    metavar="ORDER",
    shell_complete=completing(VALUES["--order"]),
    help="Order of the kernel that was tested  [default: unmap-first, Linux 5.10 to 6.1]",
)
@_options
@format_option
def calibrate(
    logs: tuple[Path, ...],
    output: Path | None,
    live: bool,
    platform: str,
    order: str | None,
    table_format: str,
    **options: Any,
) -> int:
    """Fit a machine's costs to LOGs: what kvm_page_table_test or dirty_log_perf_test printed there.

    Options are those that the log says, in the test's lines or a command line before them; what neither says may stand
    in a TOML file beside the log (run.log, run.toml: a table [run]), or in an option here. The platform written is one
    for --platform of run, compare and predict.
    """
    if live == bool(logs):
        raise UsageError(
            "there is nothing to fit" if logs == () else "logs are of another machine", "name logs, or --live"
        )
    from stress.platforms import load

    start = load(platform)
    if not start.figures:
        raise UsageError(f"platform {platform} models no costs to start from", "name one that does (--platform)")
    if output is not None:
        from stress.results.store import check_writable

        if output.suffix != ".toml":
            raise UsageError(f"{output} would not be found as a platform", "give it a name that ends in .toml")
        check_writable(output)
    if live:
        return _live(output, table_format)
    from stress.calibrate.logs import read_logs

    defaults = {"orders": ["unmap-first"], "fwb": start.fwb, "bbm-level": start.bbm_level}
    read = read_logs(logs, {**options, "order": order}, defaults, read_options)
    announce("fitting costs")
    from stress.calibrate.calibration import calibrate as fitted
    from stress.predict import check

    for log in read:
        check(log.config.on(start))
    say_what_is_compiled()
    found = fitted(read, start)
    make_way()
    for log in read:
        if log.assumed:
            say(f"{log.name} says nothing of {', '.join(log.assumed)}: assumed; options or {log.beside} may say it")
    return _kept(found, output, table_format)


def _live(output: Path | None, table_format: str) -> int:
    """Measure this machine, and fit its costs to that."""
    check_run()
    from stress.calibrate.own_runs import START, live_logs

    measured = list(live_logs(say))
    announce("fitting costs")
    from stress.calibrate.calibration import calibrate as fitted

    found = fitted(measured, START)
    words = {"description": START.description, "source": START.source}
    return _kept(replace(found, platform=found.platform.model_copy(update=words)), output, table_format)


def _kept(found: Calibration, output: Path | None, table_format: str) -> int:
    """Write the platform that was found, and show what is known of it."""
    from stress.calibrate.summary import report

    make_way()
    if output is not None:
        from stress.calibrate.profile import as_toml
        from stress.results.store import write_text

        write_text(output, as_toml(found.platform))
    emit(report(found, table_format))
    return 0


def read_options(name: str, words: Sequence[str]) -> Mapping[str, Any]:
    """The keys that a command line sets: one of our commands', or a selftest's, which has the same letters."""
    command = import_module(f"stress.cli.{name}")
    return written_options(getattr(command, name), words)
