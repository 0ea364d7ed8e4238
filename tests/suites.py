"""A small suite of the gate, and launches that are made up where only what becomes of them is tested."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stress.bench import measure

#: As few as can show that one of three figures changed.
LAUNCHES, BASELINE_LAUNCHES = 4, 5

SUITE = """
launches = {launches}
baseline-launches = {baseline_launches}
[[order-case]]
name = "no-fwb"
thresholds = {{ window = 0.1, clean = 0.1 }}
[order-case.run]
orders = ["clean-first", "block-first"]
vcpus = 1
block-size = "2M"
blocks = 4
dwell = "20us"
duration = "{duration}"
platform = "{platform}"
guest-caches = false
pin = false
"""

#: A machine that cleans 2 MiB in 40 us, later in 80 us. Beside its TLBI it is next to nothing what the real one costs
#: here, which depends on whether other work has the vCPU's core.
MACHINE = """
description = "cleans slowly"
source = "made up"
fwb = false
dic = true
bbm-level = 0
tlbi-ns = 50_000
clean-bytes-per-s = {rate}
"""


def suite_in(directory: Path, duration: str = "400ms", **changes: str) -> Path:
    (directory / "machine.toml").write_text(MACHINE.format(rate="5e10"))
    text = SUITE.format(
        launches=LAUNCHES,
        baseline_launches=BASELINE_LAUNCHES,
        duration=duration,
        platform=directory / "machine.toml",
    )
    for old, new in changes.items():
        text = text.replace(old, new)
    (directory / "suite.toml").write_text(text)
    return directory / "suite.toml"


SAMPLES = {"clean of clean-first": 0.5, "clean of block-first": 0.6, "window of block-first": 2.5}


def made_up(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a launch of the case answers from now on, instead of the process that makes it."""
    answer: dict[str, Any] = {"complete": True, "failure": None, "violations": []}
    answer["samples"] = {f"no-fwb: {name}": [ratio, 1.01 * ratio] for name, ratio in SAMPLES.items()}
    monkeypatch.setattr(measure, "_process", lambda *arguments, **keywords: json.dumps(answer))
    monkeypatch.setattr(measure, "_compile", lambda note: None)
    return answer
