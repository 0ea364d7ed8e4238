"""``stress report``: one HTML page about stored results."""

from __future__ import annotations

from pathlib import Path

import click

from stress.cli.output import emit


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
@click.option("--title", metavar="TEXT", help="Title of the page; the files' names if left out")
def report(files: tuple[Path, ...], output: Path, title: str | None) -> int:
    """Make one self-contained HTML page of FILEs.

    A FILE is a document that --output of run or compare wrote, or a sweep's JSON Lines file. The page opens offline.
    """
    from stress.report import sources
    from stress.results import store

    store.check_writable(output)
    found = [sources.read(path) for path in files]
    # Here, because it loads Vega: what cannot be read is said at once.
    from stress.report.page import render

    page = render(found, title or ", ".join(source.name for source in found))
    store.write_text(output, page)
    emit(f"{output}: {len(found)} {'file' if len(found) == 1 else 'files'}, {len(page.encode()) / 1e6:.1f} MB")
    return 0
