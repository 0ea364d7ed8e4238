"""What the user names is read whole: pipes too, and nothing endless takes all memory or cannot be interrupted."""

from __future__ import annotations

import os
import resource
import subprocess
import threading
from pathlib import Path

import pytest
from commands import process, refused

from stress import interrupt, load, reading
from stress.config import SweepPlan, load_sweep
from stress.errors import Interrupted, UsageError
from stress.results.stored import stored


def test_an_endless_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "LIMIT", 1 << 20)
    with pytest.raises(UsageError, match="cannot read /dev/zero: file too large"):
        stored(Path("/dev/zero"))
    with pytest.raises(UsageError, match=r"cannot read /dev/zero: File too large"):
        load_sweep(Path("/dev/zero"))


def test_a_sparse_file_is_refused_by_every_reader(tmp_path: Path) -> None:
    """Of 60 GB, which take no room on the disk: no reader starts to fill memory with it."""
    for name in ("sparse.json", "sparse.jsonl", "sparse.toml"):
        with (tmp_path / name).open("wb") as file:
            file.truncate(60 << 30)
    json, lines, toml = (str(tmp_path / f"sparse.{ending}") for ending in ("json", "jsonl", "toml"))
    sweep = tmp_path / "sweep.toml"
    sweep.write_text("[sweep]\nvcpus = [1, 2]\n")
    for arguments in (
        ("show", json),
        ("report", json, "--output", str(tmp_path / "page.html")),
        ("report", lines, "--output", str(tmp_path / "page.html")),
        ("run", "--config", toml),
        ("run", "--platform", toml),
        ("sweep", toml, "--output", str(tmp_path / "new.jsonl")),
        ("sweep", str(sweep), "--output", lines, "--resume"),
        ("bench", "--suite", toml),
        ("bench", "--baseline", json),
        ("verify", "--replay", json),
    ):
        done = process(*arguments, stdin=subprocess.DEVNULL, capture_output=True, preexec_fn=_little_memory)
        line = refused((done.returncode, done.stdout, done.stderr))
        assert "sparse" in line, arguments
        assert "file too large" in line.lower(), arguments


def _little_memory() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))


@pytest.mark.timeout(60)
def test_waiting_for_a_pipe_can_be_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setattr(interrupt, "requested", threading.Event())
    threading.Timer(0.3, interrupt.requested.set).start()
    with pytest.raises(Interrupted):
        stored(tmp_path / "pipe")


def test_a_path_with_a_null_byte_is_refused() -> None:
    with pytest.raises(UsageError, match="cannot read"):
        load("a\0b")


@pytest.mark.timeout(60)
def test_a_pipe_is_read_to_its_end(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    text = b"[sweep]\nvcpus = [1, 2]\n" + b"# much\n" * 40_000
    writer = threading.Thread(target=pipe.write_bytes, args=(text,))
    writer.start()
    plan: SweepPlan = load_sweep(pipe)
    writer.join()
    assert len(plan.points) == 2
