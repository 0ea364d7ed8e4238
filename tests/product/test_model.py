"""Typed results: every registered key has an attribute of its type, and documents come in and out unharmed."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from html.parser import HTMLParser
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

import numpy as np
import pytest
from pydantic import BaseModel
from synthetic import dirty_log_perf, head_to_head, migration, order_data, run_data, version_1

from stress.errors import UsageError
from stress.orders import CLEAN_FIRST_UNLOCKED
from stress.results import store
from stress.results.data import FAULT_CLASSES, Violation
from stress.results.document import build
from stress.results.keys import RESULT_KEYS, ResultKey
from stress.results.model import Document
from stress.results.result import Result

PARSED = {"integer": int, "number": float, "string": str, "boolean": bool, "object": Mapping}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return build(head_to_head(np.random.default_rng(1)))


def without_none(kind: Any) -> Any:
    if get_origin(kind) in (Union, UnionType):
        (kind,) = (each for each in get_args(kind) if each is not NoneType)
    return kind


def attribute(key: ResultKey) -> tuple[Any, bool]:
    """The type that the attributes give a key, and whether the document may lack it."""
    kind: Any = Document
    lacking = False
    for part in key.path.replace("[]", ".[]").replace("orders.[]", "orders").split("."):
        kind = without_none(kind)
        if part == "[]":
            assert get_origin(kind) is tuple
            kind = get_args(kind)[0]
        elif get_origin(kind) is Mapping:
            kind = get_args(kind)[1]
            if key.path.startswith("orders") and part not in ("<step>", "<class>"):
                field = kind.model_fields[part]
                kind, lacking = field.annotation, lacking or not field.is_required()
        else:
            field = kind.model_fields[part]
            kind, lacking = field.annotation, lacking or not field.is_required()
    return kind, lacking


@pytest.mark.parametrize("key", RESULT_KEYS, ids=lambda key: key.path)
def test_every_key_is_an_attribute_of_its_type(key: ResultKey) -> None:
    kind, lacking = attribute(key)
    assert (NoneType in get_args(kind)) >= key.type.endswith("?")
    plain = without_none(kind)
    if key.path == "verdict":
        assert get_args(plain) == ("correct", "violations", "broken", "interrupted", "nothing-tested")
    else:
        assert (get_origin(plain) or plain) is PARSED[key.type.removesuffix("?")]
    if key.optional:
        assert lacking


def attributes(kind: Any, path: str = "") -> Iterator[str]:
    """Every path that the attributes have."""
    kind = without_none(kind)
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        for name, field in kind.model_fields.items():
            yield from attributes(field.annotation, f"{path}.{name}" if path else name)
    elif get_origin(kind) is tuple:
        yield from attributes(get_args(kind)[0], f"{path}[]")
    elif get_origin(kind) is Mapping and get_args(kind)[1] is not Any:
        step = {"orders": "[]", "orders[].step_ns": ".<step>", "orders[].stall_histogram": ".<class>"}.get(path, ".*")
        yield from attributes(get_args(kind)[1], path + step)
    else:
        yield path


def test_every_attribute_is_a_key() -> None:
    metrics = {key.path.replace(".ratios.window.", ".ratios.*.") for key in RESULT_KEYS}
    assert set(attributes(Document)) - metrics == set()


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
        (lambda each: each["orders"][0].pop("window_ns"), r"orders\.unmap-first\.window_ns: field required"),
        (lambda each: each["orders"][1].pop("order"), "an order has no name"),
        (lambda each: each["orders"].append(3), "an order has no name"),
        (lambda each: each.update(verdict="perfect"), "verdict: "),
        (lambda each: each.update(orders="none"), "orders: "),
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
