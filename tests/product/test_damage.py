"""Damaged results: whatever key is missing, shortened or of another kind, a reader says so or shows a result.

Every path of documents as `build` makes them is damaged in turn. All that shows a result relies on the reader's check.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from synthetic import dirty_log_perf, head_to_head, migration, page_table_test, run_data, version_1, version_3

from stress.cli.main import cli
from stress.cli.show import listed
from stress.errors import UsageError
from stress.orders import BLOCK_FIRST, UNMAP_FIRST
from stress.report.run_section import run_section
from stress.results.data import RunData, Violation
from stress.results.document import build
from stress.results.pivot import pivot, pivot_csv, pivot_tables
from stress.results.result import Result
from stress.results.rows import figures_of, keys_of
from stress.results.stored import stored

Document = dict[str, Any]
Place = tuple[str | int, ...]

VALUES: tuple[Any, ...] = (None, 0, -1, 1 << 70, "x", True, [], {}, [3], float("inf"))


def broken() -> RunData:
    data = run_data(head_to_head(rng(), rebuilds=12).orders, complete=False, exit_code=4)
    data.failure = {"who": "vcpu 1", "state": "holding mmu_lock"}
    data.violations = [Violation("bbm", 3, [{"ipa": 1 << 30}])]
    data.warnings = [("load", "load average 3.0 on 2 cores")]
    return data


def rng() -> np.random.Generator:
    return np.random.default_rng(1)


DOCUMENTS: dict[str, Callable[[], Document]] = {
    "rebuild": lambda: build(broken()),
    "migration": lambda: build(migration(rng())),
    "dirty-log-perf": lambda: build(dirty_log_perf(rng())),
    "kvm-page-table-test": lambda: build(page_table_test(rng(), passes=2, orders=(UNMAP_FIRST, BLOCK_FIRST))),
    "version 3": lambda: version_3(build(page_table_test(rng()))),
    "version 1": lambda: version_1(build(head_to_head(rng(), rebuilds=12))),
}


def places(value: Any, place: Place = ()) -> Iterator[Place]:
    """Every key, and the first and the last element of every list; one of a list of numbers."""
    if place:
        yield place
    inner = list(value) if isinstance(value, dict) else []
    if isinstance(value, list):
        inner = sorted({0, len(value) - 1} if value and isinstance(value[0], dict) else {*range(len(value))} & {0})
    for key in inner:
        yield from places(value[key], (*place, key))


def damaged(document: Document, place: Place) -> Iterator[tuple[str, Document]]:
    """The document with one place of it deleted, shortened, lengthened or replaced."""
    *outer, key = place
    here: Any = document
    for each in outer:
        here = here[each]
    old = here[key]

    def with_value(value: Any) -> Document:
        here[key] = value
        changed = copy.deepcopy(document)
        here[key] = old
        return changed

    for value in VALUES:
        yield f"= {value!r}", with_value(value)
    if isinstance(old, list) and old:
        yield "shorter", with_value(old[:-1])
        yield "longer", with_value([*old, old[0]])
    deleted = copy.deepcopy(document)
    here = deleted
    for each in outer:
        here = here[each]
    del here[key]
    yield "deleted", deleted


def show(path: Path) -> None:
    """All that ``stress show`` can make of a file."""
    found = stored(path)
    found.table("simple")
    rows = found.rows
    listed(rows, "simple")
    figures = figures_of(rows)
    pivot_csv(pivot(rows, ("order",), (), figures))
    pivot_tables(pivot(rows, keys_of(rows), (), figures, "mean"))


def report(path: Path) -> None:
    """A run's section of the page, without the page's own guard."""
    found = stored(path)
    assert found.document
    run_section(found.name, found.document, 20)


def api(path: Path) -> None:
    result = Result.load(path)
    str(result), repr(result), result.to_records()


def fails(act: Callable[[Path], None], path: Path) -> str:
    """What went wrong that is no clear error about the file; empty if nothing did."""
    try:
        act(path)
    except UsageError as error:
        return "" if f"cannot read {path}" in str(error) else str(error)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


@pytest.mark.parametrize("name", DOCUMENTS)
def test_no_damage_is_an_internal_error(name: str, tmp_path: Path) -> None:
    document = DOCUMENTS[name]()
    path = tmp_path / "damaged.json"
    path.write_text(json.dumps(document))
    for act in (show, report, api):
        act(path)
    # Each path in turn has one of the damages, so that all kinds meet all kinds of paths.
    chosen = np.random.default_rng(len(document))
    tried, bad = 0, []
    for place in places(document):
        for what, wrong in damaged(document, place):
            if what not in ("deleted", "shorter") and chosen.random() > 0.05:
                continue
            tried += 1
            path.write_text(json.dumps(wrong))
            for act in (show, report, api):
                if trouble := fails(act, path):
                    bad.append(f"{act.__name__}: {'.'.join(map(str, place))} {what}: {trouble}")
    assert tried > 300
    assert not bad, "\n".join(bad[:20])


def searched() -> Document:
    """A search that found one order, and confirmed it; all that readers need of it."""
    program = {"steps": ["install"], "named": [], "orders": 1}
    return {
        "search_version": 1,
        "complete": True,
        "vocabulary": ["install"],
        "bounds": {"fwb": False, "guest_caches": False, "bbm_level": 2, "vcpus": 1, "accesses": 2, "batch": 1},
        **dict.fromkeys(("enumerated", "classes", "schedules", "verdicts_recalled", "elapsed_ns"), 1),
        "correct": [{**program, "schedules": 1, "predicted": None, "on_front": True}],
        "refuted": [],
        "undecided": [],
        "constraints": [],
        "platform": None,
        "front": [program],
        "confirmation": build(head_to_head(rng(), rebuilds=12)),
    }


@pytest.mark.parametrize("inside", ["bounds", "confirmation"])
def test_what_a_search_holds_of_a_run_is_checked_as_a_run_is(inside: str, tmp_path: Path) -> None:
    path = tmp_path / "damaged.json"
    document = searched()
    path.write_text(json.dumps(document))
    show(path)
    bad = []
    for place in places(document[inside]):
        for what, wrong in damaged(document, (inside, *place)):
            if what in ("deleted", "= []"):
                path.write_text(json.dumps(wrong))
                if trouble := fails(show, path):
                    bad.append(f"{'.'.join(map(str, place))} {what}: {trouble}")
    assert not bad, "\n".join(bad[:20])


def test_a_search_from_before_batches_had_none(tmp_path: Path) -> None:
    path = tmp_path / "older.json"
    document = searched()
    del document["bounds"]["batch"]
    path.write_text(json.dumps(document))
    show(path)


def test_passes_of_which_one_counts_more_are_averaged_over_what_all_count(tmp_path: Path) -> None:
    path = tmp_path / "odd.json"
    document = build(page_table_test(rng(), passes=2))
    document["stages"][0]["mappings"]["later"] = 1
    path.write_text(json.dumps(document))
    show(path)


def test_a_backing_that_there_is_not_is_named(tmp_path: Path) -> None:
    """As in a result of a later version; its selftest's name would be looked up."""
    path = tmp_path / "shmem.json"
    document = build(page_table_test(rng()))
    document["config"]["backing"] = "shmem"
    path.write_text(json.dumps(document))
    with pytest.raises(UsageError, match=r"config\.backing is missing or wrong"):
        CliRunner().invoke(cli, ["show", str(path)], catch_exceptions=False, standalone_mode=False)


@pytest.mark.parametrize(
    ("place", "says"),
    [
        (("stages", 0, "name"), "stages[].name"),
        (("config", "backing"), "config.backing"),
        (("stages", 0, "faults_by_level", "translation", 3), "stages[].faults_by_level.translation[]"),
    ],
)
def test_show_and_report_name_what_is_missing(place: Place, says: str, tmp_path: Path) -> None:
    path = tmp_path / "damaged.json"
    document = build(page_table_test(rng()))
    path.write_text(json.dumps(dict(damaged(document, place))["deleted"]))
    for command in (["show", str(path)], ["report", str(path), "-o", str(tmp_path / "page.html")]):
        with pytest.raises(UsageError) as caught:
            CliRunner().invoke(cli, command, catch_exceptions=False, standalone_mode=False)
        assert f"cannot read {path}: it is no whole result, {says} is missing or wrong" in str(caught.value)
    assert not (tmp_path / "page.html").exists()
