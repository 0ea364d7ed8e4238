"""A verdict needs evidence: each scenario without the one thing it owes, and real runs with nothing at stake."""

from __future__ import annotations

from typing import Any

import pytest
from live import run_json
from machines import small_machine

from stress.config import RunConfig, Scenario, from_sources
from stress.live.stakes import OWED, missing
from stress.shm import accounts
from stress.shm.layout import Machine

SMALL = ("--block-size", "2M", "--blocks", "4")


def ran(config: RunConfig) -> Machine:
    """The segment of a run that tested all there is to test."""
    s = small_machine(vcpus=config.vcpus, orders=len(config.orders))
    s.totals[:, accounts.T_REBUILDS] = 3
    s.counters[:, 0, accounts.C_ACCESSES] = 1000
    s.counters[:, 0, accounts.C_REDONE] = 2
    s.counters[:, 0, accounts.C_MAPPED_PAGES] = 5
    s.life[:] = 1
    return s


def take(s: Machine, what: str) -> None:
    """Make as if one thing had not happened."""
    if what == "rebuild":
        s.totals[-1, accounts.T_REBUILDS] = 0
    elif what == "access":
        s.counters[1] = 0
    elif what == "overlap":
        s.counters[1, :, accounts.C_REDONE] = 0
    elif what == "map":
        s.counters[:, :, accounts.C_MAPPED_PAGES] = 0
    else:
        s.life[accounts.LIFE_CYCLE.index(what)] = 0


SAID = {
    "rebuild": "no rebuild by block-first",
    "access": "vCPU 1 made no access",
    "overlap": "vCPU 1 never ran into a change of the table",
    "map": "no fault mapped memory",
    "harvests": "the dirty bitmap was never harvested",
    "frames_moved": "no frame moved",
}
OWES = {
    "rebuild": {"rebuild", "access", "overlap"},
    "migration": {"rebuild", "access", "overlap", "harvests"},
    "thp": {"access", "overlap", "map", "frames_moved"},
    "kvm-page-table-test": {"rebuild", "access", "map"},
    "dirty-log-perf": {"rebuild", "access", "map", "harvests"},
}


@pytest.mark.parametrize("what", SAID)
@pytest.mark.parametrize("scenario", Scenario)
def test_each_scenario_owes_its_own(scenario: str, what: str) -> None:
    config = from_sources(None, {"scenario": scenario, "vcpus": 2, "block-size": "2M"})
    s = ran(config)
    assert missing(s, config) == []
    take(s, what)
    assert missing(s, config) == ([SAID[what]] if what in OWES[scenario] else [])
    assert OWES.keys() == OWED.keys()


def test_an_access_while_a_rebuild_is_under_way_is_overlap_too() -> None:
    config = from_sources(None, {"vcpus": 2})
    for inside in (accounts.C_ACCESSES, accounts.C_FAULTS):
        s = ran(config)
        take(s, "overlap")
        s.counters[1, 1, inside] = 1
        assert missing(s, config) == []


@pytest.mark.parametrize("options", [{"backing": "anonymous"}, {"phys-offset": "1048580K", "backing": "hugetlb-2m"}])
def test_memory_that_can_have_no_block_owes_no_rebuild_but_to_a_comparison(options: dict[str, Any]) -> None:
    for orders, owed in ((("block-first",), []), (("unmap-first", "block-first"), ["no rebuild by block-first"])):
        config = from_sources(
            None, {"scenario": "kvm-page-table-test", "vcpus": 2, "memory": "64M", **options, "orders": orders}
        )
        s = ran(config)
        take(s, "rebuild")
        assert missing(s, config) == owed


def test_where_nothing_is_rebuilt_nothing_is_compared() -> None:
    config = from_sources(None, {"scenario": "thp", "orders": ("unmap-first", "block-first"), "vcpus": 2})
    (found,) = missing(ran(config), config)
    assert found.startswith("scenario thp rebuilds no block, so it compares nothing")


def test_no_time_is_no_verdict() -> None:
    document = run_json("run", *SMALL, "--duration", "1ns")
    assert (document["verdict"], document["exit"], document["complete"]) == ("nothing-tested", 4, True)
    assert document["untested"][0] == "no rebuild by block-first"
    assert document["violations"] == []


def test_a_comparison_that_compares_nothing_says_so() -> None:
    document = run_json("compare", "unmap-first", "block-first", "--scenario", "thp", "--duration", "300ms")
    assert (document["verdict"], document["exit"]) == ("nothing-tested", 4)
    (found,) = document["untested"]
    assert "compares nothing" in found
    assert "noisy" not in {warning["name"] for warning in document["warnings"]}, "a longer run would not help"


def test_a_violation_outweighs_what_was_not_tested() -> None:
    order = "invalidate,clean,install,unmap"
    document = run_json("compare", order, "block-first", *SMALL, "--fail-fast", "--dwell", "0ms", "--duration", "9s")
    assert (document["verdict"], document["exit"], document["untested"]) == ("violations", 1, [])


@pytest.mark.parametrize("vcpus", ["1", "6"])
def test_one_rebuild_is_a_verdict_however_busy_the_machine(vcpus: str) -> None:
    """The run waits for every vCPU to meet what the last rebuild left."""
    for seed in range(5):
        document = run_json(
            "run", *SMALL, "--rebuilds", "1", "--dwell", "0ms", "--vcpus", vcpus, "--seed", str(seed), "--no-pin"
        )
        assert (document["verdict"], document["exit"]) == ("correct", 0), document["untested"]


def test_a_comparison_that_has_begun_plays_each_order_once() -> None:
    """A cycle takes 50 ms at least. A machine too slow for the time given: each order has its verdict, too."""
    orders = ("unmap-first", "block-first", "clean-first")
    document = run_json("compare", *orders, *SMALL, "--dwell", "50ms", "--duration", "20ms")
    assert (document["exit"], document["untested"]) == (0, [])
    assert [order["rebuilds"] for order in document["orders"]] == [1, 1, 1]
