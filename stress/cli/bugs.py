"""``stress bugs``: the bugs that can be injected, and how to see one caught."""

from __future__ import annotations

import click

from stress.bugs import BUGS
from stress.cli.lists import table
from stress.cli.output import emit
from stress.cli.result_options import format_option
from stress.verify.showing import RUN_ALONE, VERIFY_ALONE


@click.command()
@format_option
def bugs(table_format: str) -> int:
    """List the bugs that --inject puts into our code, and the violations that they cause."""
    rows = [(bug.name, bug.effect, bug.source, ", ".join(bug.kinds)) for bug in BUGS.values()]
    emit(table(("bug", "effect", "source", "violation"), rows, table_format, {1: 38, 2: 22, 3: 22}))
    emit("")
    emit("To see one caught, in seconds and with exit code 1")
    for command, others in (("run", VERIFY_ALONE), ("verify", RUN_ALONE)):
        emit(f"- all but {' and '.join(sorted(others))}: stress {command} --inject NAME")
    return 0
