"""A baseline that is not what it should be is an error, never a pass."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stress.bench.baseline import SCHEMA_VERSION, Record, differences, read, write
from stress.errors import UsageError

HOST = {"cpu_model": "a CPU", "architecture": "x86_64", "cores": 2, "membarrier": True, "jit": True, "numba": "0.60"}
HOST |= dict.fromkeys(("kernel", "python", "numpy", "llvmlite", "memory_bytes"), "1")


def document(**changes: Any) -> dict[str, Any]:
    """A good baseline with other values."""
    return {
        "bench_schema_version": SCHEMA_VERSION,
        "stress_version": "0.1",
        "suite_hash": "0123456789abcdef",
        "started_at": "2026-01-02T03:04:05+00:00",
        "elapsed_s": 1.5,
        "launches": 2,
        "host": HOST,
        "samples": {"a: window of block-first": [[0.5, 0.6], [0.7]], "b: hits": [[1.0], [1.1]]},
    } | changes


def refused(path: Path, text: str) -> str:
    path.write_text(text)
    with pytest.raises(UsageError) as raised:
        read(path)
    assert "--save-baseline" in raised.value.remedy
    return raised.value.message


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    record = Record.model_validate(document())
    write(tmp_path / "baseline.json", record)
    assert read(tmp_path / "baseline.json") == record
    assert record.of_cases({"b"}) == {"b: hits": [[1.0], [1.1]]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON"),
        (json.dumps(document())[:-20], "cut off"),
        ("[" * 100_000, "not JSON"),
        ("[]", "no baseline"),
        ('{"schema_version": 2}', "no baseline"),
        (json.dumps(document(bench_schema_version=SCHEMA_VERSION + 1)), "newer schema version"),
        (json.dumps(document(bench_schema_version=0)), "older schema version"),
        (json.dumps(document(surplus=1)), "damaged: surplus"),
        (json.dumps(document(samples={"a: b": [[1.0], []]})), "damaged: samples.a: b.1"),
        (json.dumps(document(samples={"a: b": [[1.0], [0]]})), "damaged: samples.a: b.1.0"),
        (json.dumps(document(samples={"a: b": [[1.0], [float("nan")]]})), "damaged: samples.a: b.1.0"),
        (json.dumps(document(launches=3)), "has 2 of 3 launches"),
        (json.dumps({key: value for key, value in document().items() if key != "host"}), "damaged: host"),
    ],
)
def test_what_is_no_baseline(tmp_path: Path, text: str, message: str) -> None:
    assert message in refused(tmp_path / "baseline.json", text)


def test_no_file(tmp_path: Path) -> None:
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(UsageError, match="cannot read baseline"):
            read(path)


def test_another_suite_or_machine_is_refused_and_another_compiler_told() -> None:
    baseline = Record.model_validate(document())
    same = baseline.suite_hash
    assert differences(baseline, same, HOST | {"load_1min": 7}) == []
    assert differences(baseline, same, HOST | {"numba": "0.61"}) == ["numba: 0.60 in the baseline, 0.61 now"]
    with pytest.raises(UsageError, match="another suite"):
        differences(baseline, "f" * 16, HOST)
    for key, value in {"cpu_model": "another", "cores": 4, "membarrier": False, "jit": False}.items():
        with pytest.raises(UsageError, match=f"another machine: {key}"):
            differences(baseline, same, HOST | {key: value})
    with pytest.raises(UsageError, match="another machine: cores None"):
        differences(Record.model_validate(document(host={**HOST, "cores": None})), same, HOST)
