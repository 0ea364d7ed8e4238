"""The text that shows a sweep: how its trials ended, its main figures by point, and what went wrong where."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Final

from stress.results import cells
from stress.results.pivot import pivot, pivot_tables
from stress.results.rows import Row, rows_of_trials
from stress.results.text import counted, joined, wrapped
from stress.results.trials import TrialResult

_TROUBLES_SHOWN: Final = 10
#: Keys of a document's host that times depend on.
_MACHINE: Final = {"cpu_model": "{}", "cores": "{} cores", "kernel": "Linux {}"}
_ORDERS: Final = ("order", "orders")


def sweep_table(trials: Sequence[TrialResult], swept: Sequence[str], total: int, fmt: str = "simple") -> str:
    """The whole of one sweep."""
    rows = rows_of_trials(trial for trial in trials if trial.done)
    tables = pivot_tables(pivot(rows, *default_keys(rows, swept)), fmt) if rows else ""
    return joined(_verdict(trials, total), tables, _troubles(trials), _warnings(trials), _machines(trials))


def default_keys(rows: Sequence[Row], swept: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The keys of rows and of columns: the swept keys, and the order across if there are several."""
    keys = apart(rows, tuple(key for key in swept if key not in _ORDERS))
    several = len({row.keys["order"] for row in rows}) > 1
    if not keys:
        return ("order",), ()
    return keys, ("order",) if several else ()


def apart(rows: Sequence[Row], keys: tuple[str, ...]) -> tuple[str, ...]:
    """The keys, and the executor if there are several: measured and predicted figures are never mixed."""
    several = len({row.keys["executor"] for row in rows}) > 1
    return (*keys, "executor") if several and "executor" not in keys else keys


def _verdict(trials: Sequence[TrialResult], total: int) -> str:
    ended = Counter(trial.verdict for trial in trials)
    words = ", ".join(f"{count} {verdict}" for verdict, count in sorted(ended.items()))
    done = sum(trial.done for trial in trials)
    word = "VIOLATIONS" if ended["violations"] else "CORRECT" if done == total else "INCOMPLETE"
    if word == "CORRECT" and not ended["correct"]:
        word = "PREDICTED, checked by nobody"
    return wrapped(f"{word}: {done} of {counted(total, 'run')} done{f' ({words})' if words else ''}")


def _troubles(trials: Sequence[TrialResult]) -> str:
    bad = [trial for trial in trials if trial.verdict not in ("correct", "predicted")]
    if not bad:
        return ""
    lines = ["What went wrong"]
    lines += [wrapped(f"{name(trial)}: {reason(trial)}", "  ") for trial in bad[:_TROUBLES_SHOWN]]
    if len(bad) > _TROUBLES_SHOWN:
        lines.append(f"  and {len(bad) - _TROUBLES_SHOWN} more")
    return "\n".join(lines)


def warned(documents: Iterable[dict[str, Any]]) -> list[tuple[dict[str, str], int]]:
    """The first warning of each kind, with the number of runs that have one."""
    found = [each for document in documents for each in document["warnings"]]
    runs = Counter(each["name"] for each in found)
    first = {each["name"]: each for each in reversed(found)}
    return [(first[name], count) for name, count in runs.items()]


def _warnings(trials: Sequence[TrialResult]) -> str:
    found = warned(trial.document for trial in trials if trial.document)
    lines = [f"{first['name']} in {counted(count, 'run')}: {first['remedy']}" for first, count in found]
    return "\n".join(["Warnings", *(wrapped(line, "  ") for line in lines)]) if lines else ""


def _machines(trials: Sequence[TrialResult]) -> str:
    """A sentence on runs of different machines, and what that means for their figures; "" if there is one machine."""
    hosts = [trial.document["host"] for trial in trials if trial.document and trial.verdict != "predicted"]
    kinds = Counter(
        ", ".join(words.format(host[key]) for key, words in _MACHINE.items() if key in host) for host in hosts
    )
    if len(kinds) < 2:
        return ""
    found = "; ".join(f"{counted(count, 'run')} on {kind}" for kind, count in kinds.items())
    return wrapped(f"Not all of one machine: {found}. Times are each machine's own; ratios within a run carry over.")


def name(trial: TrialResult) -> str:
    """A trial in words: its point, and which repeat."""
    values = ", ".join(f"{key}={_text(value)}" for key, value in trial.values.items())
    return f"{values} (run {trial.repeat + 1})".strip()


def _text(value: object) -> str:
    if isinstance(value, list):
        return " against ".join(map(str, value))
    return ("on" if value else "off") if isinstance(value, bool) else str(value)


def reason(trial: TrialResult) -> str:
    """Why a trial is not correct, in one line; its main figure if it is."""
    document = trial.document
    if document is None:
        return str((trial.error or {}).get("message", "no result"))
    if document["violations"]:
        return ", ".join(f"{each['kind']} {cells.count(each['count'])}" for each in document["violations"])
    if document["failure"]:
        return ", ".join(
            str(document["failure"][key]) for key in ("process", "what", "how") if key in document["failure"]
        )
    if document["verdict"] == "nothing-tested":
        return "; ".join(document["untested"])
    windows = ", ".join(cells.time(order["window_ns"]["p50"]) for order in document["orders"])
    return f"window {windows}" if document["complete"] else "interrupted"
