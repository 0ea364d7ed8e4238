"""Typed results: documents come in and out unharmed."""

from __future__ import annotations

import copy
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic import dirty_log_perf, head_to_head, migration, order_data, run_data, version_1, version_3

from stress.errors import UsageError
from stress.orders import CLEAN_FIRST_UNLOCKED
from stress.results import store
from stress.results.data import FAULT_CLASSES, Violation
from stress.results.document import build
from stress.results.result import Result


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return build(head_to_head(np.random.default_rng(1)))


def test_values_are_those_of_the_document(document: dict[str, Any]) -> None:
    result = Result.of(document)
    first, second = document["orders"]
    assert list(result.orders) == ["unmap-first", "block-first"]
    assert result.order is result.orders["unmap-first"]
    assert result.orders["block-first"].window_ns.p50 == second["window_ns"]["p50"]
    assert result.order.step_ns["unmap"].mean == first["step_ns"]["unmap"]["mean"]
    assert result.order.stall_by_class_ns.window.p99 == first["stall_by_class_ns"]["window"]["p99"]
    assert result.order.faults.total == sum(first["faults"][name] for name in FAULT_CLASSES) > 0
    ratio = document["comparison"][0]["ratios"]["window"]
    found = result.comparison[0].ratios["window"]
    assert (found.ratio, found.low, found.high) == (ratio["ratio"], ratio["low"], ratio["high"])
    assert result.document == document
    assert result.life_cycle is None
    assert repr(result).startswith("<Result correct: unmap-first, block-first, 400 rebuilds in ")


def test_a_result_does_not_change(document: dict[str, Any]) -> None:
    result = Result.of(document)
    with pytest.raises(ValueError, match="frozen"):
        result.seed = 2
    result.document["orders"].clear()
    assert result.document == document


def test_scenarios_with_stages_and_a_life_cycle() -> None:
    rng = np.random.default_rng(2)
    stages = Result.of(build(dirty_log_perf(rng))).stages
    assert [stage.name for stage in stages][:3] == ["populate", "enable", "dirty"]
    assert stages[2].faults_by_level.permission[2] == 2048
    life_cycle = Result.of(build(migration(rng))).life_cycle
    assert life_cycle is not None
    assert life_cycle.migrations_completed == 6


def test_a_step_that_became_two(tmp_path: Path) -> None:
    """Version 4 had one step that gave mmu_lock back and tore down; its time was the tear-down's."""
    document = build(run_data([order_data(np.random.default_rng(1), CLEAN_FIRST_UNLOCKED)]))
    document["schema_version"] = 4
    [order] = document["orders"]
    order["steps"][-2:] = ["unmap-unlocked"]
    times = order["step_ns"].pop("unmap")
    order["step_ns"]["unmap-unlocked"] = times
    del order["step_ns"]["unlock"], order["restarts"]
    path = tmp_path / "old.json"
    path.write_text(json.dumps(document))
    result = Result.load(path)
    assert result.order.steps == CLEAN_FIRST_UNLOCKED.steps
    assert result.order.step_ns["unmap"].p50 == times["p50"]
    assert (result.order.step_ns["unlock"].p50, result.order.restarts) == (0, 0)


def test_an_older_document_with_violations(document: dict[str, Any], tmp_path: Path) -> None:
    """Which of them a rule told came with version 4."""
    violations = [{"kind": "bbm", "count": 3, "by_rule": 2, "evidence": []}]
    path = tmp_path / "old.json"
    path.write_text(json.dumps(version_3(document | {"violations": violations, "verdict": "violations"})))
    assert [(each.count, each.by_rule) for each in Result.load(path).violations] == [(3, None)]


def test_an_older_document(document: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    path.write_text(json.dumps(version_1(document)))
    result = Result.load(path)
    assert (result.schema_version, result.scenario, result.order.mappings) == (1, "rebuild", None)


def test_saved_and_loaded(document: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    Result.of(document).save(path)
    assert store.read(path) == document
    assert Result.load(path).document == document


@pytest.mark.parametrize(
    ("spoil", "where"),
    [
        (lambda each: each["orders"][0].pop("window_ns"), r"orders\[\]\.window_ns is missing"),
        (lambda each: each["orders"][1].pop("order"), r"orders\[\]\.order is missing"),
        (lambda each: each["orders"].append(3), r"orders\[\]\.order is missing"),
        (lambda each: each["orders"][1].pop("cycles"), r"orders\[\]\.cycles is missing"),
        (lambda each: each["orders"][1].update(mappings=None), r"orders\[\]\.mappings is missing"),
        (lambda each: each["comparison"][0]["ratios"].pop("window"), r"comparison\[\]\.ratios\.window is missing"),
        (lambda each: each.update(verdict="perfect"), "verdict is missing"),
        (lambda each: each.update(orders="none"), "orders is missing"),
    ],
)
def test_a_damaged_document_is_one_clear_error(
    document: dict[str, Any], tmp_path: Path, spoil: Any, where: str
) -> None:
    damaged = copy.deepcopy(document)
    spoil(damaged)
    path = tmp_path / "damaged.json"
    path.write_text(json.dumps(damaged))
    with pytest.raises(UsageError, match=rf"cannot read .*damaged\.json: .*{where}"):
        Result.load(path)


def test_records_are_flat_and_alike(document: dict[str, Any]) -> None:
    first, second = Result.of(document).to_records()
    assert first.keys() == second.keys()
    assert not any(isinstance(value, dict | list) for value in first.values())
    assert second["order"] == "block-first"
    assert second["window_ns.p50"] == document["orders"][1]["window_ns"]["p50"]
    assert second["config.vcpus"] == 2
    assert second["seed"] == 42


def test_tables(document: dict[str, Any]) -> None:
    result = Result.of(document)
    assert "ratio [95% interval]" in str(result)
    assert result.table("github").count("|") > 20
    with pytest.raises(UsageError, match="unknown table format"):
        result.table("crayon")


class Tags(HTMLParser):
    """The tags of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.found.add(tag)


def test_html_is_tables_and_escaped_text(document: dict[str, Any]) -> None:
    tags = {"table", "thead", "tbody", "tr", "th", "td", "pre"}
    assert Tags(Result.of(document)._repr_html_()).found == tags
    hostile = "<script>alert(1)</script>\n\n<table>\n<img>"
    spoiled = build(run_data([], violations=[Violation(hostile, 1, [{hostile: hostile}])], scenario="migration"))
    spoiled |= {"orders": copy.deepcopy(document["orders"]), "failure": {hostile: hostile}}
    spoiled["warnings"] = [{"name": hostile, "detail": hostile, "remedy": hostile}]
    for order in spoiled["orders"]:
        order["order"] = hostile + order["order"]
        order["steps"], order["step_ns"] = [hostile], {hostile: order["step_ns"]["unmap"]}
    found = Result.of(spoiled)._repr_html_()
    assert "alert(1)" in found
    assert Tags(found).found <= tags
