"""Command lines run in this process, and an executor that stands in for processes and kernels."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from synthetic import order_data, run_data

from stress.cli.main import invoke
from stress.config import RunConfig
from stress.errors import ExitCode
from stress.results.data import RunData, TraceData, TraceRequest

#: Exit code, standard output, standard error.
Outcome = tuple[int, str, str]
Command = Callable[..., Outcome]


@dataclass
class FakeProgress:
    """The fields of ``stress.live.Progress``, so that the display is tested without compiling kernels."""

    elapsed_ns: int = 2_500_000_000
    duration_ns: int | None = 10_000_000_000
    rebuilds: int = 40
    rebuilds_target: int | None = 50
    accesses_per_s: float = 3.9e8
    window_p50_ns: dict[str, float | None] = field(default_factory=lambda: {"block-first": 31_234.0})
    faults: dict[str, int] = field(default_factory=lambda: {"window": 12, "spurious": 3})
    violations: int = 0
    phase: str = "rebuilding"


@dataclass
class FakeExecutor:
    """Stands in for ``stress.live.execute``: remembers what it was asked, gives made-up measurements."""

    complete: bool = True
    exit_code: int = 0
    raises: BaseException | None = None
    before_return: Callable[[], object] = lambda: None
    configs: list[RunConfig] = field(default_factory=list)
    traces: list[TraceRequest | None] = field(default_factory=list)
    trace: TraceData | None = None

    def __call__(
        self, config: RunConfig, progress: Any = None, note: Any = None, trace: TraceRequest | None = None
    ) -> RunData:
        self.configs.append(config)
        self.traces.append(trace)
        if note is not None:
            note("compiling kernels")
        if progress is not None:
            progress(FakeProgress())
        if self.raises:
            raise self.raises
        self.before_return()
        rng = np.random.default_rng(config.seed)
        orders = [order_data(rng, order, rebuilds=30) for order in config.parsed_orders]
        return run_data(
            orders,
            complete=self.complete,
            exit_code=self.exit_code,
            config=config.to_json(),
            seed=config.seed,
            trace=self.trace,
        )

    @classmethod
    def installed(cls, monkeypatch: pytest.MonkeyPatch) -> FakeExecutor:
        """A fake in the place of the real one."""
        fake = cls()
        monkeypatch.setattr("stress.live.execute", fake, raising=False)
        return fake


def command_line(capsys: pytest.CaptureFixture[str]) -> Command:
    """A function that runs ``stress`` with its arguments."""

    def command(*arguments: str) -> Outcome:
        code = invoke(arguments)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return command


def refused(outcome: Outcome, code: ExitCode = ExitCode.USAGE) -> str:
    """The one line that a refused command prints, on standard error alone."""
    actual, out, err = outcome
    assert (actual, out) == (code, "")
    (line,) = err.splitlines()
    assert line.startswith("stress: ")
    return line


def process(*arguments: str, **keywords: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "stress", *arguments], text=True, timeout=100, check=False, **keywords)
