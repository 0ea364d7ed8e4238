"""The suite's file: the one that ships, every error at once with its path, and what its hash stands for."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stress.bench import suite as module
from stress.bench.suite import Figure, Suite, load
from stress.config import ConfigError
from stress.errors import UsageError
from stress.shipped import Kind, find

ORDER_CASE: dict[str, Any] = {
    "name": "clean",
    "thresholds": {"window": 0.1, "clean": 0.2, "throughput": 0.05},
    "run": {"orders": ["clean-first", "block-first"], "vcpus": 1, "block-size": "2M", "duration": "300ms"},
}
KERNEL_CASE: dict[str, Any] = {"name": "kernel", "group": "fault", "rounds": 3, "threshold": 0.1}


def tables(**changes: Any) -> dict[str, Any]:
    """The tables of a good suite, with other top-level keys."""
    good = {"launches": 4, "baseline-launches": 8, "order-case": [ORDER_CASE], "kernel-case": [KERNEL_CASE]}
    return copy.deepcopy(good) | changes


def loaded(monkeypatch: pytest.MonkeyPatch, found: Any) -> Suite:
    """The suite of tables that a file held."""
    monkeypatch.setattr(module, "load_toml", lambda path: found)
    return load(Path("bench.toml"))


def problems(monkeypatch: pytest.MonkeyPatch, found: Any) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as raised:
        loaded(monkeypatch, found)
    return raised.value.problems


def test_the_suite_that_ships_can_decide() -> None:
    suite = load(find(Kind.SUITE, "bench"))
    assert len(suite.order_case) >= 3
    assert {case.group for case in suite.kernel_case} >= {"vcpu", "fault", "unmap"}
    assert suite.baseline_launches >= suite.launches
    names = [figure.name for case in suite.order_case for figure in case.figures()]
    assert len(set(names)) == len(names) > 5


def test_figures_of_a_case(monkeypatch: pytest.MonkeyPatch) -> None:
    (case,) = loaded(monkeypatch, tables()).order_case
    assert list(case.figures()) == [
        Figure("clean: window of block-first", 0.1, False),
        Figure("clean: clean of clean-first", 0.2, False),
        Figure("clean: clean of block-first", 0.2, False),
        Figure("clean: throughput of block-first", 0.05, True),
    ]


def test_figures_of_a_kernel_case_are_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    (case,) = loaded(monkeypatch, tables(**{"kernel-case": [KERNEL_CASE | {"thresholds": {"far": 0.3}}]})).kernel_case
    assert list(case.figures(["kernel: near", "kernel: far", "clean: window of block-first"])) == [
        Figure("kernel: near", 0.1, True),
        Figure("kernel: far", 0.3, True),
    ]
    with pytest.raises(UsageError, match="case kernel has no contest 'far'; use near"):
        list(case.figures(["kernel: near"]))


def test_every_error_at_once_with_its_path(monkeypatch: pytest.MonkeyPatch) -> None:
    bad = tables(launches=1, surplus=3)
    run = {"orders": ["clean-first"], "block_size": "2M", "dwell": "7 parsecs"}
    bad["order-case"] += [{"name": "A b", "thresholds": {"window": 0}, "run": run}]
    bad["order-case"] += [{"name": "solo", "thresholds": {"tlbi-ipa": 0.1, "clean": 0.1}}, 7]
    bad["kernel-case"] = [{"name": "k", "group": "vcpu", "threshold": "much"}]
    found = problems(monkeypatch, bad)
    assert {problem.split(":")[0] for problem in found} == {
        "launches",
        "surplus",
        "order-case[1].name",
        "order-case[1].thresholds.window",
        "order-case[1].run.block_size",
        "order-case[1].run.vcpus",
        "order-case[1].run.dwell",
        "order-case[2].run",
        "order-case[3]",
        "kernel-case[0].threshold",
    }


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"run": {"orders": ["block-first"], "vcpus": 1}}, "order-case[0].run.orders: there is only block-first"),
        ({"run": ORDER_CASE["run"] | {"scenario": "thp"}}, "order-case[0].run.scenario: ratios need the cycles"),
        ({"thresholds": {"tlbi-ipa": 0.1}}, "order-case[0].thresholds.tlbi-ipa: nothing to measure; use window"),
        ({"name": "kernel"}, "name: kernel is the name of two cases"),
    ],
)
def test_what_makes_no_sense_though_it_has_the_right_shape(
    monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], problem: str
) -> None:
    (found,) = problems(monkeypatch, tables(**{"order-case": [ORDER_CASE | change]}))
    assert found.startswith(problem)


def test_a_suite_of_nothing_and_a_group_that_is_no_contest(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "there is no case" in problems(monkeypatch, {"launches": 4, "baseline-launches": 4})[0]
    (found,) = problems(monkeypatch, tables(**{"kernel-case": [KERNEL_CASE | {"group": "startup"}]}))
    assert found == "kernel-case[0].group: unknown group 'startup'; use vcpu, fault, unmap or oracle"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def mutated(draw: st.DrawFn) -> Any:
    """A good suite with one or two values at any depth replaced, or something else altogether."""
    whole: Any = tables()
    for _ in range(draw(st.integers(1, 2))):
        at = whole
        while True:
            keys = list(at) if isinstance(at, dict) else list(range(len(at)))
            key = draw(st.sampled_from(keys)) if keys else "name"
            inner = at[key] if keys else None
            if not isinstance(inner, dict | list) or not inner or draw(st.booleans()):
                break
            at = inner
        if isinstance(at, dict):
            at[key] = draw(VALUES)
    return whole


@settings(max_examples=120)
@given(mutated() | st.dictionaries(st.sampled_from(["order-case", "kernel-case", "launches", "x"]), VALUES))
def test_anything_is_a_suite_or_errors_with_paths(found: Any) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        try:
            loaded(monkeypatch, found)
        except ConfigError as error:
            assert all(": " in problem and problem[0] not in ":. " for problem in error.problems)


def test_the_hash_stands_for_what_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def hashed(**changes: Any) -> str:
        return loaded(monkeypatch, tables(**changes)).hash

    same: list[dict[str, Any]] = [
        {},
        {"launches": 9},
        {"order-case": [ORDER_CASE | {"thresholds": dict.fromkeys(ORDER_CASE["thresholds"], 0.5)}]},
    ]
    other: list[dict[str, Any]] = [
        {"kernel-case": []},
        {"kernel-case": [KERNEL_CASE | {"rounds": 9}]},
        {"order-case": [ORDER_CASE | {"thresholds": {"window": 0.1}}]},
        {"order-case": [ORDER_CASE | {"run": ORDER_CASE["run"] | {"vcpus": 2}}]},
    ]
    assert len({hashed(**changes) for changes in same}) == 1
    assert len({hashed(**changes) for changes in (*same, *other)}) == 1 + len(other)


def test_chosen_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    suite = loaded(monkeypatch, tables())
    assert [case.name for case in suite.only(("kernel",)).cases] == ["kernel"]
    with pytest.raises(UsageError, match="no case 'kernels'; did you mean kernel"):
        suite.only(("kernels",))


def test_files_that_are_no_suite(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="name a readable"):
        load(tmp_path / "none.toml")
    (tmp_path / "text.toml").write_text("launches: 7")
    with pytest.raises(UsageError, match="not TOML"):
        load(tmp_path / "text.toml")
