"""``stress report``: one HTML page about stored results."""

from __future__ import annotations

from pathlib import Path

import click

from stress.cli.output import emit
from stress.errors import UsageError


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE...")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("report.html"),
    metavar="PATH",
    show_default=True,
    help="Write the page to this file",
)
@click.option("--title", metavar="TEXT", help="Title of the page; what was measured if left out")
def report(files: tuple[Path, ...], output: Path, title: str | None) -> int:
    """Make one self-contained HTML page of FILEs.

    A FILE is a document that --output of run, compare, search or verify wrote, or a sweep's JSON Lines file. The page
    opens offline.
    """
    from stress.results import store
    from stress.results.stored import stored
    from stress.results.text import counted

    if output.resolve() in [path.resolve() for path in files]:
        raise UsageError(f"{output} is one of the results", "choose another path with --output")
    store.check_writable(output)
    found = [stored(path) for path in files]
    # The page is imported here, because it loads Vega: a file that cannot be read is named at once.
    from stress.report.page import render

    page = render(found, title)
    store.write_text(output, page)
    emit(f"{output}: {counted(len(found), 'result')}, {len(page.encode()) / 1e6:.1f} MB")
    return 0
