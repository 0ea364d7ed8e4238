"""What a search found, as a document."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from stress import __version__
from stress.results.searched import KEY, VERSION
from stress.search.classes import Steps, names_of, written
from stress.search.front import front_of
from stress.search.hunt import Found, Witness
from stress.search.verdicts import PROVED, REFUTED, UNDECIDED


@dataclass(slots=True)
class Costs:
    """What the proved orders cost on a platform."""

    platform: str
    config: dict[str, Any]  # of the prediction
    predicted: dict[Steps, dict[str, Any]]  # `stress.predict.Brief` of each
    confirmation: dict[str, Any] | None = None  # document of a live run of the front


def document(found: Found, batch: int, costs: Costs | None = None) -> dict[str, Any]:
    """The results of a search as JSON has them, for rebuilds of ``batch`` blocks; proofs may have had fewer."""
    predicted = costs.predicted if costs else {}
    front = front_of(predicted)
    constraints = [witness.constraint for witness in found.witnesses]

    def about(steps: Steps) -> dict[str, Any]:
        return {
            "steps": [*written(steps)],
            "named": names_of(steps, found.limits["fwb"]),
            "orders": found.classes[steps],
        }

    return {
        KEY: VERSION,
        "stress_version": __version__,
        "complete": found.complete,
        "vocabulary": [*found.vocabulary],
        "batch": batch,
        "bounds": dict(found.limits),
        "enumerated": sum(found.classes.values()),
        "classes": len(found.classes),
        "schedules": found.played,
        "verdicts_recalled": found.recalled,
        "elapsed_ns": found.elapsed_ns,
        "correct": [
            {
                **about(steps),
                "schedules": found.verdicts[steps].schedules,
                "predicted": predicted.get(steps),
                "on_front": steps in front,
            }
            for steps in found.judged(PROVED)
        ],
        "refuted": [
            {
                **about(steps),
                "kinds": [*found.verdicts[steps].kinds],
                "constraints": [each.text for each in constraints if each.refutes(steps)],
                "begins_like": [*written(found.beginnings[steps])] if steps in found.beginnings else None,
                "counterexample": found.verdicts[steps].counterexample,
            }
            for steps in found.judged(REFUTED)
        ],
        "undecided": [{**about(steps), "why": found.verdicts[steps].why} for steps in found.judged(UNDECIDED)],
        "constraints": [_constraint(witness) for witness in found.witnesses],
        "platform": costs.platform if costs else None,
        "front": [{**about(steps), **predicted[steps]} for steps in front],
        "config": costs.config if costs else None,
        "confirmation": costs.confirmation if costs else None,
    }


def _constraint(witness: Witness) -> dict[str, Any]:
    return {
        "text": witness.constraint.text,
        "pattern": [
            {"first": literal.first, "second": literal.second, "there": literal.there}
            for literal in witness.constraint.pattern
        ],
        "refutes": witness.refuted,
        "steps": [*written(witness.steps)],
        "breaks_no_other": witness.alone,
        "kinds": [*witness.verdict.kinds],
        "counterexample": witness.verdict.counterexample,
    }
