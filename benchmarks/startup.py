"""Start-up with 4 vCPUs and the kernels compiled before: until the last vCPU has made its first guest access."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.command import watched_start
from benchmarks.figure import Figure
from stress.config import RunConfig
from stress.live.planning import plan_for

LIMIT_S = 1.5
_RUNS = 3


def figures(rounds: int) -> Iterator[Figure]:
    """Medians of three runs: from the launch of the processes, and from the exec of the command."""
    geo = plan_for(RunConfig(vcpus=4, rebuilds=1)).geo
    runs = [watched_start(geo, "run", "--vcpus=4", "--rebuilds=1") for _ in range(_RUNS)]
    launch = [run.document["start_up_ns"] / 1e9 for run in runs]
    yield Figure.of_limit("start-up, from process launch", launch, LIMIT_S, "s")
    whole = [run.first_access_s for run in runs]
    yield Figure.of_limit("start-up, from exec of the command", whole, LIMIT_S, "s")
