"""``stress search``: the best of all orders that can be written with some steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from stress import interrupt
from stress.cli.help import SectionCommand, SectionOption
from stress.cli.options import configured, prediction_options
from stress.cli.output import Announcer, emit, make_way, say, say_what_is_compiled
from stress.cli.progress import display
from stress.cli.result_options import result_options
from stress.config import COMPARED, RunConfig, Scenario
from stress.errors import ExitCode, UsageError, weightiest
from stress.orders import BLOCK_FIRST, parse_order
from stress.results.searched import search_table
from stress.units import parse_duration

if TYPE_CHECKING:
    from stress.search.hunt import Found, Progress
    from stress.search.sheet import Costs

#: What a search is at, with the number of orders.
_WORDS: Final = {
    "screen": "a schedule each of %d orders",
    "explore": "all schedules of %d orders",
    "predict": "predicting %d orders",
}


_Command = TypeVar("_Command", bound=Callable[..., Any])

#: The section of the help.
_SEARCH: Final = "Search"


def _option(*names: str, **keywords: Any) -> Callable[[_Command], _Command]:
    return click.option(*names, cls=SectionOption, section=_SEARCH, **keywords)


@click.command(cls=SectionCommand)
@_option(
    "--steps", metavar="STEPS", help="Steps that orders are made of  [default: the basic five, with lock and unlock]"
)
@_option("--guest-caches/--no-guest-caches", default=None, help="The guest runs with its caches on  [default: as FWB]")
@_option("--proof-vcpus", type=click.IntRange(1, 4), help="vCPUs of a proof's machine  [default: 1]")
@_option("--proof-accesses", type=click.IntRange(1, 8), help="Accesses of each of these vCPUs  [default: 2]")
@_option("--jobs", type=click.IntRange(1, 64), default=2, show_default=True, help="Orders verified at a time")
@_option("--limit", metavar="DURATION", default=None, help="Give up on an order after this time")
@_option(
    "--resume",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Go on with the search that wrote FILE, and write it: its steps, bounds and platform if nothing else is said",
)
@_option(
    "--confirm", metavar="DURATION", default=None, help="Run the front on this machine, interleaved, for this time"
)
@_option(
    "--counterexamples",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write one per constraint to this directory, for stress verify --replay",
)
@prediction_options
@result_options
def search(
    steps: str | None,
    guest_caches: bool | None,
    proof_vcpus: int | None,
    proof_accesses: int | None,
    jobs: int,
    limit: str | None,
    resume: Path | None,
    confirm: str | None,
    counterexamples: Path | None,
    config_file: Path | None,
    output: Path | None,
    as_json: bool,
    table_format: str,
    **options: Any,
) -> int:
    """Search the best order: all that can be made of some steps are proved or refuted, and the proved ones predicted.

    Each is verified as stress verify does, on a small machine. What tells the right ones from the wrong ones is
    learned from that, with a counterexample for each constraint. With --platform what the right ones cost is predicted,
    and those that no other beats in everything are the front. Verdicts are kept: who interrupts a search goes on with
    it by starting it again.
    """
    from stress.results import store
    from stress.search.classes import parse_vocabulary
    from stress.search.crew import Crew
    from stress.search.hunt import Hunt
    from stress.search.sheet import document
    from stress.search.verdicts import PROVED, Verdicts

    def configuration(orders: Sequence[str] = COMPARED, **more: Any) -> RunConfig:
        return configured(config_file, {**options, **more, "orders": orders})

    before: dict[str, Any] = _resumed(resume) if resume else {}
    output = output or resume
    bounds = before.get("bounds", {})
    for name, value in (
        ("fwb", bounds.get("fwb")),
        ("bbm_level", bounds.get("bbm_level")),
        ("batch", before.get("batch")),
        ("platform", before.get("platform")),
    ):
        options[name] = value if options[name] is None else options[name]
    guest_caches = bounds.get("guest_caches") if guest_caches is None else guest_caches
    vocabulary = parse_vocabulary(steps or (",".join(before["vocabulary"]) if before else None))
    limit_ns = parse_duration(limit) if limit else None
    config = configuration()
    costed = bool(config.platform_profile.figures)
    if config.scenario is not Scenario.REBUILD:
        raise UsageError(f"a search predicts no scenario {config.scenario}", "leave --scenario out")
    if confirm and not costed:
        raise UsageError("without a platform's costs there is no front to confirm", "name one with --platform")
    if confirm:
        configuration(duration=confirm)
    if costed:
        from stress.predict import check

        check(config)
    if output is not None:
        store.check_writable(output)
    if counterexamples is not None:
        _make(counterexamples)
    limits = {
        "fwb": config.fwb,
        "guest_caches": config.fwb if guest_caches is None else guest_caches,
        "bbm_level": config.bbm_level,
        "batch": min(config.batch, 2),  # blocks of a proof: two show what more would
        "vcpus": proof_vcpus or bounds.get("vcpus", 1),
        "accesses": proof_accesses or bounds.get("accesses", 2),
    }
    announcer = Announcer()

    def tell(what: str, done: int, of: int, left_s: float | None) -> None:
        left = "" if left_s is None else f", about {left_s:.0f} s left"
        if of:
            announcer(f"{_WORDS[what] % of}: {done} done{left}")

    with Crew(jobs) as crew:
        found = Hunt(crew, Verdicts(), limit_ns, tell).search(vocabulary, limits)
    costs, code = None, ExitCode.OK
    if found.complete and costed and found.judged(PROVED):
        costs = _predicted(found, config, tell)
        if confirm and not interrupt.requested.is_set():
            code = _confirmed(costs, found, configuration, confirm)
    found.complete = not interrupt.requested.is_set()
    make_way()
    result = document(found, config.batch, costs)
    if output is not None:
        store.write(output, result)
    if counterexamples is not None:
        _write_counterexamples(counterexamples, found.witnesses)
    emit(store.encode(result) if as_json else search_table(result, table_format))
    if interrupt.requested.is_set():
        return weightiest([code, ExitCode.INTERRUPTED])
    return weightiest([code, ExitCode.BROKEN if result["undecided"] else ExitCode.OK])


def _resumed(file: Path) -> dict[str, Any]:
    """The document of a search."""
    from stress.results.stored import stored

    found = stored(file).search
    if found is None:
        raise UsageError(f"{file} is no search", "give --resume a file that --output of a search wrote")
    return found


def _predicted(found: Found, config: RunConfig, tell: Progress) -> Costs:
    """What every proved order costs on the platform, as far as nobody interrupts."""
    from stress.predict import briefly
    from stress.search.front import label
    from stress.search.sheet import Costs
    from stress.search.verdicts import PROVED

    programs = found.judged(PROVED)
    say_what_is_compiled()
    costs, began = Costs(config.platform, config.to_json(), {}), time.monotonic()
    tell("predict", 0, len(programs), None)
    orders = [parse_order(label(steps, found.limits["fwb"])) for steps in programs]
    for done, (steps, (_, brief)) in enumerate(zip(programs, briefly(config, orders), strict=True), start=1):
        costs.predicted[steps] = asdict(brief)
        tell("predict", done, len(programs), (time.monotonic() - began) / done * (len(programs) - done))
        if interrupt.requested.is_set():
            break
    return costs


def _confirmed(costs: Costs, found: Found, configuration: Callable[..., RunConfig], duration: str) -> ExitCode:
    """Run the front's orders here, interleaved, against what Linux does if that is proved; the run's exit code."""
    from stress.config import default_vcpus
    from stress.live import execute
    from stress.results import document
    from stress.search.front import front_of, label

    front = [label(steps, found.limits["fwb"]) for steps in front_of(costs.predicted)]
    known = [label(steps, found.limits["fwb"]) for steps in costs.predicted]
    orders = [*(name for name in (BLOCK_FIRST.name,) if name in known and name not in front), *front]
    vcpus = min(configuration().vcpus, default_vcpus())
    config = configuration(orders, duration=duration, vcpus=vcpus, guest_caches=found.limits["guest_caches"])
    with display(config) as (progress, note):
        data = execute(config, progress=progress, note=note)
    costs.confirmation = document.build(data)
    return ExitCode(data.exit_code)


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
