"""What ``stress bench`` prints: the verdict, one table, a line per regression."""

from __future__ import annotations

from stress.bench.decision import Decision, Estimate, Verdict, estimate
from stress.bench.gate import Outcome
from stress.results import cells
from stress.results.text import counted, joined, table, wrapped

_LEGEND = (
    "Ratios are measured within one run: of an order, over the case's first order; of a step, over the rest of its "
    "rebuild; of a kernel, its rate over that of the C reference."
)


def text(outcome: Outcome, fmt: str) -> str:
    """The whole outcome, the table in a format of tabulate."""
    judged = outcome.baseline is not None and outcome.failure is None
    return joined(
        _headline(outcome),
        _compared(outcome, fmt) if judged else _measured(outcome, fmt),
        "\n".join(wrapped(sentence(each)) for each in (*outcome.regressions, *outcome.undecided)),
        wrapped(_legend(outcome)),
        "\n".join(wrapped(f"note: {note}") for note in outcome.notes),
        "" if judged else wrapped(_nothing_compared(outcome)),
    )


def _nothing_compared(outcome: Outcome) -> str:
    if outcome.failure is not None:
        return f"Nothing was compared, because launches are missing: {outcome.failure.message}."
    return "Nothing was compared. To keep this as a baseline: stress bench --save-baseline FILE"


def sentence(decision: Decision) -> str:
    """One figure that is no pass, in one line."""
    figure = decision.figure
    change = f"{cells.factor(decision.baseline)} -> {cells.factor(decision.now)}"
    found = (
        f"{figure.name}: {change}, worse by {100 * decision.worse_by:.1f}% "
        f"(limit {100 * figure.threshold:.0f}%, p {_p(decision.p)})"
    )
    if decision.verdict is Verdict.REGRESSION:
        return f"REGRESSION {found}"
    return f"UNDECIDED {found}: the launches scatter too much; repeat with more --launches, or on a quieter machine"


def _headline(outcome: Outcome) -> str:
    record, baseline = outcome.record, outcome.baseline
    measured = f"{counted(len(record.samples), 'figure')}, {counted(record.launches, 'launch', 'launches')}"
    took = f"{record.elapsed_s:.0f} s"
    if outcome.failure is not None:
        return wrapped(f"INCOMPLETE: {outcome.done} of {counted(outcome.total, 'launch', 'launches')} done ({took})")
    if baseline is None:
        return wrapped(f"MEASURED: {measured} ({took})")
    if outcome.regressions:
        verdict = f"REGRESSION: {len(outcome.regressions)} of {measured}"
    elif outcome.undecided:
        verdict = f"UNDECIDED: {len(outcome.undecided)} of {measured}"
    else:
        verdict = f"NO REGRESSION: {measured}"
    return wrapped(f"{verdict} against {baseline.launches} of {baseline.started_at} ({took})")


def _legend(outcome: Outcome) -> str:
    if outcome.baseline is None or outcome.failure is not None:
        return f"{_LEGEND} Intervals (95%) come from resampling launches, and cycles within them."
    return (
        f"{_LEGEND} Changes are of the ratio; intervals (95%) come from resampling launches, and cycles within them. "
        "p: Mann-Whitney U over launches, corrected for the number of figures. A regression is significant (p at most "
        "0.05) and beyond the figure's threshold."
    )


def _measured(outcome: Outcome, fmt: str) -> str:
    rows = []
    for figure, samples in outcome.record.samples.items():
        found = estimate(samples)
        rows.append([figure, cells.factor(found.value), f"{cells.factor(found.low)} to {cells.factor(found.high)}"])
    return table(["figure", "ratio", "95% interval"], rows, fmt)


def _compared(outcome: Outcome, fmt: str) -> str:
    head = ["figure", "baseline", "now", "change", "95% interval", "limit", "p", "verdict"]
    return table(head, [_row(each) for each in outcome.decisions], fmt)


def _row(decision: Decision) -> list[str]:
    change = decision.change
    sign = "-" if decision.figure.higher_is_better else "+"
    return [
        decision.figure.name,
        cells.factor(decision.baseline),
        cells.factor(decision.now),
        _percent(change.value),
        _interval(change),
        f"{sign}{100 * decision.figure.threshold:.0f}%",
        _p(decision.p),
        str(decision.verdict),
    ]


def _percent(factor: float) -> str:
    return f"{100 * (factor - 1):+.1f}%"


def _interval(change: Estimate) -> str:
    return f"{_percent(change.low)} to {_percent(change.high)}"


def _p(p: float) -> str:
    return "<0.001" if p < 0.001 else f"{p:.3f}"
