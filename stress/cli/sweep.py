"""``stress sweep``: many points, each a run, into one file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from stress.cli.completion import Shipped
from stress.cli.lists import table
from stress.cli.output import emit, say
from stress.cli.result_options import format_option
from stress.config import SweepPlan, label, load_sweep
from stress.errors import ExitCode
from stress.shipped import Kind
from stress.sweeps.estimate import expected_s, spelled

if TYPE_CHECKING:
    from stress.sweeps.execution import Scheduler


@click.command()
@click.argument("config_file", metavar="CONFIG", type=Shipped(Kind.SWEEP))
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="JSON Lines file that results are appended to; the config's name with .jsonl, here, if left out",
)
@click.option("--resume", is_flag=True, help="Continue the file: run what it lacks, and what broke")
@click.option("--dry-run", is_flag=True, help="List the points and say how long they take; run nothing")
@click.option("--repeats", type=int, metavar="N", help="Runs of each point, instead of what the file says")
@click.option("--duration", metavar="DURATION", help="Time of each run, instead of what the file says")
@click.option(
    "--scheduler",
    metavar="ADDRESS",
    help="Dask scheduler whose workers run the points, such as tcp://host:8786 (needs stress[distributed])",
)
@format_option
def sweep(
    config_file: Path,
    output: Path | None,
    resume: bool,
    dry_run: bool,
    repeats: int | None,
    duration: str | None,
    scheduler: str | None,
    table_format: str,
) -> int:
    """Run every point of CONFIG, a TOML file with lists of options to try, in random order.

    CONFIG is the file's path, or the name of one that comes with the program.
    Each result is in the file as soon as its run ends. After an interruption --resume goes on from there.
    """
    plan = load_sweep(config_file, {"duration": duration}, repeats)
    path = output or Path(config_file.stem + ".jsonl")
    if dry_run:
        emit(_listed(plan, table_format))
        return ExitCode.OK
    # These are imported here, because they load numpy: bad usage is answered at once.
    from stress.cli.sweep_progress import watching
    from stress.results.sweep_table import sweep_table
    from stress.sweeps.execution import carry_out

    with watching() as observer:
        outcome = carry_out(plan, path, _scheduler(scheduler), observer, resume=resume)
    total = plan.runs
    emit(sweep_table(outcome.results, plan.swept, total, table_format))
    if outcome.left:
        say(f"{outcome.left} of {total} runs are left; continue with --resume")
    return outcome.exit_code


def _scheduler(address: str | None) -> Scheduler:
    if address is None:
        from stress.sweeps.local import run_here

        return run_here
    from stress.sweeps.cluster import on_cluster

    return on_cluster(address)


def _listed(plan: SweepPlan, fmt: str) -> str:
    rows = [
        [
            str(point.index + 1),
            *(label({key: point.values[key]}).partition("=")[2] if key in point.values else "" for key in plan.swept),
        ]
        for point in plan.points
    ]
    points = f"{len(plan.points)} point{'s' if len(plan.points) > 1 else ''}"
    times = f"{plan.repeats} runs each" if plan.repeats > 1 else "one run each"
    about = f"{points}, {times}, in random order (seed {plan.seed}): about {spelled(expected_s(plan.trials()))}"
    return f"{table(('point', *plan.swept), rows, fmt)}\n\n{about}"
