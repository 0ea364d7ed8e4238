"""Sweeps on a real Dask cluster of two worker processes, and the process that measures for a worker."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from distributed import LocalCluster
from live import PATIENCE_S, segments_of, wait_until

from stress import __version__
from stress.config import Trial, plan_sweep
from stress.errors import RunBroken, UsageError
from stress.results.trials import TrialResult, read_sweep
from stress.sweeps.cluster import RESOURCE, on_cluster
from stress.sweeps.execution import Observer, carry_out
from stress.sweeps.trial import answer, request

MEASURE = "stress.sweeps.trial"
SMALL: dict[str, Any] = {"duration": "200ms", "blocks": 1, "block-size": "2M", "vcpus": 1, "dwell": "1ms"}
PLAN = plan_sweep({"run": SMALL, "sweep": {"order": ["unmap-first", "block-first"], "write-fraction": [0.1, 0.2]}})


class Finished(Observer):
    """Remembers which trials finished."""

    def __init__(self) -> None:
        self.trials: list[str] = []

    def finished(self, trial: Trial, result: TrialResult) -> None:
        self.trials.append(trial.id)


def measuring() -> list[psutil.Process]:
    """The processes below this one that measure for a worker."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if MEASURE in process.cmdline():
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with pytest.MonkeyPatch.context() as patch:
        # Loading compiled kernels is most of the time of a short run, and nothing here depends on them.
        patch.setenv("NUMBA_DISABLE_JIT", "1")
        with LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, resources={RESOURCE: 1}, dashboard_address=":0"
        ) as found:
            yield found


def test_every_point_arrives_once_though_a_worker_is_killed(cluster: LocalCluster, tmp_path: Path) -> None:
    killed: list[psutil.Process] = []

    def kill_a_worker() -> None:
        (first, *_) = wait_until(
            lambda: [each for each in measuring() if segments_of(each.pid)], PATIENCE_S, "a measurement"
        )
        worker = first.parent()
        assert worker is not None
        worker.kill()
        killed.append(first)

    killer = threading.Thread(target=kill_a_worker)
    killer.start()
    observer, path = Finished(), tmp_path / "sweep.jsonl"
    outcome = carry_out(PLAN, path, on_cluster(cluster.scheduler_address), observer, resume=False)
    killer.join()
    assert (outcome.exit_code, outcome.left) == (0, 0)
    assert sorted(observer.trials) == sorted(trial.id for trial in PLAN.trials())
    found = read_sweep(path)
    assert path.read_bytes().count(b"\n") == 5
    for each in found.trials:
        assert each.document is not None
        assert each.document["config"]["write_fraction"] == each.values["write-fraction"]
        assert each.document["orders"][0]["order"] == each.values["order"]
        assert each.document["orders"][0]["rebuilds"] > 0
    # What the killed worker measured ended with it, in order.
    (orphan,) = killed
    wait_until(lambda: not orphan.is_running(), PATIENCE_S, "end of the orphan")
    assert segments_of(orphan.pid) == []


def test_what_cannot_be_a_cluster_is_refused(cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    def sweep(address: str) -> None:
        assert not list(on_cluster(address)(list(PLAN.trials()), Observer()))

    monkeypatch.setattr("stress.sweeps.cluster._CONNECT_S", 0.5)
    with pytest.raises(UsageError, match=r"no Dask scheduler at tcp://127.0.0.1:1: nobody answers; start one"):
        sweep("tcp://127.0.0.1:1")
    with pytest.raises(UsageError, match="no Dask scheduler at x:y:z"):
        sweep("x:y:z")
    monkeypatch.setattr("stress.sweeps.cluster.__version__", "0.0.7")
    with pytest.raises(UsageError, match=rf"worker .* has stress {__version__}, this is 0.0.7; install the same"):
        sweep(cluster.scheduler_address)
    monkeypatch.setattr("stress.sweeps.cluster.RESOURCE", "other")
    with pytest.raises(UsageError, match=r"no worker of .* offers the resource other; start some: dask worker"):
        sweep(cluster.scheduler_address)


@pytest.mark.parametrize("address", ["nonsense", "tcp://", "", "foo://h:1", "tcp://[::1"])
def test_a_malformed_address_makes_no_client(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Such a client cannot be closed: it prints a traceback after 20 s.
    monkeypatch.setattr("distributed.Client", lambda *arguments, **options: pytest.fail("it was made"))
    with pytest.raises(UsageError, match="no Dask scheduler at"):
        list(on_cluster(address)(list(PLAN.trials()), Observer()))


#: The trials that `pretend` has been asked for, and whether those after the first may end.
asked: list[str] = []
leave = threading.Event()


def pretend(key: str, options: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The first measurement fails at once; the others take until nobody waits any more."""
    asked.append(key)
    if len(asked) > 1:
        leave.wait(PATIENCE_S)
    return "", {"error": {"exit_code": 3, "message": "pretended"}}


def test_a_cluster_without_workers_ends_the_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stress.sweeps.remote.measure_on_worker", pretend)
    with LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, resources={RESOURCE: 1}, dashboard_address=":0"
    ) as cluster:
        results = on_cluster(cluster.scheduler_address, patience_s=0.1)(list(PLAN.trials()), Observer())
        assert next(results)[1].error == {"exit_code": 3, "message": "pretended"}
        # What came is not measured again should its worker be lost.
        wait_until(lambda: len(cluster.scheduler.tasks) == 3, PATIENCE_S, "release of the first result")
        cluster.scale(0)
        with pytest.raises(RunBroken, match=r"no worker with the resource stress for 0.1 s; start some.*--resume"):
            list(results)
        leave.set()


def test_a_scheduler_that_dies_ends_the_sweep(tmp_path: Path) -> None:
    file = tmp_path / "scheduler.json"
    common = ("--scheduler-file", str(file), "--no-dashboard")
    long = plan_sweep({"run": {**SMALL, "duration": "60s"}, "sweep": {"vcpus": [1, 2]}})
    with (
        quiet("distributed.cli.dask_scheduler", "--port", "0", *common) as scheduler,
        quiet(
            "distributed.cli.dask_worker", "--no-nanny", "--nthreads", "1", "--resources", "stress=1", *common
        ) as worker,
    ):
        try:
            wait_until(file.exists, PATIENCE_S, "start of the scheduler")
            address = json.loads(file.read_text())["address"]
            killer = threading.Thread(
                target=lambda: (wait_until(measuring, PATIENCE_S, "a measurement"), scheduler.kill())  # type: ignore[func-returns-value]
            )
            killer.start()
            with pytest.raises(
                RunBroken, match=r"the scheduler at .* is gone; start it again and continue with --resume"
            ):
                list(on_cluster(address)(list(long.trials()), Observer()))
            killer.join()
        finally:
            scheduler.kill()
            worker.kill()
    wait_until(lambda: not measuring(), PATIENCE_S, "end of what nobody waits for")


def quiet(module: str, *arguments: str) -> subprocess.Popen[bytes]:
    """A process of Dask's own."""
    return subprocess.Popen([sys.executable, "-m", module, *arguments], stderr=subprocess.DEVNULL)


# -- the process that measures -----------------------------------------------------------


def test_it_ends_with_whoever_started_it() -> None:
    options = {**SMALL, "duration": "60s"}
    with subprocess.Popen(
        [sys.executable, "-m", MEASURE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(request(options))
        wait_until(lambda: segments_of(process.pid), PATIENCE_S, "start of the run")
        process.stdin.close()
        found = json.loads(process.stdout.readline())
        process.wait(PATIENCE_S)
    assert segments_of(process.pid) == []
    assert found.get("document", {}).get("complete") is False or found["error"]["exit_code"] == 130


def test_errors_come_back_as_answers() -> None:
    found = answer(request({"vcpus": 0}))
    assert found == {"error": {"exit_code": 2, "message": "--vcpus: must be at least 1, not 0"}}
    found = answer(request({}).replace(__version__.encode(), b"0.0.7"))
    assert found["error"]["message"].endswith("the sweep is of 0.0.7; install the same version everywhere")
