"""What a calibration found, for people."""

from __future__ import annotations

from stress.calibrate.calibration import Calibration, Cost
from stress.calibrate.predicted_stages import NEVER_SEEN
from stress.platforms import as_written, profile_key
from stress.results.text import joined, wrapped
from stress.units import format_ns

_POOR = 0.1


def report(found: Calibration, fmt: str) -> str:
    """Tables of the costs and of the stages they explain."""
    from stress.results.text import table

    known = [cost for cost in found.costs if cost.known]
    unknown = [cost for cost in found.costs if not cost.known and cost.field not in NEVER_SEEN]
    stages = [
        (log, stage, format_ns(ns), format_ns(fitted), f"{fitted / ns - 1:+.1%}")
        for log, stage, ns, fitted in found.stages
    ]
    costs = [(profile_key(cost.field), as_written(cost.field, cost.value), _interval(cost)) for cost in known]
    return joined(
        wrapped(
            f"{len(known)} costs fitted, {len(unknown)} not identifiable from these logs, which scatter by "
            f"{found.scatter:.1%} around what the costs give."
        ),
        "\n".join(("Fitted", table(("cost", "is", "95% interval"), costs, fmt))) if costs else "",
        "Not identifiable, with the figures of the platform to start from as far as they fit\n"
        + "\n".join(
            wrapped(f"{profile_key(cost.field)} ({as_written(cost.field, cost.value)}): {cost.why}", "  ")
            for cost in unknown
        )
        if unknown
        else "",
        "Never seen in a stage of these tests\n"
        + "\n".join(wrapped(f"{profile_key(name)}: {why}", "  ") for name, why in NEVER_SEEN.items()),
        "\n".join(("Stages", table(("log", "stage", "measured", "fitted", "error"), stages, fmt))),
        wrapped(
            "The model explains these logs badly: options that they do not say may be wrong (--order, --fwb, "
            "--locking, --cmo), or the machine was busy."
        )
        if found.scatter > _POOR
        else "",
    )


def _interval(cost: Cost) -> str:
    return " to ".join(as_written(cost.field, end) for end in cost.interval)
