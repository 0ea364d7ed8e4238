"""``stress doctor``: whether this machine gives trustworthy figures, and what to do about it."""

from __future__ import annotations

import json

import click

from stress import __version__
from stress.cli.lists import table
from stress.cli.output import emit
from stress.cli.result_options import format_option
from stress.doctor import Report, Status, able, examine
from stress.errors import ExitCode


@click.command()
@format_option
@click.option("--json", "as_json", is_flag=True, help="Print the checks as JSON instead of a table")
def doctor(as_json: bool, table_format: str) -> int:
    """Check this machine, and say what to do for trustworthy figures."""
    reports = examine()
    emit(_document(reports) if as_json else _text(reports, table_format))
    return ExitCode.OK if able(reports) else ExitCode.MACHINE


def _document(reports: list[Report]) -> str:
    checks = [
        {"name": each.name, "status": each.finding.status, "found": each.finding.found, "remedy": each.finding.remedy}
        for each in reports
    ]
    return json.dumps({"stress_version": __version__, "able": able(reports), "checks": checks}, indent=2)


def _text(reports: list[Report], table_format: str) -> str:
    rows = [(each.name, each.finding.status, each.finding.found) for each in reports]
    lines = [table(("check", "", "found"), rows, table_format, {2: 80}), ""]
    # A line each, so that a command can be copied.
    todo = [f"  {each.name}: {each.finding.remedy}" for each in reports if each.finding.remedy]
    if not able(reports):
        lines.append("This machine cannot run stress. What to do:")
    elif any(each.finding.status is Status.WARNING for each in reports):
        lines.append("Runs are possible. For trustworthy figures:")
    else:
        lines.append("Nothing stands in the way of trustworthy figures.")
    return "\n".join(lines + todo)
