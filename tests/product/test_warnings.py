"""The warnings of a result: which runs have them, and that each says what to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from synthetic import head_to_head, order_data, run_data

from stress.results.data import RunData
from stress.results.document import build
from stress.results.warnings import RunWarning


def rng() -> np.random.Generator:
    return np.random.default_rng(1)


def names(document: dict[str, Any]) -> list[str]:
    return [warning["name"] for warning in document["warnings"]]


def test_a_good_run_has_no_warnings() -> None:
    assert build(head_to_head(rng()))["warnings"] == []


@pytest.mark.parametrize("rebuilds", [0, 9])
def test_too_few_cycles_are_noisy_and_short(rebuilds: int) -> None:
    document = build(head_to_head(rng(), rebuilds=rebuilds))
    assert names(document) == ["short-run", "noisy"]
    assert f"{rebuilds} cycles, an interval needs 10" in document["warnings"][1]["detail"]


@pytest.mark.parametrize(("scenario", "expected"), [("rebuild", ["short-run"]), ("dirty-log-perf", [])])
def test_no_rebuilds_are_short_only_where_there_should_be_some(scenario: str, expected: list[str]) -> None:
    assert names(build(run_data([order_data(rng(), rebuilds=0)], scenario=scenario))) == expected


def test_an_interval_that_decides_nothing_is_noisy() -> None:
    generator = rng()
    orders = [order_data(generator, rebuilds=30, hit_share=0.1, stalls_per_cycle=0) for _ in range(2)]
    document = build(run_data(orders))
    assert "noisy" in names(document)
    assert "share of rebuilds hit" in document["warnings"][-1]["detail"]  # no key of the document


def test_drops_and_samples_are_warned_about() -> None:
    data = order_data(rng())
    data.rebuilds, data.events_dropped = 1_000_000, 17
    document = build(run_data([data]))
    assert names(document) == ["sampled", "events-dropped"]
    assert document["warnings"][0]["detail"] == "unmap-first: 200 of 1,000,000 rebuilds kept"
    assert document["warnings"][1]["detail"].startswith("unmap-first: 17 fault events dropped")


RUN = {"vcpus": 2, "rebuilder": "hypervisor", "populated": 0.5, "bbm_level": 0, "orders": ["block-first"]}


def unhurried(data: RunData) -> None:
    """A run in which vCPUs did next to nothing while blocks were rebuilt."""
    for order in data.orders:
        order.counters[:, 1], order.rebuilds_hit = 0, 0


@pytest.mark.parametrize(
    ("config", "host", "change", "expected"),
    [
        ({}, {}, None, []),
        ({"vcpus": 8}, {}, None, ["oversubscribed"]),
        ({}, {"membarrier": False, "jit": False}, None, ["no-membarrier", "jit-disabled"]),
        ({}, {"load_1min": 4.5}, None, ["load"]),
        ({}, {}, unhurried, ["not-overlapped"]),
        ({"rebuilder": "vcpu"}, {}, unhurried, []),
        ({}, {}, lambda data: data.orders[0].rows["mapped_share"].fill(1), ["full-tables"]),
        ({"populated": 1}, {}, lambda data: data.orders[0].rows["mapped_share"].fill(1), []),
        ({}, {}, lambda data: setattr(data.orders[0], "cycle_count", 203), ["not-rebuilt"]),
        ({"orders": ["bbml2", "block-first", "nt"]}, {}, None, ["bbm-level", "bbm-level"]),
    ],
)
def test_what_a_run_says_of_itself_warns(
    config: dict[str, Any], host: dict[str, Any], change: Callable[[RunData], None] | None, expected: list[str]
) -> None:
    data = run_data([order_data(rng())], config=RUN | config)
    data.host = {"cores": 8, "load_1min": 4, "membarrier": True, "jit": True} | host
    data.orders[0].rows["mapped_share"] = 0.5
    if change is not None:
        change(data)
    assert names(build(data)) == expected


def test_the_executors_own_warning_is_not_repeated() -> None:
    data = head_to_head(rng(), rebuilds=5)
    data.warnings = [("short-run", "mine"), ("oversubscribed", "")]
    document = build(data)
    assert names(document) == ["short-run", "oversubscribed", "noisy"]
    assert document["warnings"][0]["detail"] == "mine"
    assert document["warnings"][1]["detail"] == RunWarning.OVERSUBSCRIBED.description


def test_warnings_are_a_closed_set_with_remedies() -> None:
    for warning in RunWarning:
        assert warning.description
        assert warning.remedy
        assert RunWarning(warning.value) is warning
    with pytest.raises(ValueError, match="lukewarm"):
        build(run_data([], warnings=[("lukewarm", "")]))
