"""``stress search``: the best of all orders that can be written with some steps."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any, Final

import click

from stress.cli.lists import table
from stress.cli.output import announce, emit, make_way, say
from stress.cli.result_options import result_options
from stress.errors import ExitCode, UsageError
from stress.units import parse_duration

#: Between two lines that say how far a search is.
_PATIENCE_S: Final = 0.5


@click.command()
@click.option(
    "--steps", metavar="STEPS", help="Steps that orders are made of  [default: the basic five, with lock and unlock]"
)
@click.option("--fwb/--no-fwb", default=False, show_default=True, help="FEAT_S2FWB")
@click.option(
    "--guest-caches/--no-guest-caches", default=None, help="The guest runs with its caches on  [default: as FWB]"
)
@click.option("--bbm-level", type=click.IntRange(0, 2), default=0, show_default=True, help="FEAT_BBM level")
@click.option(
    "--proof-vcpus", type=click.IntRange(1, 4), default=1, show_default=True, help="vCPUs of the machine of the proofs"
)
@click.option(
    "--proof-accesses", type=click.IntRange(1, 8), default=2, show_default=True, help="Accesses of each of these vCPUs"
)
@click.option("--jobs", type=click.IntRange(1, 64), default=2, show_default=True, help="Orders verified at a time")
@click.option("--limit", metavar="DURATION", default=None, help="Give up on an order after this time")
@click.option(
    "--counterexamples",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write one per constraint to this directory, for stress verify --replay",
)
@result_options
def search(
    steps: str | None,
    limit: str | None,
    jobs: int,
    counterexamples: Path | None,
    output: Path | None,
    as_json: bool,
    table_format: str,
    **bounds: Any,
) -> int:
    """Search the best order: all that can be made of some steps are proved or refuted.

    Each order is verified as stress verify does, on a small machine. What tells the right ones from the wrong ones is
    learned from that, with a counterexample for each constraint. Verdicts are kept: whoever interrupts a search goes on
    with it by starting it again.
    """
    from stress.results import store
    from stress.search.classes import parse_vocabulary
    from stress.search.crew import Crew
    from stress.search.hunt import Hunt
    from stress.search.sheet import document, text
    from stress.search.verdicts import Verdicts

    vocabulary = parse_vocabulary(steps)
    limit_ns = parse_duration(limit) if limit else None
    if output is not None:
        store.check_writable(output)
    if counterexamples is not None:
        _make(counterexamples)
    caches = bounds["guest_caches"]
    limits = {
        "fwb": bounds["fwb"],
        "guest_caches": bounds["fwb"] if caches is None else caches,
        "bbm_level": bounds["bbm_level"],
        "vcpus": bounds["proof_vcpus"],
        "accesses": bounds["proof_accesses"],
    }
    with Crew(jobs) as crew:
        found = Hunt(crew, Verdicts(), limit_ns, _Tell()).search(vocabulary, limits)
    make_way()
    result = document(found)
    if output is not None:
        store.write(output, result)
    if counterexamples is not None:
        _write_counterexamples(counterexamples, found.witnesses)
    emit(store.encode(result) if as_json else text(result, lambda header, rows: table(header, rows, table_format)))
    if not found.complete:
        return ExitCode.INTERRUPTED
    return ExitCode.BROKEN if result["undecided"] else ExitCode.OK


def _make(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise UsageError(
            f"cannot write to {directory}: {why}", "name another directory with --counterexamples"
        ) from None


def _write_counterexamples(directory: Path, witnesses: Any) -> None:
    from stress.results import store

    for witness in witnesses:
        if witness.verdict.counterexample is not None:
            path = directory / f"{witness.constraint.name}.json"
            store.write(path, witness.verdict.counterexample)
            say(f"{witness.constraint.text}: stress verify --replay {path}")


class _Tell:
    """A line on the terminal that says how far a search is."""

    _WORDS: Final = {"screen": "a schedule each of %d orders", "explore": "all schedules of %d orders"}

    def __init__(self) -> None:
        self._next = 0.0

    def __call__(self, what: str, done: int, of: int, left_s: float | None) -> None:
        if of and time.monotonic() >= self._next and sys.stderr is not None and sys.stderr.isatty():
            make_way()
            left = "" if left_s is None else f", about {left_s:.0f} s left"
            announce(f"{self._WORDS[what] % of}: {done} done{left}")
            self._next = time.monotonic() + _PATIENCE_S
