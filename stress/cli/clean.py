"""``stress clean``: shared memory left behind by runs that were killed."""

from __future__ import annotations

import click

from stress.cli.output import emit


@click.command()
def clean() -> int:
    """Remove shared-memory segments whose creator is dead."""
    from stress.shm.segment import remove_stale

    removed = remove_stale()
    emit("\n".join(f"removed {name}" for name in removed) or "nothing to remove")
    return 0
