"""The gate as a whole: measure a suite, and judge it by a baseline."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from stress import __version__
from stress.bench import baseline as files
from stress.bench.baseline import Record
from stress.bench.decision import Decision, Verdict, check_enough, decide
from stress.bench.measure import Progress, check, measure
from stress.bench.suite import Figure, OrderCase, Suite
from stress.errors import ExitCode, RunBroken, UsageError


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was measured; with a baseline also what became of each figure."""

    record: Record
    baseline: Record | None = None
    decisions: tuple[Decision, ...] = ()
    notes: tuple[str, ...] = ()

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
        """1 if there is a regression, 4 if there may be one: only what was decided can pass."""
        if self.regressions:
            return ExitCode.CHECK_FAILED
        return ExitCode.BROKEN if self.undecided else ExitCode.OK

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        document = self.record.model_dump() | {"notes": list(self.notes)}
        if self.baseline is not None:
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
) -> Outcome:
    """Measure the cases ``names`` of a suite (all if none are named), and judge them by ``baseline``.

    Raises `StressError` for whatever keeps it from a verdict: a baseline that does not fit, a launch that broke or had
    a violation, too few samples.
    """
    chosen = suite.only(names) if names else suite
    check(chosen)
    from stress.live import host

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
    started = datetime.now(UTC).isoformat(timespec="seconds")
    start = time.monotonic()
    samples = measure(chosen, launches, progress, note)
    record = Record(
        bench_schema_version=files.SCHEMA_VERSION,
        stress_version=__version__,
        suite_hash=suite.hash,
        started_at=started,
        elapsed_s=round(time.monotonic() - start, 1),
        launches=launches,
        host=here,
        samples={figure: [[float(f"{x:.6g}") for x in launch] for launch in each] for figure, each in samples.items()},
    )
    judged = figures(chosen, record.samples)
    if baseline is None:
        return Outcome(record, notes=tuple(notes))
    if different := sorted(before.keys() ^ record.samples.keys()):
        raise RunBroken(f"only one side has {', '.join(different)}", "what is measured changed; save a new baseline")
    decisions = decide(judged, before, record.samples)
    return Outcome(record, baseline, tuple(decisions), tuple(notes))


def figures(suite: Suite, names: Collection[str]) -> list[Figure]:
    """The figures of a suite's cases, in its sequence; ``names`` are those measured.

    `UsageError` if a kernel case sets the threshold of one that is not.
    """
    found: list[Figure] = []
    for case in suite.cases:
        found += case.figures() if isinstance(case, OrderCase) else case.figures(names)
    return found
