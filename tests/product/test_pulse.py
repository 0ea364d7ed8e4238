"""Whether a process gets on, as the kernel tells: working, waiting for a processor, asleep, stopped, gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest
from live import PATIENCE_S, wait_until

from stress.live.pulse import Watch, pulse

BUSY = "while True: pass"
IDLE = "import time; print(flush=True); time.sleep(600)"


@pytest.fixture
def process(request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", request.param], stdout=subprocess.PIPE) as found:
        yield found
        found.kill()


def beats(pid: int, may_sleep: bool = False) -> bool:
    """Whether two looks differ."""
    return pulse(pid, may_sleep) != pulse(pid, may_sleep)


@pytest.mark.parametrize("process", [BUSY], indirect=True)
def test_one_that_works_or_waits_for_a_processor_gets_on(process: subprocess.Popen[bytes]) -> None:
    assert all(beats(process.pid) for _ in range(100))


@pytest.mark.parametrize("process", [IDLE], indirect=True)
def test_one_that_sleeps_gets_on_only_if_it_may(process: subprocess.Popen[bytes]) -> None:
    assert process.stdout is not None
    process.stdout.readline()
    asleep = psutil.Process(process.pid)
    wait_until(lambda: asleep.status() == psutil.STATUS_SLEEPING, PATIENCE_S, "sleep")
    assert not any(beats(process.pid) for _ in range(100))
    assert all(beats(process.pid, may_sleep=True) for _ in range(100))


@pytest.mark.parametrize("process", [BUSY, IDLE], indirect=True)
def test_one_that_is_stopped_or_gone_does_not(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGSTOP)
    stopped = psutil.Process(process.pid)
    wait_until(lambda: stopped.status() == psutil.STATUS_STOPPED, PATIENCE_S, "stop")
    assert not any(beats(process.pid, may_sleep=True) for _ in range(100))
    process.kill()
    process.wait()
    assert not beats(process.pid, may_sleep=True)


@pytest.mark.parametrize("process", [BUSY], indirect=True)
def test_what_a_process_waits_for_a_processor_does_not_count(process: subprocess.Popen[bytes]) -> None:
    """It may run only while nobody else wants its processor, and somebody does."""
    core = {min(os.sched_getaffinity(0))}
    os.sched_setaffinity(process.pid, core)
    os.sched_setscheduler(process.pid, os.SCHED_IDLE, os.sched_param(0))
    everything, its_own = Watch(), Watch()

    def both() -> tuple[float, float]:
        return everything.unchanged_s(1), its_own.unchanged_s(1, process.pid)

    with subprocess.Popen([sys.executable, "-c", f"import os; os.sched_setaffinity(0, {core})\n{BUSY}"]) as other:
        try:
            wait_until(lambda: both()[0] > 2, PATIENCE_S, "two seconds")
            assert both()[1] < 0.5
        finally:
            other.kill()
    before = both()[1]
    wait_until(lambda: both()[1] > before + 0.2, PATIENCE_S, "its turn")
    process.send_signal(signal.SIGSTOP)
    before = both()[1]
    wait_until(lambda: both()[1] > before + 0.2, PATIENCE_S, "a while in which it could not run if it were given one")


def test_without_an_open_file_to_spare_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: object) -> str:
        raise OSError(24, os.strerror(24))

    monkeypatch.setattr("stress.live.pulse.Path.read_text", refuse)
    assert beats(os.getpid())


def test_a_watch_counts_the_time_it_saw_and_not_what_it_slept_through(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("stress.live.pulse.time.monotonic", lambda: now[0])
    watch = Watch()

    def after(seconds: float, value: int) -> float:
        now[0] += seconds
        return watch.unchanged_s(value)

    assert after(0, 1) == 0
    assert after(0.125, 1) == 0.125
    assert after(0.125, 1) == 0.25
    assert after(60, 1) < 0.5  # it was stopped itself
    assert after(0.125, 2) == 0
    assert after(0.125, 2) == 0.125
