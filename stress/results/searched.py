"""The document of a `stress search`, read back and shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from stress.errors import UsageError
from stress.orders import CLEANS
from stress.results import cells, store
from stress.results.tables import compare_table
from stress.results.text import counted, table, wrapped
from stress.units import format_ns

#: The document's first key, by which it is known, and its value.
KEY: Final = "search_version"
VERSION: Final = 1

#: Figures that an order is judged by, less being better: fields of `stress.predict.Brief`, with their headings.
FIGURES: Final = {
    "window_ns": "window",
    "worst_stall_ns": "worst stall",
    "lock_hold_ns": "mmu_lock held",
    "rebuild_ns": "rebuild",
}


class _Program(BaseModel):
    steps: tuple[str, ...]
    named: tuple[str, ...]
    orders: int


class _Correct(_Program):
    schedules: int
    predicted: Mapping[str, float] | None
    on_front: bool


class _Refuted(_Program):
    kinds: tuple[str, ...]
    constraints: tuple[str, ...]


class _Undecided(_Program):
    why: str


class _Constraint(BaseModel):
    text: str
    refutes: int
    steps: tuple[str, ...]
    breaks_no_other: bool
    kinds: tuple[str, ...]


class _Bounds(BaseModel):
    fwb: bool
    guest_caches: bool
    bbm_level: int
    vcpus: int
    accesses: int
    batch: int = 1  # searches knew no batches at first


class _Found(BaseModel):
    """The keys that readers rely on; the document has more."""

    complete: bool
    vocabulary: tuple[str, ...]
    bounds: _Bounds
    enumerated: int
    classes: int
    schedules: int
    verdicts_recalled: int
    elapsed_ns: int
    correct: tuple[_Correct, ...]
    refuted: tuple[_Refuted, ...]
    undecided: tuple[_Undecided, ...]
    constraints: tuple[_Constraint, ...]
    platform: str | None
    front: tuple[_Program, ...]
    confirmation: Mapping[str, Any] | None


def is_search(document: Any) -> bool:
    """Whether a JSON value claims to be the document of a search."""
    return isinstance(document, dict) and KEY in document


def checked(document: dict[str, Any], path: Path) -> dict[str, Any]:
    """The document; `UsageError` if it is of another version, or not whole."""
    if document[KEY] != VERSION:
        what = f"{path} has search version {str(document[KEY])[:20]}, this stress reads version {VERSION}"
        raise UsageError(what, "search again with --output")
    try:
        found = _Found.model_validate(document)
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        message = f"cannot read {path}: it is no whole search, {where} is missing or wrong"
        raise UsageError(message, "search again with --output") from None
    bounds = {**document["bounds"], **found.bounds.model_dump()}
    ran = document["confirmation"]
    return {**document, "bounds": bounds, "confirmation": ran and store.checked(ran, str(path), store.AGAIN)}


def counts(document: dict[str, Any]) -> str:
    """The numbers of orders, and of those proved, refuted and undecided, in words."""
    undecided = document["undecided"]
    idle = document["bounds"]["fwb"] and any(step in CLEANS for step in document["vocabulary"])
    return (
        f"{counted(document['enumerated'], 'order')}, {counted(document['classes'], 'program')}"
        f"{' (a clean does nothing with FWB, and is left out)' if idle else ''}: {len(document['correct'])} proved, "
        f"{len(document['refuted'])} refuted{f', {len(undecided)} undecided' if undecided else ''}"
    )


def within(document: dict[str, Any]) -> str:
    """The machines on which the orders were proved, in a sentence."""
    bounds = document["bounds"]
    vcpus, accesses = bounds["vcpus"], counted(bounds["accesses"], "access", "accesses")
    machine = f"{counted(vcpus, 'vCPU')} with {accesses}{' each' if vcpus > 1 else ''}"
    batch = f", {bounds['batch']} blocks rebuilt together" if bounds["batch"] > 1 else ""
    return (
        f"Proved on a machine of {machine}{', and on one of 2 vCPUs with 1 access each' if vcpus == 1 else ''} "
        f"({'FWB' if bounds['fwb'] else 'no FWB'}, guest caches {'on' if bounds['guest_caches'] else 'off'}, FEAT_BBM "
        f"level {bounds['bbm_level']}{batch}); an order with steps before lock also with vCPUs that rebuild."
    )


def constraint_rows(document: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """A row per constraint: its words, the number of programs it refutes, and its counterexample."""
    return [
        (
            each["text"],
            str(each["refutes"]),
            ", ".join(each["kinds"]),
            ",".join(each["steps"]) + ("" if each["breaks_no_other"] else " (which breaks others, too)"),
        )
        for each in document["constraints"]
    ]


CONSTRAINT_HEADERS: Final = ("a right order has", "refuted by it", "else", "as in")


def proved_rows(document: dict[str, Any]) -> tuple[tuple[str, ...], Sequence[tuple[str, ...]]]:
    """Headers and rows of the proved programs; if costs were predicted with these, and the front first."""
    plain = [(each, (",".join(each["steps"]), ", ".join(each["named"]))) for each in document["correct"]]
    if not document["front"]:
        return ("proved", "is", "schedules"), [(*words, str(each["schedules"])) for each, words in plain]
    rows = [
        (
            "*" if each["on_front"] else "",
            *(cells.time((each["predicted"] or {}).get(name)) for name in FIGURES),
            *words,
        )
        for each, words in sorted(plain, key=lambda pair: not pair[0]["on_front"])
    ]
    return ("front", *FIGURES.values(), "proved", "is"), rows


def search_table(document: dict[str, Any], fmt: str = "simple") -> str:
    """A document as its command shows it."""
    recalled = document["verdicts_recalled"]
    known = f", {counted(recalled, 'verdict')} known from before" if recalled else ""
    effort = f"; {document['schedules']} schedules, {format_ns(document['elapsed_ns'])}{known}"
    parts = [counts(document) + effort + ("" if document["complete"] else "; interrupted: run it again to go on")]
    if document["constraints"]:
        parts.append(table(CONSTRAINT_HEADERS, constraint_rows(document), fmt))
    if document["correct"]:
        parts.append(wrapped(within(document)))
    if document["front"]:
        parts.append(f"Predicted for {document['platform']}; * marks what no other order beats in everything.")
    if document["correct"]:
        parts.append(table(*proved_rows(document), fmt))
    if document["undecided"]:
        undecided = [(",".join(each["steps"]), each["why"]) for each in document["undecided"]]
        parts.append(table(("undecided", "why"), undecided, fmt))
    if document["confirmation"]:
        parts.append(compare_table(document["confirmation"], fmt))
    return "\n\n".join(parts)
