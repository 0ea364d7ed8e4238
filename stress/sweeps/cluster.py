"""The scheduler of a Dask cluster: points go to its workers, results come back as they are done.

Each trial takes the resource ``stress`` of its worker, of which a host should offer one, and waits its turn on the host
(`stress.sweeps.turn`) should several workers offer it there. Dask runs the trials of a lost worker again elsewhere,
until it has lost too many workers to the same one.
"""

from __future__ import annotations

import logging
import queue
import secrets
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from stress import __version__, interrupt
from stress.config import Trial
from stress.errors import ExitCode, MachineError, RunBroken, StressError, UsageError
from stress.results.text import counted
from stress.results.trials import TrialResult
from stress.sweeps.execution import Observer, Scheduler

if TYPE_CHECKING:
    from distributed import Client, Future

#: The resource that a worker must offer, and the command that makes it.
RESOURCE: Final = "stress"
_HOW: Final = "dask worker ADDRESS --nthreads 1 --resources stress=1"

_CONNECT_S: Final = 10.0
_POLL_S: Final = 0.2
#: How long a sweep waits for a worker once it has none.
PATIENCE_S: Final = 60.0


def on_cluster(address: str, patience_s: float = PATIENCE_S) -> Scheduler:
    """The scheduler for the cluster behind ``address``. `UsageError` without the extra."""
    try:
        import distributed  # noqa: F401
    except ImportError:
        remedy = "install it: pip install 'stress[distributed]'"
        raise UsageError("sweeps on a cluster need the package distributed", remedy) from None

    def schedule(trials: Sequence[Trial], observer: Observer) -> Iterator[tuple[Trial, TrialResult]]:
        with interrupt.caught(), _connected(address) as client:
            _check_workers(client, address, observer)
            yield from _Tasks(client, address, patience_s).results(trials)

    return schedule


def _connected(address: str) -> Client:
    from distributed import Client
    from distributed.comm.addressing import resolve_address

    # This module tells in one line what becomes of the connection.
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)
    try:
        resolve_address(address)  # a client of a malformed one cannot be closed: it says so in a traceback, after 20 s
        return Client(address, timeout=_CONNECT_S, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        what = str(error) if isinstance(error, ValueError) else "nobody answers"
        raise UsageError(f"no Dask scheduler at {address}: {what}", "start one: dask scheduler") from error


def _offering(client: Client) -> list[str]:
    """Addresses of the workers that offer the resource."""
    workers = client.scheduler_info(n_workers=-1)["workers"]
    return [worker for worker, about in workers.items() if about.get("resources", {}).get(RESOURCE, 0) >= 1]


def _check_workers(client: Client, address: str, observer: Observer) -> None:
    """`UsageError` unless there are workers that offer the resource, all of this version."""
    end = time.monotonic() + _CONNECT_S
    while not (workers := _offering(client)):
        if time.monotonic() > end or interrupt.requested.is_set():
            raise UsageError(f"no worker of {address} offers the resource {RESOURCE}", f"start some: {_HOW}")
        time.sleep(_POLL_S)
    from stress.sweeps.remote import version_of_worker

    versions = client.run(version_of_worker, workers=workers, on_error="return")
    for worker, version in versions.items():
        if version != __version__:
            found = f"has stress {version}" if isinstance(version, str) else f"cannot load stress: {version}"
            raise UsageError(f"worker {worker} {found}, this is {__version__}", "install the same version everywhere")
    hosts = {worker.rsplit("/", 1)[-1].rsplit(":", 1)[0] for worker in workers}
    observer.note(f"{counted(len(workers), 'worker')} on {counted(len(hosts), 'host')}")


class _Tasks:
    """The trials of one sweep on the cluster."""

    def __init__(self, client: Client, address: str, patience_s: float) -> None:
        self._client = client
        self._address = address
        self._patience_s = patience_s
        self._ended: queue.SimpleQueue[Future[Any]] = queue.SimpleQueue()

    def results(self, trials: Sequence[Trial]) -> Iterator[tuple[Trial, TrialResult]]:
        from stress.sweeps.remote import measure_on_worker

        # No two sweeps share a task: each has measurements of its own.
        sweep = secrets.token_hex(4)
        waiting: dict[object, tuple[Trial, Future[Any]]] = {}
        for number, trial in enumerate(trials):
            key = f"{RESOURCE}-{sweep}-{trial.id}"
            point = trial.point
            future = self._client.submit(
                measure_on_worker,
                key,
                # The host decides what it pins; how many vCPUs there are is part of the point.
                {**point.options, "vcpus": point.config.vcpus, "executor": point.executor},
                key=key,
                resources={RESOURCE: 1},
                priority=-number,
                pure=False,
            )
            waiting[key] = (trial, future)
            future.add_done_callback(self._ended.put)
        last_seen = time.monotonic()
        while waiting and not interrupt.requested.is_set():
            try:
                future = self._ended.get(timeout=_POLL_S)
            except queue.Empty:
                last_seen = self._watch(last_seen)
                continue
            trial, _ = waiting.pop(future.key)
            result = self._result(trial, future)
            # A result that is kept must not be measured again if its worker is lost later.
            future.release()
            yield trial, result

    def _watch(self, last_seen: float) -> float:
        """The time at which a worker was last there; RunBroken if that is too long ago, or the scheduler is gone."""
        now = time.monotonic()
        if self._client.status != "running":
            raise self._gone()
        if now - last_seen < 1:
            return last_seen
        try:
            if _offering(self._client):
                return now
        except OSError as error:
            raise self._gone() from error
        if now - last_seen > self._patience_s:
            what = f"{self._address} has had no worker with the resource {RESOURCE} for {self._patience_s:g} s"
            raise RunBroken(what, f"start some ({_HOW}) and continue with --resume")
        return last_seen

    def _gone(self) -> StressError:
        what = f"the scheduler at {self._address} is gone"
        return RunBroken(what, "start it again and continue with --resume; what came is kept")

    def _result(self, trial: Trial, future: Future[Any]) -> TrialResult:
        """The trial's result, or the error that left none."""
        if future.cancelled():
            raise self._gone()
        error = future.exception()
        if error is None:
            started_at, found = future.result()
        else:
            started_at, found = "", {"error": _lost(error)}
        point = trial.point
        return TrialResult(
            trial.id, point.index, point.values, trial.repeat, started_at, found.get("document"), found.get("error")
        )


def _lost(error: BaseException) -> dict[str, Any]:
    """The error of a trial whose workers died or failed."""
    if isinstance(error, MachineError | RunBroken):
        return {"exit_code": int(error.exit_code), "message": str(error)}
    what = f"the cluster lost it: {type(error).__name__}: {error}"
    return {"exit_code": int(ExitCode.BROKEN), "message": " ".join(what.split())}
