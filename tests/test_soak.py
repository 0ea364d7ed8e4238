"""Minutes under load, with more vCPUs than cores (make soak): a correct order never has a violation."""

from __future__ import annotations

import os

import pytest
from live import run_json

from stress.orders import NAMED_ORDERS

pytestmark = [pytest.mark.soak, pytest.mark.timeout(600)]

SECONDS = int(os.environ.get("STRESS_SOAK_SECONDS", "60"))
MANY = str(3 * len(os.sched_getaffinity(0)) + 2)

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
}  # fmt: skip


@pytest.mark.parametrize("load", LOADS)
def test_every_order_stays_correct(load: str) -> None:
    document = run_json(
        "compare", *NAMED_ORDERS, "--vcpus", MANY, "--duration", f"{SECONDS}s", *LOADS[load], timeout_s=SECONDS + 120
    )
    assert document["violations"] == []
    assert document["exit"] == 0
    assert document["complete"]
    for order in document["orders"]:
        assert order["rebuilds"] > SECONDS
        assert order["faults"]["window"] >= order["rebuilds_hit"] > 0


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


def test_memory_does_not_grow() -> None:
    used = []
    # By then the supervisor holds as many rows as it ever keeps.
    for seconds in (25, 60):
        document = run_json("run", "--block-size", "2M", "--dwell", "0ms", "--vcpus", "2", "--duration", f"{seconds}s")
        used.append(document["memory"]["unique_bytes"])
    for name, before in used[0].items():
        assert used[1][name] - before < 12 << 20, name
        assert used[1][name] < 150 << 20, name
