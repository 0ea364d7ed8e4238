"""Trouble with real processes: Ctrl-C, SIGKILL of anyone at any time, hangs, a full /dev/shm."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest
from live import PATIENCE_S, RUN, LiveRun, interrupt, live_run, partial, segments_of, wait_until
from sabotage import COMMAND as SABOTAGED
from sabotage import STARTING

from stress.shm import words

pytestmark = pytest.mark.alone

# Ctrl-C ends a run within 2 s of the command's own time (`LiveRun.finish`), a death still sooner; on a machine of half
# the speed that is 4 s. What would be wrong takes longer: the watchdog 5 s, a worker's grace 10 s, the run 60 s.
PROMPT_S = 4.5


def test_ctrl_c_ends_in_order_with_a_partial_result(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    with live_run(*RUN, "--output", str(path)) as run:
        run.wait_for_guest()
        interrupt(run)
        code, out, err, seconds = run.finish()
    assert code == 130
    assert seconds < PROMPT_S
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
        wait_until(lambda: catches_sigterm(run.pid), PATIENCE_S, "installation of the handlers")
        time.sleep(delay)
        interrupt(run)
        code, out, err, seconds = run.finish()
    assert code == 130
    assert seconds < PROMPT_S
    assert "Traceback" not in out + err


def test_ctrl_c_while_a_large_segment_is_prepared() -> None:
    with live_run("run", "--blocks", "1000") as run:
        wait_until(lambda: segments_of(run.pid), PATIENCE_S, "creation of the segment")
        interrupt(run)
        code, _, err, seconds = run.finish()
    assert code == 130
    assert seconds < PROMPT_S
    assert "interrupted while setting up" in err


def test_many_interrupts_do_not_lose_the_result(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    with live_run("compare", *RUN[1:], "--block-size", "2M", "--dwell", "0ms", "--output", str(path)) as run:
        run.wait_for_guest()
        while run.process.poll() is None:
            interrupt(run)
            time.sleep(0.03)
        code, _, err, _ = run.finish()
    assert code == 130
    assert "Traceback" not in err
    assert len(partial(path)["orders"]) == 2


def test_a_lost_terminal_is_an_interrupt(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    with live_run(*RUN, "--output", str(path)) as run:
        run.wait_for_guest()
        run.process.send_signal(signal.SIGHUP)
        code, _, _, _ = run.finish()
    assert code == 130
    assert partial(path)["verdict"] == "interrupted"


def test_an_order_that_leaks_ends_early_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    with live_run("run", "--order", "invalidate,tlbi,clean,install", "--vcpus", "1", "--output", str(path)) as run:
        code, out, _, _ = run.finish()
    assert code == 1
    document = partial(path)
    assert "leaks" in document["failure"]["how"]
    assert "table-leak" in out


@pytest.mark.parametrize("delay", [0.0, 0.05, 0.2, 0.4, 0.6])
def test_ctrl_c_while_starting(delay: float) -> None:
    with live_run(*RUN) as run:
        wait_until(
            lambda: segments_of(run.pid) or run.process.poll() is not None, PATIENCE_S, "creation of the segment"
        )
        time.sleep(delay)
        interrupt(run)
        code, out, err, seconds = run.finish()
    assert code == 130
    assert seconds < PROMPT_S
    assert "Traceback" not in out + err


def test_second_ctrl_c_changes_nothing() -> None:
    with live_run(*RUN) as run:
        run.wait_for_guest()
        interrupt(run)
        time.sleep(0.02)
        interrupt(run)
        code, _, err, _ = run.finish()
    assert code == 130
    assert "Traceback" not in err


@pytest.mark.parametrize("victim", [0, 1, -1], ids=["vcpu-0", "vcpu-1", "hypervisor"])
def test_sigkill_of_a_worker_ends_the_run(victim: int, tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    with live_run(*RUN, "--output", str(path)) as run:
        run.wait_for_guest()
        run.workers()[victim].kill()
        code, out, err, seconds = run.finish()
    assert code == 4
    assert seconds < PROMPT_S
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
    with live_run(*RUN, "--dwell", "0ms", "--output", str(path)) as run:
        machine = run.wait_for_guest()
        owner = machine.geo.hypervisor + 1
        hypervisor = run.workers()[-1]

        def stopped_with_it() -> bool:
            hypervisor.send_signal(signal.SIGSTOP)
            wait_until(lambda: hypervisor.status() == psutil.STATUS_STOPPED, PATIENCE_S, "stop of the hypervisor")
            if machine.control[words.LOCK] == owner:
                return True
            hypervisor.send_signal(signal.SIGCONT)
            return False

        wait_until(stopped_with_it, PATIENCE_S, "mmu_lock held by the hypervisor")
        hypervisor.kill()
        code, _, _, seconds = run.finish()
    assert code == 4
    assert seconds < PROMPT_S
    failure = partial(path)["failure"]
    assert failure["process"] == "hypervisor"
    assert failure["held_mmu_lock"]
    assert failure["state"] == "lock-held"


def test_a_killed_forkserver_ends_the_run(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    with live_run(*RUN, "--output", str(path)) as run:
        run.wait_for_guest()
        wait_until(run.server, PATIENCE_S, "start of the forkserver").kill()
        code, _, _, _ = run.finish()
    assert code == 4
    assert partial(path)["failure"] == {"process": "forkserver", "what": "died", "how": "killed by SIGKILL"}


@pytest.mark.parametrize(
    ("point", "what", "how"),
    [("aborts", "died", "killed by SIGABRT"), ("lingers", "hung", "did not leave within 1 s")],
)
def test_a_worker_that_does_not_leave_in_order_breaks_the_run(point: str, what: str, how: str, tmp_path: Path) -> None:
    # Everything was measured, but what a vCPU that dies so late did before is not to be trusted.
    path = tmp_path / "result.json"
    run_to_its_end = ("run", "--vcpus", "2", "--block-size", "2M", "--rebuilds", "5", "--output", str(path))
    with live_run(point, *run_to_its_end, command=SABOTAGED) as run:
        code, _, err, _ = run.finish()
    assert code == 4, err
    failure = partial(path)["failure"]
    assert (failure["process"], failure["what"], failure["how"]) == ("vcpu 1", what, how)


def test_more_vcpus_than_open_files() -> None:
    limited = (sys.executable, "-c", LIMITED)
    with live_run("run", "--vcpus", "30", "--duration", "1s", command=limited) as run:
        code, out, err, _ = run.finish()
    assert code == 3
    assert out == ""
    assert "cannot start 30 vCPUs" in err
    assert "ulimit -n" in err


LIMITED = """
import resource
from stress.__main__ import main
resource.setrlimit(resource.RLIMIT_NOFILE, (30, 30))
main()
"""


def test_sigterm_is_an_interrupt() -> None:
    with live_run(*RUN) as run:
        run.wait_for_guest()
        run.process.terminate()
        code, _, err, _ = run.finish()
    assert code == 130
    assert "Traceback" not in err


def is_gone(processes: list[psutil.Process]) -> bool:
    return not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in processes)


@pytest.mark.parametrize("stopped", [None, "vcpu", "forkserver", "all"])
def test_sigkill_of_the_supervisor_leaves_nothing(stopped: str | None) -> None:
    with live_run(*RUN) as run:
        run.wait_for_guest()
        workers, server = run.workers(), wait_until(run.server, PATIENCE_S, "start of the forkserver")
        victims = {None: [], "vcpu": [workers[1]], "forkserver": [server], "all": [server, *workers]}
        for process in victims[stopped]:  # they notice nothing any more
            process.send_signal(signal.SIGSTOP)
        run.process.kill()
        run.process.communicate()
        wait_until(lambda: is_gone([server, *workers]), PATIENCE_S, "end of the workers")
        # Python's resource tracker removes the segment of a dead creator; live_run asserts it.


@pytest.mark.parametrize("point", STARTING)
def test_sigkill_of_the_supervisor_while_a_worker_is_stopped_at_its_start(point: str) -> None:
    with live_run(point, *RUN, "--watchdog", "1h", command=SABOTAGED) as run:
        workers = run.wait_for_workers(3)
        wait_until(
            lambda: any(process.status() == psutil.STATUS_STOPPED for process in workers),
            PATIENCE_S,
            "stop of a worker",
        )
        run.process.kill()
        run.process.communicate()
        wait_until(lambda: is_gone(workers), PATIENCE_S, "end of the workers")


def test_sigkill_of_the_supervisor_while_the_forkserver_loads() -> None:
    # It may be stopped before it asked the kernel to end it.
    with live_run(*RUN) as run:
        server = wait_until(run.server, PATIENCE_S, "start of the forkserver")
        server.send_signal(signal.SIGSTOP)
        wait_until(lambda: server.status() == psutil.STATUS_STOPPED, PATIENCE_S, "stop of the forkserver")
        run.process.kill()
        run.process.communicate()
        wait_until(lambda: is_gone([server]), PATIENCE_S, "end of the forkserver")


def test_the_forkserver_is_in_the_commands_process_group() -> None:
    with live_run(*RUN) as run:
        workers = run.wait_for_workers(3)
        server = wait_until(run.server, PATIENCE_S, "start of the forkserver")
        assert {os.getpgid(process.pid) for process in (server, *workers)} == {run.pid}


def test_too_many_blocks_for_shared_memory() -> None:
    with live_run("run", "--blocks", "100000", "--block-size", "1G", "--ipa-bits", "48") as run:
        code, out, err, _ = run.finish()
    assert code == 3
    assert out == ""
    assert len(err.strip().splitlines()) <= 2
    assert "/dev/shm" in err
    assert "blocks" in err


def test_ctrl_c_while_compiling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    with live_run(*RUN) as run:
        wait_until(lambda: len(compilers(run)) == 2, PATIENCE_S, "start of both compilers")
        processes = compilers(run)
        wait_until(lambda: any(tmp_path.glob("kernels-*/**/*.nbi")), PATIENCE_S, "first compiled kernel")
        interrupt(run)
        code, out, err, seconds = run.finish()
    assert code == 130
    assert "compiling" in err
    assert seconds < PROMPT_S
    assert "Traceback" not in out + err
    assert is_gone(processes)


def compilers(run: LiveRun) -> list[psutil.Process]:
    found = []
    for process in psutil.Process(run.pid).children():
        try:
            if "stress.live.warm" in process.cmdline()[-1]:
                found.append(process)
        except (psutil.Error, IndexError):
            continue
    return found
