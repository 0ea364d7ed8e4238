"""An order compared with itself, live (make soak): about as many intervals exclude 1 as their confidence allows."""

from __future__ import annotations

from math import comb

import pytest
from live import run_json

from stress.orders import BLOCK_FIRST

pytestmark = [pytest.mark.soak, pytest.mark.timeout(5400)]

RUNS = 24
#: At most this share of comparisons without a difference may be called different, as the test of made-up data demands.
SIZE = 0.07
#: How often each of this file's bounds may fail by chance.
BY_CHANCE = 1e-4

LOADS = {
    "rebuild": ("--block-size", "2M", "--blocks", "8", "--dwell", "1ms", "--pattern", "uniform", "--rebuilds", "100"),
    # A window of 4 ms, which most vCPUs meet: a p99 needs a thousand stalls and more.
    "stalls": (
        "--granule", "16K", "--blocks", "2", "--dwell", "100us", "--pattern", "uniform", "--platform", "kunpeng920",
        "--vcpus", "6", "--rebuilds", "700",
    ),
    "migration": (
        "--scenario", "migration", "--block-size", "2M", "--blocks", "16", "--pattern", "uniform", "--dwell", "1ms",
        "--rebuilds", "20",
    ),
}  # fmt: skip


def most(trials: int) -> int:
    """So many of independent ``trials`` of probability SIZE are exceeded with a probability below BY_CHANCE."""
    tail = 0.0
    for successes in range(trials, -1, -1):
        tail += comb(trials, successes) * SIZE**successes * (1 - SIZE) ** (trials - successes)
        if tail >= BY_CHANCE:
            return successes
    return 0


def test_the_bound_is_the_binomials() -> None:
    assert (most(24), most(20), most(0)) == (8, 7, 0)


@pytest.mark.parametrize("load", LOADS)
def test_an_order_hardly_ever_differs_from_itself(load: str) -> None:
    """One bound per metric: what a run tells of two metrics is not independent.

    Of intervals that pooled the rebuilds of a cycle 44 of 60 excluded 1.
    """
    intervals: dict[str, list[tuple[float, float]]] = {"window": [], "throughput": [], "stall_p99": []}
    for seed in range(RUNS):
        document = run_json(
            "compare", BLOCK_FIRST.name, ",".join(BLOCK_FIRST.steps), *LOADS[load], "--seed", str(seed), timeout_s=600
        )
        assert document["exit"] == 0, document["untested"] or document["failure"]
        [compared] = document["comparison"]
        for metric, found in intervals.items():
            ratio = compared["ratios"][metric]
            if ratio["low"] is not None:
                found.append((ratio["low"], ratio["high"]))
    for metric, found in intervals.items():
        different = [(low, high) for low, high in found if not low <= 1 <= high]
        print(f"{load}, {metric}: {len(different)} of {len(found)} exclude 1")
        assert len(different) <= most(len(found)), (metric, different)
    assert len(intervals["window"]) == len(intervals["throughput"]) == RUNS
    assert len(intervals["stall_p99"]) >= (RUNS // 2 if load == "stalls" else 0)  # elsewhere they are too few
