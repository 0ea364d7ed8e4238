"""Python's resource tracker: it outlives a terminal, and whoever kills it gets one line of ours and no traceback."""

from __future__ import annotations

import os
import signal

import psutil
import pytest
from live import PATIENCE_S, LiveRun, live_run, segments_of, wait_until

pytestmark = pytest.mark.alone

RUN = ("run", "--vcpus", "1", "--block-size", "2M", "--duration", "10m")


def tracker(run: LiveRun) -> psutil.Process | None:
    for process in psutil.Process(run.pid).children():
        try:
            if "resource_tracker" in process.cmdline()[-1]:
                return process
        except (psutil.Error, IndexError):
            continue
    return None


def test_a_hangup_of_the_whole_group_is_an_interrupt_and_nothing_else() -> None:
    """As when a terminal closes."""
    with live_run(*RUN) as run:
        run.wait_for_guest()
        found = wait_until(lambda: tracker(run), PATIENCE_S, "start of the resource tracker")
        os.killpg(run.pid, signal.SIGHUP)
        code, _, err, _ = run.finish()
    assert code == 130
    assert all(line.startswith("stress: ") for line in err.splitlines()), err
    assert "was killed" not in err
    wait_until(lambda: not found.is_running(), PATIENCE_S, "end of the resource tracker")


def test_a_killed_resource_tracker_is_one_line() -> None:
    with live_run(*RUN) as run:
        run.wait_for_guest()
        found = wait_until(lambda: tracker(run), PATIENCE_S, "start of the resource tracker")
        found.kill()
        wait_until(lambda: not found.is_running() or found.status() == psutil.STATUS_ZOMBIE, PATIENCE_S, "its end")
        os.killpg(run.pid, signal.SIGINT)
        code, _, err, _ = run.finish()
        assert segments_of(run.pid) == []
    assert code == 130
    assert all(line.startswith("stress: ") for line in err.splitlines()), err
    assert (
        sum("the process that removes shared memory after a crash was killed" in line for line in err.splitlines()) == 1
    )
