"""One launch of an order case, as a process of its own: the case on standard input, its ratios on standard output."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any, Final

from stress import interrupt
from stress.bench.metrics import ratios
from stress.bench.suite import figure_name
from stress.config import RunConfig, from_sources
from stress.errors import ExitCode, StressError, TooFewSamples

#: Tries of a launch that yields too few samples, each twice as long as the last: other work has the cores, then.
ATTEMPTS: Final = 6


def launch(name: str, run: dict[str, Any], metrics: Sequence[str]) -> dict[str, Any]:
    """How a case's run ended, and the case's ratios by figure if the run was whole and correct."""
    config = from_sources(options=run)
    left = ATTEMPTS
    while True:
        try:
            return _launch(name, config, metrics)
        except TooFewSamples:
            left -= 1
            if not left or config.duration_ns is None:
                raise
            config = config.model_copy(update={"duration_ns": 2 * config.duration_ns})


def _launch(name: str, config: RunConfig, metrics: Sequence[str]) -> dict[str, Any]:
    from stress.live import execute

    data = execute(config)
    if data.untested:
        raise TooFewSamples(f"case {name}: nothing was tested: {'; '.join(data.untested)}", "let its run last longer")
    whole = data.complete and not data.violations
    samples = {
        figure_name(name, metric, order): found
        for metric in (metrics if whole else ())
        for order, found in ratios(data.orders, metric).items()
    }
    violations = [each.kind for each in data.violations]
    return {"complete": data.complete, "failure": data.failure, "violations": violations, "samples": samples}


def main() -> int:
    """Read, run, print; returns the exit code."""
    interrupt.install()
    try:
        result = launch(**json.load(sys.stdin))
    except StressError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    json.dump(result, sys.stdout)
    return ExitCode.OK


if __name__ == "__main__":
    sys.exit(main())
