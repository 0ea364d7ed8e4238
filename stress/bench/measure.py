"""The launches of a suite: each a process of its own, because memory lies differently in each, and cases take turns."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from stress import interrupt
from stress.bench.kept import CHECKOUT, Launch
from stress.bench.launch import ATTEMPTS
from stress.bench.suite import KernelCase, OrderCase, Suite
from stress.config import RunConfig
from stress.errors import CheckFailed, Interrupted, MachineError, RunBroken, UsageError

#: Called after each launch: launches done, all launches, the next case's name.
Progress = Callable[[int, int, str], None]

_CHECKOUT: Final = CHECKOUT
_TICK_S: Final = 0.2
#: Seconds that a launch may take beyond the duration of its run.
_PATIENCE_S: Final = 120
_END_S: Final = 10
_REMEDY: Final = "nothing was compared; try the case by hand"


def check(suite: Suite) -> None:
    """`StressError` unless this installation can measure every case."""
    from stress.shm.mode import JIT_DISABLED

    if JIT_DISABLED:
        raise UsageError("without the JIT there is nothing to measure", "unset NUMBA_DISABLE_JIT")
    if suite.kernel_case and not (_CHECKOUT / "benchmarks" / "__main__.py").is_file():
        names = ", ".join(case.name for case in suite.kernel_case)
        message = f"the C reference of {names} is not installed: it is in the repository, not in the package"
        raise MachineError(message, "run stress bench from a checkout, or choose order cases with --only")


def turns(suite: Suite, launches: int) -> Iterator[tuple[OrderCase | KernelCase, int]]:
    """Every launch of every case, by its number, in the order in which they are made."""
    for number in range(launches):
        cases = list(suite.cases)
        random.Random(number).shuffle(cases)
        yield from ((case, number) for case in cases)


def measure(
    suite: Suite, launches: int, done: Collection[tuple[str, int]], progress: Progress, note: Callable[[str], None]
) -> Iterator[Launch]:
    """Make every launch but those ``done`` already (case and number), and yield each as it ends.

    Raises `StressError` for a launch that is not whole and correct.
    """
    left = [(case, number) for case, number in turns(suite, launches) if (case.name, number) not in done]
    if left:
        _compile(note)
    total = launches * len(suite.cases)
    for at, (case, number) in enumerate(left, start=total - len(left)):
        progress(at, total, case.name)
        start = time.monotonic()
        found = _order_case(case, number) if isinstance(case, OrderCase) else _kernel_case(case)
        elapsed_s = round(time.monotonic() - start, 2)
        samples = {figure: [float(f"{ratio:.6g}") for ratio in ratios] for figure, ratios in found.items()}
        yield Launch(case=case.name, launch=number, elapsed_s=elapsed_s, samples=samples)


def _compile(note: Callable[[str], None]) -> None:
    from stress.live.first_compilation import compile_in_background
    from stress.shm import cache

    if not cache.is_complete():
        note("compiling kernels, once")
        if not compile_in_background(interrupt.requested):
            raise Interrupted("interrupted while compiling")


def _order_case(case: OrderCase, number: int) -> dict[str, list[float]]:
    config = case.config
    # Other accesses in each launch, the same in each run.
    run = case.run | {"seed": config.seed + number}
    request = {"name": case.name, "run": run, "metrics": list(case.thresholds)}
    out = _process(case.name, ["-m", "stress.bench.launch"], json.dumps(request), _longest_s(config))
    result: dict[str, Any] = json.loads(out)
    if result["violations"]:
        kinds = ", ".join(result["violations"])
        raise CheckFailed(f"case {case.name}: the oracle found {kinds}", "stress compare shows the evidence")
    if not result["complete"]:
        raise RunBroken(f"case {case.name}: the run broke: {result['failure']}", _REMEDY)
    samples: dict[str, list[float]] = result["samples"]
    return samples


def _longest_s(config: RunConfig) -> float:
    return (config.duration_ns or 0) * 2**ATTEMPTS / 1e9


def _kernel_case(case: KernelCase) -> dict[str, list[float]]:
    with tempfile.TemporaryDirectory(prefix="stress-bench-") as directory:
        path = Path(directory) / "samples.json"
        options = [case.group, "--rounds", str(case.rounds), "--samples", str(path)]
        # Exit code 1: a target of its own is missed, which is another question.
        _process(case.name, ["-m", "benchmarks", *options], cwd=_CHECKOUT, good=(0, 1))
        try:
            samples: dict[str, list[float]] = json.loads(path.read_bytes())
        except (OSError, ValueError) as error:
            raise RunBroken(f"case {case.name}: benchmarks left no samples: {error}", _REMEDY) from None
    return {f"{case.name}: {figure}": ratios for figure, ratios in samples.items()}


def _process(
    name: str,
    arguments: Sequence[str],
    text: str = "",
    lasts_s: float = 0,
    cwd: Path | None = None,
    good: tuple[int, ...] = (0,),
) -> str:
    """Run a Python process on ``text`` and return its standard output; the process has ended whatever happens."""
    patience_s = lasts_s + _PATIENCE_S
    process = subprocess.Popen(
        [sys.executable, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
    )
    watchdog = threading.Timer(patience_s, process.kill)
    watchdog.start()
    try:
        out, err = _communicate(process, text)
    finally:
        late = not watchdog.is_alive()
        watchdog.cancel()
        if process.poll() is None:
            process.kill()
            process.communicate()
    if interrupt.requested.is_set():
        raise Interrupted("interrupted", "nothing was compared")
    if late:
        raise RunBroken(f"case {name} does not end within {patience_s:.0f} s", _REMEDY)
    if process.returncode < 0:  # whatever it had printed before
        raise RunBroken(f"case {name}: killed by {signal.Signals(-process.returncode).name}", _REMEDY)
    if process.returncode not in good:
        last = (err.strip().splitlines() or [f"exit code {process.returncode}"])[-1]
        kinds = {int(kind.exit_code): kind for kind in (UsageError, MachineError)}
        raise kinds.get(process.returncode, RunBroken)(f"case {name}: {last}")
    return out


def _communicate(process: subprocess.Popen[str], text: str) -> tuple[str, str]:
    given: str | None = text
    end_at: float | None = None
    while True:
        try:
            return process.communicate(given, timeout=_TICK_S)
        except subprocess.TimeoutExpired:
            given = None  # it goes on by itself
            if interrupt.requested.is_set() and end_at is None:
                process.terminate()
                end_at = time.monotonic() + _END_S
            if end_at is not None and time.monotonic() > end_at:
                process.kill()
