"""The gate as a whole: measure a suite, and judge it by a baseline."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from stress import __version__
from stress.bench import baseline as files
from stress.bench import kept as launches_kept
from stress.bench.baseline import Record
from stress.bench.decision import Decision, Verdict, check_enough, decide
from stress.bench.measure import Progress, check, measure, turns
from stress.bench.suite import Figure, OrderCase, Suite
from stress.errors import ExitCode, RunBroken, StressError, UsageError


@dataclass(frozen=True, slots=True)
class Outcome:
    """The measurement; with a baseline also the decision on each figure, unless launches are missing."""

    record: Record
    done: int  # launches of all cases
    total: int
    baseline: Record | None = None
    decisions: tuple[Decision, ...] = ()
    notes: tuple[str, ...] = ()
    failure: StressError | None = None  # what ended it before all launches were done

    @property
    def regressions(self) -> list[Decision]:
        """The figures that got worse."""
        return [each for each in self.decisions if each.verdict is Verdict.REGRESSION]

    @property
    def undecided(self) -> list[Decision]:
        """The figures that seem to be worse, but have too few samples to tell."""
        return [each for each in self.decisions if each.verdict is Verdict.UNDECIDED]

    @property
    def exit_code(self) -> ExitCode:
        """That of the failure, if there is one; 1 if there is a regression, 4 if there may be one, else 0."""
        if self.failure is not None:
            return self.failure.exit_code
        if self.regressions:
            return ExitCode.CHECK_FAILED
        return ExitCode.BROKEN if self.undecided else ExitCode.OK

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        document = self.record.model_dump() | {
            "notes": list(self.notes),
            "complete": self.failure is None,
            "failure": str(self.failure) if self.failure else None,
        }
        if self.baseline is not None and self.failure is None:
            about = {name: getattr(self.baseline, name) for name in ("stress_version", "started_at", "launches")}
            figures = [
                asdict(each) | {"worse_by": each.worse_by, "verdict": str(each.verdict)} for each in self.decisions
            ]
            document |= {"baseline": about, "figures": figures, "exit_code": int(self.exit_code)}
        return document


def bench(
    suite: Suite,
    names: tuple[str, ...],
    launches: int,
    baseline: Record | None,
    progress: Progress,
    note: Callable[[str], None],
    keep: Path | None = None,
    resume: bool = False,
) -> Outcome:
    """Measure the cases ``names`` of a suite (all if none are named), and judge them by ``baseline``.

    Launches are kept in the file ``keep`` as they end; with ``resume`` the launches in that file are not made again.
    An error that ends the bench early is the outcome's failure. Raises `StressError` if there is not even one launch:
    the baseline does not fit, there are too few samples, the first launch broke or had a violation.
    """
    chosen = suite.only(names) if names else suite
    check(chosen)
    from stress import host

    here = host.describe()
    notes = [f"load {here['load_1min']} on {here['cores']} cores at the beginning"]
    before = {}
    if baseline is not None:
        notes += files.differences(baseline, suite.hash, here)
        before = baseline.of_cases({case.name for case in chosen.cases})
        if not before:
            raise UsageError("the baseline has no figure of these cases", "it is damaged; save a new one")
        check_enough(baseline.launches, launches, len(before))
        figures(chosen, before)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    failure = None
    identity = launches_kept.identity(chosen, launches, here)
    with launches_kept.opened(keep, identity, now, resume=resume) as kept:
        total = launches * len(chosen.cases)
        if kept.earlier:
            notes.append(f"{kept.earlier} of {total} launches are kept ones, the first of {kept.started_at}")
        elif resume:
            note(f"no launches were kept: all {total} are made")
        try:
            for launch in measure(chosen, launches, frozenset(kept.launches), progress, note):
                kept.append(launch)
        except StressError as error:
            if not kept.launches:
                raise
            failure = error
    record = Record(
        bench_schema_version=files.SCHEMA_VERSION,
        stress_version=__version__,
        suite_hash=suite.hash,
        started_at=kept.started_at,
        elapsed_s=round(sum(launch.elapsed_s for launch in kept.launches.values()), 1),
        launches=launches,
        host=here,
        samples=_samples(chosen, launches, kept),
    )
    outcome = Outcome(record, len(kept.launches), total, baseline, notes=tuple(notes), failure=failure)
    if failure is not None:
        return outcome
    for figure, each in record.samples.items():
        if len(each) != launches:
            raise RunBroken(f"{figure} is in {len(each)} of {launches} launches", "report it")
    judged = figures(chosen, record.samples)
    if baseline is None:
        return outcome
    if different := sorted(before.keys() ^ record.samples.keys()):
        raise RunBroken(f"only one side has {', '.join(different)}", "what is measured changed; save a new baseline")
    return replace(outcome, decisions=tuple(decide(judged, before, record.samples)))


def _samples(suite: Suite, launches: int, kept: launches_kept.Kept) -> dict[str, list[list[float]]]:
    """The ratios by figure and launch, in the order in which launches are made, by this bench or an earlier one."""
    samples: dict[str, list[list[float]]] = {}
    for case, number in turns(suite, launches):
        launch = kept.launches.get((case.name, number))
        for figure, ratios in launch.samples.items() if launch else ():
            samples.setdefault(figure, []).append(ratios)
    return samples


def figures(suite: Suite, names: Collection[str]) -> list[Figure]:
    """The figures of a suite's cases, in its sequence; ``names`` are those measured.

    `UsageError` if a kernel case sets the threshold of one that is not.
    """
    found: list[Figure] = []
    for case in suite.cases:
        found += case.figures() if isinstance(case, OrderCase) else case.figures(names)
    return found
