"""The section of the page about one run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from stress.report import distributions, over_time
from stress.report.figure import Figure, Lanes, Table
from stress.report.forest import ratios, sentences
from stress.report.stage_plot import stages
from stress.report.step_plot import steps
from stress.results import cells
from stress.results.breakdown import finding
from stress.results.text import counted, pairs
from stress.units import format_bytes, format_duration, format_size

Document = dict[str, Any]

#: Cases shown of each kind of violation; the document has more.
_EVIDENCE: Final = 5


@dataclass(frozen=True, slots=True)
class Section:
    """One file's part of the page."""

    name: str
    what: str
    verdict: str
    facts: list[tuple[str, str]]  # the run at a glance
    findings: list[str]
    violations: list[tuple[str, str, list[str]]] = field(default_factory=list)  # kind, count, evidence
    warnings: list[tuple[str, str, str]] = field(default_factory=list)  # name, detail, remedy
    figures: list[Figure] = field(default_factory=list)
    lanes: list[Lanes] = field(default_factory=list)
    tables: list[tuple[str, Table]] = field(default_factory=list)


def run_section(name: str, document: Document, most_marks: int) -> Section:
    """Everything about one document."""
    orders = document["orders"]
    rebuilt = any(order["rebuilds"] for order in orders)
    figures: list[Figure | None] = [stages(document)]
    if rebuilt or document["scenario"] == "rebuild":
        figures += [ratios(document), distributions.windows(document)]
    figures.append(distributions.stalls(document))
    figures.append(over_time.throughput(document, most_marks))
    if rebuilt:
        figures += [over_time.windows(document, most_marks), steps(document)]
    return Section(
        name=name,
        what=_what(document),
        verdict=document["verdict"],
        facts=_facts(document),
        findings=_findings(document),
        violations=[
            (found["kind"], cells.count(found["count"]), [pairs(each) for each in found["evidence"][:_EVIDENCE]])
            for found in document["violations"]
        ],
        warnings=[(found["name"], found["detail"], found["remedy"]) for found in document["warnings"]],
        figures=[figure for figure in figures if figure is not None],
        tables=[("Orders", _orders(orders)), *configuration(document)],
    )


def _what(document: Document) -> str:
    names = [order["order"] for order in document["orders"]]
    return f"{' against '.join(names) or 'no order'}, scenario {document['scenario']}"


def _facts(document: Document) -> list[tuple[str, str]]:
    orders = document["orders"]
    config = document["config"]
    facts = [
        ("rebuilds", cells.count(sum(order["rebuilds"] for order in orders))),
        ("checked accesses", cells.count(sum(order["accesses"] for order in orders))),
        ("took", cells.time(document["elapsed_ns"])),
        ("vCPUs", str(config.get("vcpus", cells.NONE))),
        ("seed", str(document["seed"])),
        ("started", when(document)),
    ]
    return [*facts, ("injected", str(config["inject"]))] if config.get("inject") else facts


def when(document: Document) -> str:
    """The start of a run for people: ``2026-01-02 03:04:05 UTC``."""
    return str(document["started_at"]).replace("T", " ").replace("+00:00", " UTC").replace("Z", " UTC")


def _findings(document: Document) -> list[str]:
    """The outcome in sentences."""
    found = []
    if document["failure"] is not None:
        found.append(f"The run broke: {pairs(document['failure'])}.")
    if document["verdict"] == "nothing-tested":
        found.append(f"Nothing was tested: {'; '.join(document['untested'])}.")
    for each in document.get("comparison", ()):
        found += sentences(each)
    if document["orders"] and (sentence := finding(document["orders"])):
        found.append(sentence)
    return found


def _orders(orders: list[dict[str, Any]]) -> Table:
    headers = (
        *("order", "steps", "rebuilds", "hit", "window faults/rebuild"),
        *("accesses/s", "in rebuilds", "TLBIs", "cleaned", "tables freed"),
    )
    rows = [
        (
            order["order"],
            " ".join(order["steps"]),
            cells.count(order["rebuilds"]),
            cells.share(order["rebuilds_hit_share"]),
            cells.factor(order["window_faults_per_rebuild"]),
            cells.scaled(order["accesses_per_s"]),
            cells.scaled(order["accesses_per_s_inside"]),
            cells.count(order["tlbis"]),
            format_bytes(order["cleaned_bytes"]),
            cells.count(order["tables"]["freed"]),
        )
        for order in orders
    ]
    return Table(headers, rows)


def configuration(document: Document, leave_out: frozenset[str] = frozenset()) -> list[tuple[str, Table]]:
    """Tables of the configuration, and of the host with the memory and start-up time that the run took there."""
    config = [("config hash", document["config_hash"])]
    config += [(key, shown(key, value)) for key, value in document["config"].items() if key not in leave_out]
    host = [(key, shown(key, value)) for key, value in document["host"].items()]
    host.append(("started up in", cells.time(document["start_up_ns"])))
    host += [(f"memory, {key}", shown("bytes", value)) for key, value in document["memory"].items()]
    host.append(("stress", f"{document['stress_version']}, result schema {document['schema_version']}"))
    return [
        ("Configuration", Table(("key", "value"), config)),
        ("Host", Table(("key", "value"), list(dict(host).items()))),
    ]


def shown(key: str, value: Any) -> str:
    """A value of a free-form table, with the unit that its key names."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {shown(key if key == 'bytes' else name, each)}" for name, each in value.items())
    if isinstance(value, list):
        return ", ".join(shown(key, each) for each in value)
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and key.endswith("_ns"):
        return format_duration(value)
    if isinstance(value, int) and key.endswith("bytes"):
        return format_size(value) if value and value % 1024 == 0 and key != "bytes" else format_bytes(value)
    return str(value)


def overview(sections: list[Section]) -> Table:
    """One row per file."""
    rows = [
        (
            section.name,
            section.what,
            section.verdict,
            *(dict(section.facts).get(key, cells.NONE) for key in ("rebuilds", "checked accesses", "started")),
            counted(len(section.warnings), "warning") if section.warnings else cells.NONE,
        )
        for section in sections
    ]
    return Table(("file", "what", "verdict", "rebuilds", "checked accesses", "started", "warnings"), rows)
