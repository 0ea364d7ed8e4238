"""Sweeps from Python, with real runs: their typed result, their file, an interrupt and what comes after it."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from live import segments_of

from stress import RunInterrupted, SweepResult, load, sweep
from stress.errors import UsageError

RUN: dict[str, Any] = {"vcpus": 1, "block-size": "2M", "blocks": 2, "dwell": "1ms", "pin": False, "rebuilds": 5}
TABLES: dict[str, Any] = {"run": RUN, "sweep": {"order": ["unmap-first", "block-first"], "write-fraction": [0.0, 0.5]}}


@pytest.fixture(scope="module")
def swept() -> SweepResult:
    return sweep(TABLES, seed=5)


def test_every_point_has_a_typed_result(swept: SweepResult) -> None:
    assert swept.complete
    assert (swept.swept, swept.expected, swept.verdicts) == (("order", "write-fraction"), 4, {"correct": 4})
    for run in swept.runs:
        assert run.result is not None
        assert (list(run.result.orders), run.result.order.rebuilds) == ([run.values["order"]], 5)
        assert (run.result.order.writes > 0) is (run.values["write-fraction"] > 0)
        assert run.result.seed == 5
    assert len(swept.select(order="block-first")) == 2
    (one,) = swept.select(order="block-first", write_fraction=0.5)
    assert one.values == {"order": "block-first", "write-fraction": 0.5}


def test_records_and_tables(swept: SweepResult) -> None:
    records = swept.to_records()
    assert len(records) == 4
    assert {(each["sweep.order"], each["sweep.write-fraction"]) for each in records} == {
        (order, share) for order in ("unmap-first", "block-first") for share in (0.0, 0.5)
    }
    assert all(each["order"] == each["sweep.order"] and each["repeat"] == 0 for each in records)
    assert "4 of 4 runs done" in str(swept)
    assert "<table>" in swept._repr_html_()


def test_an_interrupted_sweep_is_resumed(tmp_path: Path) -> None:
    path = tmp_path / "sweep.jsonl"

    def interrupt(done: int, expected: int) -> None:
        assert expected == 4
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(RunInterrupted) as raised:
        sweep(TABLES, output=path, progress=interrupt)
    assert isinstance(raised.value.result, SweepResult)
    assert (len(raised.value.result.runs), raised.value.result.complete) == (1, False)
    assert segments_of(os.getpid()) == []
    before = load(path)
    assert isinstance(before, SweepResult)
    assert (len(before.runs), before.expected) == (1, 4)
    seen: list[int] = []
    resumed = sweep(TABLES, output=path, resume=True, progress=lambda done, expected: seen.append(done))
    assert resumed.complete
    assert seen == [2, 3, 4]
    assert resumed.runs[0] == before.runs[0]


def test_a_point_that_cannot_run_is_a_result(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stress.shm.segment._free_bytes", lambda: 4096)
    (run,) = sweep({"run": RUN, "sweep": {"order": ["block-first"]}}).runs
    assert (run.verdict, run.result) == ("failed", None)
    assert "shared memory" in (run.error or "")


@pytest.mark.parametrize(
    ("config", "options", "message"),
    [
        ({"sweep": {"vcpus": [1, 0]}}, {}, r"^sweep\.vcpus\[1\]: must be at least 1"),
        (TABLES, {"duratoin": "1s"}, r"duratoin: unknown key; did you mean duration\?"),
        ({"sweep": {"populated": [0.5, float("nan")]}}, {}, r"^sweep\.populated\[1\]: must be a finite number"),
        (TABLES, {"populated": float("nan")}, "populated: must be a finite number"),
        (TABLES, {"repeats": 0}, "^repeats: must be at least 1"),
        (TABLES, {"resume": True}, "there is no file to resume"),
        ("missing.toml", {}, "cannot read missing.toml"),
    ],
)
def test_bad_input(config: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        sweep(config, **options)
