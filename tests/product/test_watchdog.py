"""The watchdog: it finds who hangs, wherever, and leaves alone who only waits for a processor."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest
from live import PATIENCE_S, RUN, interrupt, live_run, partial, wait_until
from sabotage import COMMAND as SABOTAGED
from sabotage import STARTING

from stress.live.pulse import Watch
from stress.shm import accounts

pytestmark = pytest.mark.alone


def hung(path: Path) -> str:
    """Who hung, as the result says."""
    failure = partial(path)["failure"]
    assert failure["what"] == "hung"
    return str(failure["process"])


def test_watchdog_finds_a_stopped_vcpu(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    with live_run(*RUN, "--watchdog", "1s", "--output", str(path)) as run:
        run.wait_for_guest()
        run.workers()[1].send_signal(signal.SIGSTOP)
        code, out, _, _ = run.finish()
    assert code == 4
    assert hung(path) == "vcpu 1"
    assert "vcpu 1" in out


#: The command beside processes of its own session that stand still at first: a scheduler may divide the processors
#: between sessions before it divides them within one, and then others' work would keep nobody here from one.
CROWDED = """
import os, subprocess, sys
from stress.__main__ import main
loop = "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)\\nwhile True: pass"
crowd = [subprocess.Popen([sys.executable, "-c", loop]) for _ in range(6 * len(os.sched_getaffinity(0)))]
main()
"""


def test_watchdog_leaves_a_vcpu_alone_that_gets_no_processor(tmp_path: Path) -> None:
    """It is runnable, and others have the cores: the run is slow, and nobody hangs."""
    path = tmp_path / "result.json"
    crowded = (sys.executable, "-c", CROWDED)
    with live_run(*RUN, "--watchdog", "300ms", "--output", str(path), command=crowded) as run:
        machine = run.wait_for_guest()
        # A weight of 3 beside theirs of 1024 each: it has its turn every few seconds.
        os.sched_setscheduler(run.workers()[1].pid, os.SCHED_IDLE, os.sched_param(0))
        for each in psutil.Process(run.pid).children():
            if each.status() == psutil.STATUS_STOPPED:
                each.resume()
        watch = Watch()
        wait_until(
            lambda: watch.unchanged_s(int(machine.states[1, accounts.HEARTBEAT])) > 1.5, PATIENCE_S, "starvation"
        )
        assert run.process.poll() is None
        interrupt(run)
        code, _, _, _ = run.finish()
    assert (code, partial(path)["failure"]) == (130, None)


@pytest.mark.parametrize("point", STARTING)
def test_watchdog_finds_who_is_stopped_while_starting(point: str, tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    with live_run(point, *RUN, "--watchdog", "1s", "--output", str(path), command=SABOTAGED) as run:
        code, _, err, _ = run.finish()
    assert code == 4, err
    assert hung(path) == STARTING[point]


@pytest.mark.parametrize("starting", [True, False])
def test_watchdog_finds_a_stopped_forkserver(starting: bool, tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    with live_run(*RUN, "--watchdog", "1s", "--output", str(path)) as run:
        if not starting:
            run.wait_for_guest()
        wait_until(run.server, PATIENCE_S, "start of the forkserver").send_signal(signal.SIGSTOP)
        code, _, err, _ = run.finish()
    assert code == 4, err
    assert hung(path) == "forkserver"


def test_a_run_that_was_stopped_and_continued_goes_on(tmp_path: Path) -> None:
    # As with Ctrl-Z and fg: nobody hung.
    path = tmp_path / "result.json"
    with live_run(*RUN, "--watchdog", "1s", "--output", str(path)) as run:
        machine = run.wait_for_guest()
        os.killpg(run.pid, signal.SIGSTOP)
        time.sleep(2.0)  # longer than the watchdog's patience
        before = int(machine.totals[0, accounts.T_REBUILDS])
        os.killpg(run.pid, signal.SIGCONT)
        wait_until(lambda: machine.totals[0, accounts.T_REBUILDS] > before + 3, PATIENCE_S, "rebuilds afterwards")
        interrupt(run)
        code, _, _, _ = run.finish()
    assert code == 130
    assert partial(path)["failure"] is None
