"""What a search found, as a document and as tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from stress import __version__
from stress.orders import CLEANS
from stress.results import cells
from stress.search.classes import Steps, names_of, written
from stress.search.front import FIGURES, front_of
from stress.search.hunt import Found, Witness
from stress.search.verdicts import PROVED, REFUTED, UNDECIDED
from stress.units import format_ns

#: Of the document; a reader knows it by this key.
FORMAT: Final = 1
KEY: Final = "search_version"


@dataclass(slots=True)
class Costs:
    """What the proved orders cost on a platform."""

    platform: str
    config: dict[str, Any]  # of the prediction
    predicted: dict[Steps, dict[str, Any]]  # `stress.predict.Brief` of each
    confirmation: dict[str, Any] | None = None  # document of a live run of the front


#: Makes a table of headers and rows.
Table = Callable[[Sequence[str], Sequence[Sequence[str]]], str]


def document(found: Found, costs: Costs | None = None) -> dict[str, Any]:
    """All of it, as JSON has it."""
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
        KEY: FORMAT,
        "stress_version": __version__,
        "complete": found.complete,
        "vocabulary": [*found.vocabulary],
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


def text(document: dict[str, Any], table: Table) -> str:
    """A document as a person reads it."""
    undecided = document["undecided"]
    idle = document["bounds"]["fwb"] and any(step in CLEANS for step in document["vocabulary"])
    same = " (a clean does nothing with FWB, and is left out)" if idle else ""
    recalled = f", {document['verdicts_recalled']} verdicts known from before" if document["verdicts_recalled"] else ""
    counts = (
        f"{document['enumerated']} orders, {document['classes']} programs{same}: {len(document['correct'])} proved, "
        f"{len(document['refuted'])} refuted{f', {len(undecided)} undecided' if undecided else ''}"
        f"; {document['schedules']} schedules, {format_ns(document['elapsed_ns'])}{recalled}"
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
        parts.append(_proved(document, table))
    if undecided:
        parts.append(table(("undecided", "why"), [(",".join(each["steps"]), each["why"]) for each in undecided]))
    return "\n\n".join(parts)


def _proved(document: dict[str, Any], table: Table) -> str:
    """The proved programs; what they cost, those on the front first, if that was predicted."""
    plain = [(",".join(each["steps"]), ", ".join(each["named"])) for each in document["correct"]]
    if not document["front"]:
        counted = [(*words, str(each["schedules"])) for words, each in zip(plain, document["correct"], strict=True)]
        return table(("proved", "is", "schedules"), counted)
    both = sorted(zip(document["correct"], plain, strict=True), key=lambda each: not each[0]["on_front"])
    rows = [
        ("*" if each["on_front"] else "", *(cells.time(each["predicted"][name]) for name in FIGURES), *words)
        for each, words in both
    ]
    headers = ("front", *FIGURES.values(), "proved", "is")
    return f"Predicted for {document['platform']}; * marks what no other order beats in everything.\n\n" + table(
        headers, rows
    )
