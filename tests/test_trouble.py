"""Trouble with real processes: Ctrl-C, SIGKILL of anyone at any time, hangs, a full /dev/shm."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from live import LiveRun, live_run, segments_of, wait_until

pytestmark = pytest.mark.alone

RUN = ("run", "--vcpus", "2", "--blocks", "2", "--dwell", "1ms", "--duration", "60s")


def partial(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_text())
    assert document["complete"] is False
    assert any(warning["name"] == "incomplete" for warning in document["warnings"])
    return document


def interrupt(run: LiveRun) -> None:
    os.killpg(run.pid, signal.SIGINT)  # as a terminal does: the whole foreground group


def test_ctrl_c_ends_in_order_with_a_partial_result(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    with live_run(*RUN, "--output", str(path)) as run:
        run.wait_for_workers(3)
        interrupt(run)
        code, out, err, seconds = run.finish(10)
    assert code == 130
    assert seconds < 2.0
    assert "Traceback" not in out + err
    document = partial(path)
    assert document["verdict"] == "interrupted"
    assert document["orders"][0]["rebuilds"] > 0
    assert document["violations"] == []


def catches_sigterm(pid: int) -> bool:
    """Whether the process has a handler for SIGTERM: Python has none of its own, so it is the command's."""
    status = Path(f"/proc/{pid}/status").read_text()
    caught = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)


@pytest.mark.parametrize("delay", [0.0, 0.03, 0.06, 0.1, 0.15, 0.2])
def test_ctrl_c_while_importing(delay: float) -> None:
    # From the command's first lines on an interrupt counts, and no import swallows it.
    with live_run(*RUN) as run:
        wait_until(lambda: catches_sigterm(run.pid), 30, "installation of the handlers")
        time.sleep(delay)
        interrupt(run)
        code, out, err, seconds = run.finish(10)
    assert code == 130
    assert seconds < 2.0
    assert "Traceback" not in out + err


def test_ctrl_c_while_a_large_segment_is_prepared() -> None:
    with live_run("run", "--blocks", "1000") as run:
        wait_until(lambda: segments_of(run.pid), 30, "creation of the segment")
        interrupt(run)
        code, _, err, seconds = run.finish(20)
    assert code == 130
    assert seconds < 2.0
    assert "interrupted while setting up" in err


def test_many_interrupts_do_not_lose_the_result(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    with live_run("compare", *RUN[1:], "--block-size", "2M", "--dwell", "0ms", "--output", str(path)) as run:
        run.wait_for_workers(3)
        while run.process.poll() is None:
            interrupt(run)
            time.sleep(0.03)
        code, _, err, _ = run.finish(10)
    assert code == 130
    assert "Traceback" not in err
    assert len(partial(path)["orders"]) == 2


def test_a_lost_terminal_is_an_interrupt(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    with live_run(*RUN, "--output", str(path)) as run:
        run.wait_for_workers(3)
        run.process.send_signal(signal.SIGHUP)
        code, _, _, _ = run.finish(10)
    assert code == 130
    assert partial(path)["verdict"] == "interrupted"


def test_an_order_that_leaks_ends_early_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    with live_run("run", "--order", "invalidate,tlbi,clean,install", "--vcpus", "1", "--output", str(path)) as run:
        code, out, _, _ = run.finish(60)
    assert code == 1
    document = partial(path)
    assert "leaks" in document["failure"]["how"]
    assert "table-leak" in out


@pytest.mark.parametrize("delay", [0.0, 0.05, 0.2, 0.4, 0.6])
def test_ctrl_c_while_starting(delay: float) -> None:
    with live_run(*RUN) as run:
        wait_until(lambda: segments_of(run.pid) or run.process.poll() is not None, 30, "creation of the segment")
        time.sleep(delay)
        interrupt(run)
        code, out, err, seconds = run.finish(10)
    assert code == 130
    assert seconds < 2.0
    assert "Traceback" not in out + err


def test_second_ctrl_c_changes_nothing() -> None:
    with live_run(*RUN) as run:
        run.wait_for_workers(3)
        interrupt(run)
        time.sleep(0.02)
        interrupt(run)
        code, _, err, _ = run.finish(10)
    assert code == 130
    assert "Traceback" not in err


@pytest.mark.parametrize("victim", [0, 1, -1], ids=["vcpu-0", "vcpu-1", "hypervisor"])
def test_sigkill_of_a_worker_ends_the_run(victim: int, tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    with live_run(*RUN, "--output", str(path)) as run:
        run.wait_for_workers(3)[victim].kill()
        code, out, err, seconds = run.finish(10)
    assert code == 4
    assert seconds < 3.0
    assert "Traceback" not in out + err
    name = "hypervisor" if victim == -1 else f"vcpu {victim}"
    failure = partial(path)["failure"]
    assert failure["process"] == name
    assert failure["how"] == "killed by SIGKILL"
    assert name in out
    assert failure["state"] in out


def test_sigkill_while_holding_mmu_lock(tmp_path: Path) -> None:
    # With no dwell and a 1 GiB block the hypervisor holds mmu_lock most of the time.
    path = tmp_path / "result.json"
    for attempt in range(8):
        with live_run(*RUN, "--dwell", "0ms", "--output", str(path)) as run:
            hypervisor = run.wait_for_workers(3)[-1]
            time.sleep(random.Random(attempt).random() * 0.01)
            hypervisor.kill()
            code, _, _, seconds = run.finish(10)
        assert code == 4
        assert seconds < 3.0
        failure = partial(path)["failure"]
        assert failure["process"] == "hypervisor"
        if failure["held_mmu_lock"]:
            assert failure["state"] == "lock-held"
            return
    pytest.fail("never died with mmu_lock held")


def test_watchdog_finds_a_stopped_vcpu(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    with live_run(*RUN, "--watchdog", "1s", "--output", str(path)) as run:
        run.wait_for_workers(3)[1].send_signal(signal.SIGSTOP)
        code, out, _, seconds = run.finish(15)
    assert code == 4
    assert seconds < 5.0
    failure = partial(path)["failure"]
    assert failure["what"] == "hung"
    assert failure["process"] == "vcpu 1"
    assert "vcpu 1" in out


def test_sigterm_is_an_interrupt() -> None:
    with live_run(*RUN) as run:
        run.wait_for_workers(3)
        run.process.terminate()
        code, _, err, _ = run.finish(10)
    assert code == 130
    assert "Traceback" not in err


@pytest.mark.parametrize("stopped", [False, True])
def test_sigkill_of_the_supervisor_leaves_nothing(stopped: bool) -> None:
    with live_run(*RUN) as run:
        workers = run.wait_for_workers(3)
        if stopped:  # it notices nothing any more
            workers[1].send_signal(signal.SIGSTOP)
        run.process.kill()
        run.process.communicate()
        wait_until(lambda: not any(map(psutil.Process.is_running, workers)), 5, "end of the workers")
        # Python's resource tracker removes the segment of a dead creator; live_run asserts it.


def test_too_many_blocks_for_shared_memory() -> None:
    with live_run("run", "--blocks", "100000", "--block-size", "1G", "--ipa-bits", "48") as run:
        code, out, err, _ = run.finish(30)
    assert code == 3
    assert out == ""
    assert len(err.strip().splitlines()) <= 2
    assert "/dev/shm" in err
    assert "blocks" in err


def test_ctrl_c_while_compiling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    with live_run(*RUN) as run:
        wait_until(lambda: any(tmp_path.glob("kernels-*")), 30, "creation of the cache")
        time.sleep(2.0)
        interrupt(run)
        code, out, err, seconds = run.finish(10)
        left = [p for p in psutil.process_iter(["cmdline"]) if "compile_all()" in " ".join(p.info["cmdline"] or [])]
    assert code == 130
    assert "compiling" in err
    assert seconds < 2.0
    assert "Traceback" not in out + err
    assert not left
