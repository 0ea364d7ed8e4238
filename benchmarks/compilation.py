"""First compilation, as its user meets it: a run that finds an empty cache."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.command import watched_start
from benchmarks.figure import Figure
from stress.config import RunConfig
from stress.errors import RunBroken
from stress.live.planning import plan_for

LIMIT_S = 40.0


def figures(rounds: int) -> Iterator[Figure]:
    """One run, from the exec of the command to its first guest access; nothing of it is measured twice."""
    geo = plan_for(RunConfig(vcpus=1, rebuilds=1)).geo
    with tempfile.TemporaryDirectory(prefix="stress-bench-") as cache:
        run = watched_start(geo, "run", "--vcpus=1", "--rebuilds=1", NUMBA_CACHE_DIR=cache)
        if not any(Path(cache).rglob("*.nbc")):
            raise RunBroken("the first compilation left no kernel in its cache")
    yield Figure.of_limit("first compilation, until the guest runs", [run.first_access_s], LIMIT_S, "s")
