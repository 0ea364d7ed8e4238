"""A platform whose costs outlast the run: refused where nothing could be tested, cut short where the run is over."""

from __future__ import annotations

from pathlib import Path

import pytest
from live import run_json

from stress.config import ConfigError, from_sources

PLATFORM = """
description = "a slow machine"
source = "made up"
fwb = false
dic = false
bbm-level = 0
"""


def platform(path: Path, cost: str) -> str:
    file = path / "slow.toml"
    file.write_text(PLATFORM + cost)
    return str(file)


@pytest.mark.parametrize(
    ("cost", "order", "duration", "refused"),
    [
        ("clean-bytes-per-s = 1e6", "block-first", "1s", "takes 1074 s to map or to rebuild by block-first"),
        ("clean-bytes-per-s = 1e6", "clean-unmapped-first", "1s", "and the run has 1.00 s; raise --duration"),
        ("clean-bytes-per-s = 1e6", "block-first", "1073s", ""),
        ("clean-bytes-per-s = 1e6", "block-first", "1h", None),
        ("clean-bytes-per-s = 1e12", "block-first", "1s", None),
        ("tlbi-ns = 1_000_000_000", "block-first", "1s", "takes 1.00 s"),
        ("tlbi-ns = 1_000_000_000", "block-first", "1100ms", None),
        ("unmap-ns = 3_000_000", "block-first", "1s", "takes 1.54 s"),
        ("unmap-ns = 3_000_000", "block-first", "1600ms", None),
        ("unmap-ns = 3_000_000", "invalidate,tlbi,clean,install", "1s", None),
        ("free-ns = 1_000_000_000", "block-first-deferred", "1s", "takes 1.00 s"),
    ],
)
def test_a_run_that_cannot_finish_a_rebuild_is_refused(
    tmp_path: Path, cost: str, order: str, duration: str, refused: str | None
) -> None:
    options = {"platform": platform(tmp_path, cost), "orders": (order,), "duration": duration}
    if refused is None:
        from_sources(None, options)
        return
    with pytest.raises(ConfigError, match="--platform: a block takes") as caught:
        from_sources(None, options)
    assert refused in str(caught.value)
    from_sources(None, {**options, "fwb": True, "duration": "2s"})


@pytest.mark.alone
def test_a_run_ends_in_order_although_its_platform_would_take_longer(tmp_path: Path) -> None:
    # An I-cache invalidation of almost a second for each run of pages that no guest met: over a hundred per rebuild.
    slow = platform(tmp_path, "icache-ns = 900_000_000\n")
    options = ("--platform", slow, "--block-size", "2M", "--blocks", "1", "--populated", "0.5")
    document = run_json("run", "--order", "clean-unmapped-first", "--vcpus", "2", "--duration", "1s", *options)
    assert document["exit"] == 4
    assert document["failure"] is None
    assert document["violations"] == []
    assert document["orders"][0]["rebuilds"] == 0
    assert document["untested"][0].startswith(
        "no rebuild by clean-unmapped-first: the platform's costs outlast the run"
    )
    assert document["elapsed_ns"] < 30e9


@pytest.mark.alone
def test_a_dwell_does_not_outlast_the_run() -> None:
    document = run_json("run", "--vcpus", "1", "--dwell", "1h", "--duration", "100ms", "--block-size", "2M")
    assert document["failure"] is None
    assert document["orders"][0]["rebuilds"] == 1
