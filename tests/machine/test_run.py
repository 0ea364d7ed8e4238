"""A run with real processes, with the compiler and without."""

from __future__ import annotations

import pytest
from live import run_json


@pytest.mark.thorough
def test_a_run_of_real_processes() -> None:
    document = run_json(
        "run", "--pattern", "sequential", "--block-size", "2M", "--blocks", "32", "--vcpus", "3", "--dwell", "0ms",
        "--rebuilds", "101", "--duration", "100s", "--write-fraction", "0.5",
    )  # fmt: skip
    assert document["exit"] == 0
    [order] = document["orders"]
    assert order["rebuilds"] > 100
    assert 0.4 < order["writes"] / order["accesses"] < 0.6
