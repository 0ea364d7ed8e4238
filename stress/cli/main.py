"""The command ``stress``, and the one place where errors become exit codes and a line on standard error."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module

import click
from click.shell_completion import CompletionItem

from stress import __version__, interrupt
from stress.cli.output import announce, check_stdout, say, stdout_failure
from stress.errors import ExitCode, StressError, UsageError
from stress.guess import did_you_mean
from stress.limits import check_numpy, check_run, starvation

#: An environment variable: set to anything, it shows the traceback of an internal error.
DEBUG_VARIABLE = "STRESS_DEBUG"

#: The environment variable by which a shell asks for words; click derives it from the command's name.
VARIABLE = "_STRESS_COMPLETE"

#: Each is a function in the module of its name in this package.
COMMANDS = (
    "run",
    "compare",
    "predict",
    "calibrate",
    "verify",
    "search",
    "sweep",
    "bench",
    "show",
    "report",
    "orders",
    "platforms",
    "bugs",
    "doctor",
    "clean",
)

#: Commands that start the processes of a run themselves.
_STARTING = ("run", "compare")

#: Commands that need what a run needs.
_MEASURING = (*_STARTING, "sweep", "bench")

#: Commands that need numpy alone.
_COUNTING = ("predict", "calibrate", "search", "show", "report", "doctor")


class _Commands(click.Group):
    """The commands, each imported when it is used: a list of names must not wait for what a run needs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*COMMANDS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"stress.cli.{cmd_name}"), cmd_name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in COMMANDS and not name.startswith("-") and not ctx.resilient_parsing:
            raise UsageError(f"no such command {name[:60]!r}", did_you_mean(name, COMMANDS, "try stress --help"))
        # A shell that completes words runs nothing.
        runs = not {*args} & {*ctx.help_option_names} and not ctx.resilient_parsing
        if runs and name in _MEASURING:
            check_run()
        elif runs and name in _COUNTING:
            check_numpy()
        if runs and name in _STARTING:
            announce("starting")
            from stress.live.server import start_early

            start_early()  # it loads the kernels while we import what the command needs
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        commands = [CompletionItem(name) for name in COMMANDS if name.startswith(incomplete)]
        return commands or click.Command.shell_complete(self, ctx, incomplete)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="stress")
def cli() -> None:
    """A test bench for Arm stage-2 page-table rebuild orders."""


def invoke(arguments: Sequence[str] | None = None) -> int:
    """Run one command line (the process's own if None) and return its exit code. Raises nothing."""
    if VARIABLE in os.environ:
        from stress.cli import completion

        completion.install()
    try:
        check_stdout()
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
    except SystemExit:  # how click ends when the reader of its help has left
        return ExitCode.OK
    except Exception as error:
        if known := stdout_failure() or starvation(error):
            return _report(known)
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
