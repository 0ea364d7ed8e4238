"""The command ``stress``, and the one place where errors become exit codes and a line on standard error."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from stress import __version__, interrupt
from stress.cli.bench import bench
from stress.cli.bugs import bugs
from stress.cli.clean import clean
from stress.cli.compare import compare
from stress.cli.doctor import doctor
from stress.cli.orders import orders
from stress.cli.output import say
from stress.cli.platforms import platforms
from stress.cli.report import report
from stress.cli.run import run
from stress.cli.show import show
from stress.cli.sweep import sweep
from stress.errors import ExitCode, StressError, UsageError

#: Set it to anything to see the traceback of an internal error.
DEBUG_VARIABLE = "STRESS_DEBUG"


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="stress")
def cli() -> None:
    """A test bench for Arm stage-2 page-table rebuild orders."""


for _command in (run, compare, sweep, bench, show, report, orders, platforms, bugs, doctor, clean):
    cli.add_command(_command)


def invoke(arguments: Sequence[str] | None = None) -> int:
    """Run one command line (the process's own if None) and return its exit code. Raises nothing."""
    try:
        code = int(cli.main(arguments, prog_name="stress", standalone_mode=False) or ExitCode.OK)
        return code or (ExitCode.INTERRUPTED if interrupt.requested.is_set() else ExitCode.OK)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return ExitCode.USAGE
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "stress"
        return _report(UsageError(error.format_message().rstrip("."), f"try {command} --help"))
    except StressError as error:
        return _report(error)
    except (click.Abort, KeyboardInterrupt):
        say("interrupted")
        return ExitCode.INTERRUPTED
    except Exception as error:
        if os.environ.get(DEBUG_VARIABLE):
            raise
        what = f"internal error: {type(error).__name__}: {error}"
        return _report(StressError(what, f"please report it, with what {DEBUG_VARIABLE}=1 shows"))


def _report(error: StressError) -> int:
    say(str(error))
    return error.exit_code


def main() -> None:
    """Run the process's command line and exit."""
    code = invoke()
    interrupt.ignore()
    sys.exit(code)
