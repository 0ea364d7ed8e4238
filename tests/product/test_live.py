"""End to end with real processes: every named order on every geometry, and every wrong order caught."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from live import PATIENCE_S, run_json

from stress.arch.geometry import BLOCK_SIZES
from stress.orders import NAMED_ORDERS, Step
from stress.results.data import FAULT_CLASSES
from stress.units import format_size

GEOMETRIES = [
    (format_size(granule), format_size(size)) for granule, sizes in BLOCK_SIZES.items() for size in sizes.values()
]
NO_FWB = ("--no-fwb", "--no-guest-caches")


def kinds(document: dict[str, object]) -> set[str]:
    return {violation["kind"] for violation in document["violations"]}  # type: ignore[attr-defined]


LIMITS = ("--rebuilds", "6", "--duration", "3s")


def compare(names: list[str], granule: str, size: str, *options: str) -> list[dict[str, Any]]:
    """A short comparison of orders that must be correct; what is said of each."""
    document = run_json(
        "compare", *names, "--granule", granule, "--block-size", size, "--blocks", "3", "--vcpus", "2",
        "--populated", "0.7", "--dwell", "1ms", "--pattern", "uniform", *LIMITS, *options,
    )  # fmt: skip
    assert document["violations"] == []
    assert document["exit"] == 0
    assert document["complete"] is True
    assert document["verdict"] == "correct"
    assert [order["order"] for order in document["orders"]] == names
    timeline = document["timeline"]
    assert sum(timeline["intervals"]["accesses"]) <= sum(order["accesses"] for order in document["orders"]) * 1.01
    for order in document["orders"]:
        assert order["rebuilds"] >= 1
        assert order["accesses"] > 0
        assert order["tlb_hits"] + order["walks"] == order["accesses"]
        assert order["events_drained"] + order["events_dropped"] == sum(order["faults"].values())
        assert (
            sum(map(sum, order["faults_by_level"].values())) == sum(order["faults"].values()) - order["conflict_aborts"]
        )
        assert order["tlbis"] >= 2 * order["rebuilds"]  # one to split, one to rebuild
        starts = next(each["start_ns"] for each in timeline["rebuilds"] if each["order"] == order["order"])
        assert 0 < starts[0] <= starts[-1] < document["elapsed_ns"]
        assert len(starts) == min(200, order["rebuilds"])
    # The vCPUs really were in the way.
    assert sum(order["faults"]["population"] for order in document["orders"]) > 0
    orders: list[dict[str, Any]] = document["orders"]
    return orders


@pytest.mark.parametrize(("granule", "size"), GEOMETRIES)
@pytest.mark.parametrize("caches", [(), NO_FWB], ids=["fwb", "no-fwb"])
def test_named_orders_are_correct(granule: str, size: str, caches: tuple[str, ...]) -> None:
    names = [name for name, order in NAMED_ORDERS.items() if order.bbm_level == 0]
    for order in compare(names, granule, size, *caches):
        assert order["window_ns"]["p50"] > 0
        if Step.CLEAN in order["steps"]:
            assert (order["cleaned_bytes"] > 0) == bool(caches)
        else:  # only what the table does not map
            assert (order["cleaned_bytes"] > 0) == (bool(caches) and order["mapped_share"] < 1)


@pytest.mark.parametrize(("granule", "size"), GEOMETRIES)
def test_orders_without_a_break_have_no_window_where_the_cpu_allows_them(granule: str, size: str) -> None:
    names = [name for name, order in NAMED_ORDERS.items() if order.bbm_level > 0]
    *unbroken, broken = compare([*names, "block-first"], granule, size, "--bbm-level", "2", *NO_FWB)
    assert len(unbroken) >= 2
    for order in unbroken:
        assert order["window_ns"]["max"] == 0
        assert order["rebuilds_hit"] == order["faults"]["window"] == 0
        assert order["cleaned_bytes"] > 0
    assert broken["window_ns"]["p50"] > 0


def test_the_order_of_level_1_is_correct_at_level_1() -> None:
    order, broken = compare(["nt", "block-first"], "4K", "2M", "--bbm-level", "1", *NO_FWB)
    assert order["window_ns"]["max"] == 0
    assert broken["window_ns"]["p50"] > 0


@pytest.mark.parametrize("bbm_level", [2, 3])
def test_at_level_2_alone_a_tlb_with_both_sizes_aborts(bbm_level: int) -> None:
    # The clean between install and TLBI lasts longer than a time slice: vCPUs meet both sizes on one core, too.
    document = run_json(
        "run", "--order", "install,clean,tlbi,unmap", "--bbm-level", str(bbm_level), "--pattern", "uniform",
        "--vcpus", "2", "--rebuilds", "3", "--platform", "kunpeng920", "--no-fwb",
    )  # fmt: skip
    assert (document["verdict"], document["exit"]) == ("correct", 0)
    [order] = document["orders"]
    aborts = order["conflict_aborts"]
    assert (0 < aborts <= 2 * order["rebuilds"]) if bbm_level == 2 else aborts == 0  # one per vCPU and rebuild
    assert order["faults"]["conflict"] == order["stall_by_class_ns"]["conflict"]["count"] == aborts


@pytest.mark.alone
def test_windows_hit_bystanders_and_add_up() -> None:
    # The window lasts longer than a time slice: vCPUs that share one core with the rebuilder run inside it, too.
    document = run_json(
        "run", "--order", "unmap-first", "--pattern", "uniform", "--vcpus", "2", "--rebuilds", "30",
        "--platform", "kunpeng920", "--fwb",
    )  # fmt: skip
    [order] = document["orders"]
    assert 0 < order["rebuilds_hit"] <= order["rebuilds"]
    assert order["rebuilds_hit"] <= order["faults"]["window"] <= 2 * order["rebuilds_hit"]  # one per vCPU and window
    assert order["window_faults_per_rebuild"] == pytest.approx(order["faults"]["window"] / order["rebuilds"])
    assert order["stall_by_class_ns"]["window"]["max"] > order["window_ns"]["p50"] / 10
    assert order["step_ns"]["unmap"]["p50"] > 0.5 * order["window_ns"]["p50"]  # that is what the order costs


@pytest.mark.parametrize("pattern", ["uniform", "zipf", "strided"])
def test_every_pattern(pattern: str) -> None:
    document = run_json(
        "run", "--pattern", pattern, "--block-size", "2M", "--blocks", "32", "--vcpus", "3", "--dwell", "0ms",
        "--rebuilds", "100", "--duration", "2m", "--write-fraction", "0.5",
    )  # fmt: skip
    assert document["exit"] == 0
    [order] = document["orders"]
    assert order["rebuilds"] == 100
    assert 0.4 < order["writes"] / order["accesses"] < 0.6


WRONG: dict[str, tuple[str, tuple[str, ...], str]] = {
    "no tlbi": ("invalidate,clean,install,unmap", (), "bbm"),
    "no invalidate": ("tlbi,clean,install,unmap", (), "bbm"),
    "unmap before tlbi": ("invalidate,unmap,tlbi,clean,install", (), "table-use-after-free"),
    "no clean": ("invalidate,tlbi,install,unmap", (*NO_FWB, "--populated", "0.5"), "not-at-poc"),
    "no unmap": ("invalidate,tlbi,clean,install", (), "table-leak"),
}
BASIC = set(WRONG)
WRONG |= {
    "one IPA": ("invalidate,tlbi-ipa,clean,install,unmap", (), "bbm"),
    "queued before tlbi": ("invalidate,unmap-deferred,tlbi,clean,install", (), "table-use-after-free"),
    "nT without the feature": ("clean,install-nt,tlbi,clear-nt,unmap", (), "bbm"),
    "nT cleared too early": ("clean,install-nt,clear-nt,tlbi,unmap", ("--bbm-level", "1"), "bbm"),
    "no break at level 1": ("clean,install,tlbi,unmap", ("--bbm-level", "1"), "bbm"),
}


@pytest.mark.parametrize(
    ("wrong", "size"), [(wrong, size) for wrong in WRONG for size in ("1G", "2M") if size == "2M" or wrong in BASIC]
)
def test_wrong_orders_are_caught(wrong: str, size: str) -> None:
    order, options, kind = WRONG[wrong]
    document = run_json(
        "run", "--order", order, *options, "--block-size", size, "--blocks", "4", "--vcpus", "1",
        "--dwell", "0ms", "--duration", "3s", "--fail-fast",
    )  # fmt: skip
    assert document["exit"] == 1
    assert document["verdict"] == "violations"
    assert kind in kinds(document)
    for violation in document["violations"]:
        assert violation["count"] >= 1
        assert violation["evidence"]


@pytest.mark.parametrize("limit", [(), ("--duration", "60s")])
def test_as_many_rebuilds_as_asked_for_are_made_by_vcpus(limit: tuple[str, ...]) -> None:
    """However late they come to it: without a dwell the next cycle would begin before one of them wrote anything."""
    small = ("--block-size", "2M", "--dwell", "0ms", "--pattern", "uniform", "--rebuilds", "3")
    document = run_json("run", "--rebuilder", "vcpu", "-v", "3", *small, *limit)
    assert (document["exit"], document["orders"][0]["rebuilds"]) == (0, 3)


def test_a_missing_clean_is_harmless_with_fwb() -> None:
    document = run_json(
        "run",
        "--order",
        "invalidate,tlbi,install,unmap",
        "--populated",
        "0.5",
        "--duration",
        "300ms",
        "--vcpus",
        "1",
    )
    assert document["exit"] == 0


def test_json_document_has_the_promised_keys() -> None:
    document = run_json("run", "--duration", "3s", "--block-size", "2M", "--vcpus", "1")
    promised = "schema_version complete seed config host warnings orders violations"
    assert set(promised.split()) <= set(document)
    [order] = document["orders"]
    promised = (
        "order steps rebuilds rebuilds_hit window_ns rebuild_ns step_ns faults stall_ns accesses_per_s "
        "accesses tlb_hits walks tlbis events_dropped"
    )
    assert set(promised.split()) <= set(order)
    assert set(order["window_ns"]) >= {"p50", "p90", "p99", "max"}
    assert set(order["faults"]) == set(FAULT_CLASSES) >= {"window", "spurious", "population", "permission"}
    assert list(order["step_ns"]) == order["steps"]
    assert document["start_up_ns"] > 0
    assert document["memory"]["unique_bytes"].keys() == {"supervisor", "vcpu 0", "hypervisor"}


@pytest.mark.alone
def test_a_guest_that_fills_partial_tables_is_pointed_out() -> None:
    options = ("run", "--block-size", "2M", "--vcpus", "1", "--populated", "0.5", "--rebuilds", "10")
    full = run_json(*options, "--dwell", "100ms")
    assert full["orders"][0]["mapped_share"] == 1
    assert "full-tables" in {warning["name"] for warning in full["warnings"]}
    partial = run_json(*options, "--dwell", "0ms")
    assert 0.5 <= partial["orders"][0]["mapped_share"] < 1
    assert "full-tables" not in {warning["name"] for warning in partial["warnings"]}


def test_the_supervisor_loads_no_compiler() -> None:
    """It would take longer than starting the workers, whose server has the kernels."""
    arguments = ["run", "--vcpus", "1", "--rebuilds", "2"]
    measure = f"import sys; from stress.cli.main import invoke; code = invoke({arguments})"
    command = [sys.executable, "-c", f"{measure}; sys.exit(code or 'numba' in sys.modules)"]
    subprocess.run(command, stdout=subprocess.DEVNULL, timeout=PATIENCE_S, check=True)
