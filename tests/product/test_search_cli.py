"""``stress search`` from the command line: counts, constraints, the document, and what it keeps."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
from commands import command_line, process, refused
from live import COMMAND, PATIENCE_S, live_run, wait_until

SMALL = ("search", "--fwb", "--proof-accesses", "1")
TOLD_APART = {"elapsed_ns": 0, "verdicts_recalled": 0}
FOUR = ("--steps", "invalidate,tlbi,install,unmap")


def test_a_search_with_its_document_and_counterexamples(tmp_path: Path) -> None:
    kept, output = tmp_path / "examples", tmp_path / "found.json"
    fresh = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    arguments = (*SMALL, *FOUR, "--counterexamples", str(kept), "--output", str(output))
    done = process(*arguments, capture_output=True, env=fresh)
    assert done.returncode == 0
    assert "49 orders, 49 programs: 2 proved, 47 refuted" in done.stdout
    assert "tlbi before install" in done.stdout
    assert "Proved on a machine of 1 vCPU with 1 access, and on one of 2 vCPUs with 1 access each (FWB" in done.stdout
    found = json.loads(output.read_text())
    assert [each["steps"] for each in found["correct"]] == [
        ["invalidate", "tlbi", "install", "unmap"],
        ["invalidate", "tlbi", "unmap", "install"],
    ]
    assert "block-first" in found["correct"][0]["named"]
    [one] = [each for each in found["constraints"] if each["text"] == "tlbi before install"]
    assert {"bbm", "tlb-conflict"} <= {*one["kinds"]}
    again = process("verify", "--replay", str(kept / "tlbi-before-install.json"), capture_output=True)
    assert again.returncode == 1
    assert "found again: bbm, tlb-conflict" in again.stdout
    second = process(*arguments, "--json", capture_output=True, env=fresh)
    assert json.loads(second.stdout) | TOLD_APART == found | TOLD_APART


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--steps", "invalidat,install"), "did you mean invalidate"),
        (("--steps", "tlbi"), "add one of them to --steps"),
        (("--limit", "soon"), "soon"),
        (("--resume", "/dev/null"), "not JSON"),
        (("--scenario", "thp"), "leave --scenario out"),
        (("--confirm", "1s"), "name one with --platform"),
        (("--output", "/no/such/place"), "create the directory first"),
        (("--counterexamples", "/dev/null/x"), "cannot write"),
    ],
)
def test_nonsense_is_refused(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], words: str) -> None:
    assert words in refused(command_line(capsys)(*SMALL, *arguments))


def test_no_time_decides_nothing(tmp_path: Path) -> None:
    fresh = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    done = process(*SMALL, *FOUR, "--limit", "1ns", "--jobs", "1", capture_output=True, env=fresh)
    assert done.returncode == 4
    assert "0 proved, 47 refuted, 2 undecided" in done.stdout
    assert "proved nothing" in done.stdout


def test_an_interrupted_search_is_kept_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    file = tmp_path / "found.json"

    def judged() -> bool:
        return any(kept.stat().st_size for kept in tmp_path.glob("cache/*/verdicts-*"))

    with live_run(*SMALL, *FOUR, "--batch", "3", "--jobs", "1", "--output", str(file)) as run:
        wait_until(judged, PATIENCE_S, "the first verdict")
        os.killpg(run.pid, signal.SIGINT)  # as a terminal does
        code, out, err, _ = run.finish()
    assert (code, err) == (130, "")
    assert "interrupted: run it again to go on" in out
    before = json.loads(file.read_text())
    assert not before["complete"]
    done = process("search", "--resume", str(file), capture_output=True)
    assert (done.returncode, done.stderr) == (0, "")
    after = json.loads(file.read_text())
    assert [(each["batch"], each["bounds"]["batch"]) for each in (before, after)] == [(3, 2)] * 2
    assert (after["bounds"], after["vocabulary"]) == (before["bounds"], before["vocabulary"])
    assert after["complete"]
    assert len(after["correct"]) == 2
    assert after["verdicts_recalled"] > 0


@pytest.mark.timeout(900)  # the event loop may have to be compiled first
def test_the_front_on_a_platform_is_run_here_shown_and_drawn(tmp_path: Path) -> None:
    file, page = tmp_path / "found.json", tmp_path / "page.html"
    machine = ("--platform", "kunpeng920", "--block-size", "2M", "-v", "2")
    arguments = [*COMMAND, *SMALL, *FOUR, *machine, "--confirm", "1s", "--output", str(file)]
    done = subprocess.run(arguments, text=True, timeout=600, check=False, capture_output=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(file.read_text())
    first, last = found["correct"]
    assert first["predicted"]["window_ns"] < last["predicted"]["window_ns"]
    assert (first["on_front"], last["on_front"]) == (True, False)
    assert [each["steps"] for each in found["front"]] == [first["steps"]]
    [run] = found["confirmation"]["orders"]
    assert (found["confirmation"]["verdict"], run["order"]) == ("correct", "block-first")
    assert run["accesses"] > 1_000_000
    shown = process("show", str(file), capture_output=True)
    assert (shown.returncode, shown.stdout) == (0, done.stdout)
    assert "* marks what no other order beats in everything" in shown.stdout
    assert process("report", str(file), "-o", str(page), capture_output=True).returncode == 0
    assert "What the proved orders cost" in page.read_text()


@pytest.mark.parametrize(
    ("text", "words"), [('{"search_version": 9}', "reads version 1"), ('{"search_version": 1}', "complete")]
)
def test_a_file_that_is_no_whole_search_is_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "file").write_text(text)
    for command in ("show", "report"):
        done = process(command, str(tmp_path / "file"), capture_output=True)
        assert (done.returncode, done.stdout) == (2, "")
        assert words in done.stderr
        assert len(done.stderr.splitlines()) == 1
