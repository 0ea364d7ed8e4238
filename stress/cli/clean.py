"""``stress clean``: shared memory left behind by runs that were killed."""

from __future__ import annotations

import click

from stress.cli.output import emit
from stress.errors import one_line
from stress.units import format_bytes


@click.command()
@click.option("--dry-run", is_flag=True, help="Say what would be removed, and remove nothing")
def clean(dry_run: bool) -> int:
    """Remove shared-memory segments whose creator is dead."""
    from stress.shm.stale import remove_stale, stale_segments

    found = stale_segments()
    done = [each for each in found if each.ours] if dry_run else remove_stale()
    verb = "would remove" if dry_run else "removed"
    lines = [f"{verb} {each.name} ({format_bytes(each.bytes)}, of process {each.creator})" for each in done]
    lines += [f"left {each.name} to its owner" for each in found if not each.ours]
    emit("\n".join(map(one_line, lines)) or "nothing to remove")  # anybody may have chosen the names
    return 0
