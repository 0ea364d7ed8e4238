"""First compilation: every kernel, into an empty cache, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.figure import Figure
from benchmarks.rounds import elapsed_s
from stress.errors import RunBroken

LIMIT_S = 60.0
_PROGRAM = "from stress.live.warm import compile_all; compile_all()"


def figures(rounds: int) -> Iterator[Figure]:
    """One compilation; nothing of it is measured twice."""
    with tempfile.TemporaryDirectory(prefix="stress-bench-") as cache:
        environment = os.environ | {"NUMBA_CACHE_DIR": cache}
        command = (sys.executable, "-c", _PROGRAM)
        taken_s = elapsed_s(lambda: subprocess.run(command, env=environment, check=True))
        if not any(Path(cache).rglob("*.nbc")):
            raise RunBroken("the first compilation left no kernel in its cache")
    yield Figure.of_limit("first compilation", [taken_s], LIMIT_S, "s")
