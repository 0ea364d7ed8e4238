"""Reports of a measuring command to a CI system: ``--ci junit=FILE``, and annotations for GitHub's runner."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import Any, Final

import click

from stress.cli.output import emit, say
from stress.errors import RunBroken, StressError, UsageError
from stress.results.checks import Check, Status, of_error

_VARIABLE: Final = "GITHUB_ACTIONS"


class _Report(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.4 only
    """``junit=FILE``, as the file's path."""

    name = "report"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        form, _, path = str(value).partition("=")
        if form != "junit" or not path:
            self.fail(f"{value!r} is not junit=FILE")
        return Path(path)


def reporting(command: Callable[..., int]) -> Callable[..., int]:
    """Add ``--ci`` to a command with ``--json``, which adds its checks to the list ``tested``.

    An error that ends the command is reported, too, and raised again.
    """

    @click.option(
        "--ci",
        "report",
        type=_Report(),
        metavar="junit=FILE",
        help="Write what was tested as JUnit XML; with GITHUB_ACTIONS=true failures are annotated as well",
    )
    @wraps(command)
    def wrapped(*, report: Path | None, as_json: bool, **options: Any) -> int:
        if report is not None:
            _check(report, [each for each in options.values() if isinstance(each, Path)])
        tested: list[Check] = []
        start = time.monotonic()

        def tell() -> int:
            return _tell(command.__name__, tested, time.monotonic() - start, report, as_json)

        try:
            code = command(as_json=as_json, tested=tested, **options)
        except Exception as error:
            tested.append(of_error(f"stress {command.__name__}", error))
            tell()
            raise
        if code and all(each.status in (Status.PASSED, Status.SKIPPED) for each in tested):
            # For example, a result could not be written.
            lost = RunBroken(f"it ended with exit code {int(code)}", "standard error says why")
            tested.append(of_error(f"stress {command.__name__}", lost))
        untold = tell()
        return code or untold

    return wrapped


def _check(report: Path, others: list[Path]) -> None:
    from stress.results import store

    store.check_writable(report, "--ci")
    for other in others:
        if other.resolve() == report.resolve() and not other.is_char_device():
            raise UsageError(f"--ci {report} would replace another file of this command", "choose another path")


def _tell(command: str, tested: list[Check], elapsed_s: float, report: Path | None, as_json: bool) -> int:
    """Write the reports that were asked for; returns the exit code of a failure to do so, else 0."""
    annotated = os.environ.get(_VARIABLE) == "true"
    if report is None and not annotated:
        return 0
    from stress.results import store
    from stress.results.junit import junit

    code = 0
    try:
        if report is not None:
            with store.replacing(report, "--ci") as file:
                file.write(junit(command, tested, elapsed_s))
    except StressError as error:
        say(str(error))
        code = error.exit_code
    for line in workflow_commands(command, tested) if annotated else ():
        # GitHub reads both streams; a document on standard output must stay one.
        with suppress(OSError, StressError):
            click.echo(line, err=True) if as_json else emit(line)
    return code


def workflow_commands(command: str, checks: Sequence[Check]) -> Iterator[str]:
    """A workflow command per message, naming all failed checks that have it: GitHub shows ten of a step."""
    by_message: dict[str, list[str]] = {}
    for each in sorted(checks, key=lambda check: check.status is not Status.FAILED):
        if each.status in (Status.FAILED, Status.ERROR):
            by_message.setdefault(each.message, []).append(each.name)
    for message, names in by_message.items():
        title = f"stress {command}: {', '.join(names)}"
        yield f"::error title={_property(title)}::{_data(message)}"


def _data(text: str) -> str:
    """The text escaped as by GitHub's own toolkit (actions/toolkit, packages/core/src/command.ts)."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
