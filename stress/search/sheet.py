"""What a search found, as a document and as tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from stress import __version__
from stress.orders import CLEANS
from stress.search.classes import Steps, names_of, written
from stress.search.hunt import Found, Witness
from stress.search.verdicts import PROVED, REFUTED, UNDECIDED
from stress.units import format_ns

#: Of the document; a reader knows it by this key.
FORMAT: Final = 1
KEY: Final = "search_version"

#: Makes a table of headers and rows.
Table = Callable[[Sequence[str], Sequence[Sequence[str]]], str]


def document(found: Found) -> dict[str, Any]:
    """All of it, as JSON has it."""
    constraints = [witness.constraint for witness in found.witnesses]

    def about(steps: Steps) -> dict[str, Any]:
        return {
            "steps": [*written(steps)],
            "named": names_of(steps, found.limits["fwb"]),
            "orders": found.classes[steps],
        }

    return {
        KEY: FORMAT,
        "stress_version": __version__,
        "complete": found.complete,
        "vocabulary": [*found.vocabulary],
        "bounds": dict(found.limits),
        "enumerated": sum(found.classes.values()),
        "classes": len(found.classes),
        "schedules": found.played,
        "elapsed_ns": found.elapsed_ns,
        "correct": [{**about(steps), "schedules": found.verdicts[steps].schedules} for steps in found.judged(PROVED)],
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


def text(document: dict[str, Any], table: Table) -> str:
    """A document as a person reads it."""
    undecided = document["undecided"]
    idle = document["bounds"]["fwb"] and any(step in CLEANS for step in document["vocabulary"])
    same = " (a clean does nothing with FWB, and is left out)" if idle else ""
    counts = (
        f"{document['enumerated']} orders, {document['classes']} programs{same}: {len(document['correct'])} proved, "
        f"{len(document['refuted'])} refuted{f', {len(undecided)} undecided' if undecided else ''}"
        f"; {document['schedules']} schedules, {format_ns(document['elapsed_ns'])}"
    )
    parts = [counts if document["complete"] else f"{counts}; interrupted: run it again to go on"]
    if document["constraints"]:
        rows = [
            (
                each["text"],
                str(each["refutes"]),
                ", ".join(each["kinds"]),
                ",".join(each["steps"]) + ("" if each["breaks_no_other"] else " (which breaks others, too)"),
            )
            for each in document["constraints"]
        ]
        parts.append(table(("a right order has", "refuted by it", "else", "as in"), rows))
    if document["correct"]:
        proved = [
            (",".join(each["steps"]), ", ".join(each["named"]), str(each["schedules"])) for each in document["correct"]
        ]
        parts.append(table(("proved", "is", "schedules"), proved))
    if undecided:
        parts.append(table(("undecided", "why"), [(",".join(each["steps"]), each["why"]) for each in undecided]))
    return "\n\n".join(parts)
