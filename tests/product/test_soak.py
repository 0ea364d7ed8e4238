"""Minutes under load, with more vCPUs than cores (make soak): a correct order never has a violation."""

from __future__ import annotations

import os

import pytest
from basic_orders import BASIC, is_correct
from live import run_json

from stress import run
from stress.bugs import BUGS
from stress.orders import NAMED_ORDERS, enumerate_orders
from stress.verify.showing import VERIFY_ALONE

pytestmark = [pytest.mark.soak, pytest.mark.timeout(600)]

SECONDS = int(os.environ.get("STRESS_SOAK_SECONDS", "60"))
MANY = str(3 * len(os.sched_getaffinity(0)) + 2)

#: Load -> its options. All named orders, interleaved; FEAT_BBM level 2 allows what the lower levels do.
LOADS = {
    "2M blocks, no dwell, caches off": (
        "--block-size", "2M", "--blocks", "64", "--dwell", "0ms", "--pattern", "uniform", "--populated", "0.6",
        "--write-fraction", "0.5", "--no-fwb", "--no-guest-caches",
    ),
    "1G blocks, zipf": ("--blocks", "3", "--dwell", "200us", "--pattern", "zipf", "--populated", "0.9"),
    "64K granule, all writes": (
        "--granule", "64K", "--blocks", "4", "--dwell", "100us", "--pattern", "strided", "--write-fraction", "1",
    ),
    "16K granule, no dwell": ("--granule", "16K", "--blocks", "16", "--dwell", "0ms", "--pattern", "uniform"),
    "vCPUs rebuild": (
        "--block-size", "2M", "--blocks", "16", "--dwell", "1ms", "--pattern", "uniform", "--rebuilder", "vcpu",
    ),
    "vCPUs rebuild, shared lock": (
        "--block-size", "2M", "--blocks", "16", "--dwell", "1ms", "--pattern", "uniform", "--rebuilder", "vcpu",
        "--locking", "shared", "--populated", "0.6", "--no-fwb", "--no-guest-caches",
    ),
    "1G blocks, vCPUs rebuild, shared lock": (
        "--blocks", "3", "--dwell", "1ms", "--rebuilder", "vcpu", "--locking", "shared",
    ),
    "hypervisor rebuilds, shared lock": (
        "--block-size", "2M", "--dwell", "0ms", "--pattern", "uniform", "--locking", "shared", "--populated", "0.6",
    ),
    "migration": ("--scenario", "migration", "--block-size", "2M", "--blocks", "64", "--pattern", "uniform"),
    "migration, shared lock, eager split": (
        "--scenario", "migration", "--block-size", "2M", "--blocks", "64", "--pattern", "uniform",
        "--locking", "shared", "--eager-split", "--dwell", "1ms",
    ),
    "migration, three memslots, 1G blocks": (
        "--scenario", "migration", "--memory", "4100M", "--memslots", "3", "--pattern", "zipf", "--locking", "shared",
    ),
    "thp": ("--scenario", "thp", "--dwell", "0ms", "--pattern", "uniform"),
    "thp, shared lock, caches off": (
        "--scenario", "thp", "--dwell", "1ms", "--pattern", "uniform", "--locking", "shared", "--no-fwb",
        "--no-guest-caches", "--write-fraction", "0.5",
    ),
    "kvm-page-table-test": ("--scenario", "kvm-page-table-test", "-s", "hugetlb-2m", "-b", "256M"),
    "kvm-page-table-test, shared lock": (
        "--scenario", "kvm-page-table-test", "-s", "hugetlb-1g", "-b", "2G", "--locking", "shared",
    ),
    "dirty-log-perf": ("--scenario", "dirty-log-perf", "-s", "hugetlb-2m", "-b", "256M", "--locking", "shared"),
}  # fmt: skip


@pytest.mark.parametrize("load", LOADS)
def test_every_order_stays_correct(load: str) -> None:
    # Scenario thp rebuilds nothing: there is nothing to compare.
    command = ("run",) if load.startswith("thp") else ("compare", *NAMED_ORDERS)
    document = run_json(
        *command, "--bbm-level", "2", "--vcpus", MANY, "--duration", f"{SECONDS}s", *LOADS[load],
        timeout_s=SECONDS + 120,
    )  # fmt: skip
    assert (document["violations"], document["failure"], document["untested"]) == ([], None, [])
    assert document["exit"] == 0
    assert document["complete"]
    for order in document["orders"]:
        assert order["accesses"] > 0
        assert order["faults"]["window"] >= order["rebuilds_hit"]
    if document["scenario"] == "thp":
        assert document["life_cycle"]["collapses"] > SECONDS
    else:
        assert sum(order["rebuilds"] for order in document["orders"]) > SECONDS
    if document["scenario"] == "migration":
        assert document["life_cycle"]["migrations_completed"] > 1
    if document["config"]["rebuilder"] == "hypervisor":  # a vCPU that rebuilds is seldom in another's way
        assert sum(order["rebuilds_hit"] for order in document["orders"]) > 0


@pytest.mark.parametrize("size", ["2M", "1G"])
def test_wrong_orders_are_caught_every_time(size: str) -> None:
    wrong = {
        "invalidate,clean,install,unmap": "bbm",
        "tlbi,clean,install,unmap": "bbm",
        "invalidate,unmap,tlbi,clean,install": "table-use-after-free",
        "invalidate,tlbi,install,unmap": "not-at-poc",
        "invalidate,tlbi,clean,install": "table-leak",
    }
    for _ in range(10):
        for order, kind in wrong.items():
            document = run_json(
                "run", "--order", order, "--block-size", size, "--vcpus", "2", "--duration", "5s", "--fail-fast",
                "--dwell", "0ms", "--populated", "0.5", "--no-fwb", "--no-guest-caches",
            )  # fmt: skip
            assert document["exit"] == 1
            assert kind in {violation["kind"] for violation in document["violations"]}


@pytest.mark.timeout(3600)
def test_every_basic_order_has_the_verdict_of_the_rule() -> None:
    """No FWB, guest caches off, blocks half mapped: of 261 orders the seven that the rule names are correct."""
    orders = list(enumerate_orders(BASIC))
    correct = []
    for steps in orders:
        result = run(
            ",".join(steps), duration=os.environ.get("STRESS_SOAK_ORDER", "2s"), block_size="2M", populated=0.5,
            dwell="1ms", fwb=False, guest_caches=False,
        )  # fmt: skip
        assert result.verdict in ("correct", "violations"), (steps, result.failure)
        if result.verdict == "correct":
            correct.append(steps)
    assert len(orders) == 261
    assert correct == [steps for steps in orders if is_correct(steps)]
    assert len(correct) == 7


@pytest.mark.parametrize(
    ("name", "settings"),
    [*((name, ()) for name in BUGS if name not in VERIFY_ALONE), ("no-grace", ("--order", "block-first-deferred"))],
)
def test_injected_bugs_are_caught_every_time(name: str, settings: tuple[str, ...]) -> None:
    for seed in range(10):
        document = run_json("run", "--inject", name, *settings, "--duration", "2s", "--seed", str(seed))
        assert document["exit"] == 1
        assert document["elapsed_ns"] < 5e9
        assert BUGS[name].kinds[0] in {violation["kind"] for violation in document["violations"]}


@pytest.mark.parametrize(
    "load",
    [
        ("--block-size", "2M", "--dwell", "0ms"),
        ("--scenario", "migration", "--block-size", "2M"),
        ("--scenario", "thp"),
    ],
    ids=["rebuild", "migration", "thp"],
)
def test_memory_does_not_grow(load: tuple[str, ...]) -> None:
    used = []
    # By then the supervisor holds as many rows as it ever keeps.
    for seconds in (25, 60):
        document = run_json("run", *load, "--vcpus", "2", "--duration", f"{seconds}s")
        used.append(document["memory"]["unique_bytes"])
    for name, before in used[0].items():
        assert used[1][name] - before < 12 << 20, name
        assert used[1][name] < 150 << 20, name
