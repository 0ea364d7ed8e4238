"""Options of a trace: where it goes and how far it reaches, checked before the run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from stress.config import Locking, RunConfig
from stress.errors import UsageError

if TYPE_CHECKING:
    from stress.results.data import TraceRequest

_Command = TypeVar("_Command", bound=Callable[..., Any])


def trace_options(command: _Command) -> _Command:
    """Add ``--trace`` and ``--trace-rebuilds``; for `Trace.asked`."""
    command = click.option(
        "--trace-rebuilds",
        type=click.IntRange(min=1),
        metavar="N",
        help="The trace ends with the run's Nth rebuild  [default: 100]",
    )(command)
    return click.option(
        "--trace",
        type=click.Path(path_type=Path),
        metavar="PATH",
        help="Write a trace: .json or .pftrace for ui.perfetto.dev, .casemate for a break-before-make checker",
    )(command)


@dataclass(frozen=True, slots=True)
class Trace:
    """A trace that was asked for."""

    path: Path
    rebuilds: int

    @classmethod
    def asked(cls, path: Path | None, rebuilds: int | None) -> Trace | None:
        """The trace that the options ask for, if any. Raises `UsageError`."""
        if path is None:
            if rebuilds is not None:
                raise UsageError("--trace-rebuilds: there is no trace", "name its file with --trace")
            return None
        from stress.trace.files import DEFAULT_REBUILDS, format_of

        format_of(path)
        return cls(path, rebuilds or DEFAULT_REBUILDS)

    def check(self, config: RunConfig, output: Path | None) -> None:
        """Raise `UsageError` if this run cannot be traced so, or the file not be written."""
        from stress.results import store
        from stress.trace.files import TraceFormat, format_of

        if format_of(self.path) is TraceFormat.CASEMATE and config.locking is Locking.SHARED:
            raise UsageError(
                f"--trace {self.path}: checkers know one owner of the table, and a shared mmu_lock has many",
                "use --locking exclusive, or a .json or .pftrace",
            )
        if output is not None and output.resolve() == self.path.resolve():
            raise UsageError(f"--trace and --output both name {self.path}", "give them different names")
        store.check_writable(self.path, "--trace")

    @property
    def request(self) -> TraceRequest:
        """What the executor must keep."""
        from stress.trace.files import format_of

        return format_of(self.path).request(self.rebuilds)
