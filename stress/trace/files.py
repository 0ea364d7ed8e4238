"""The formats of trace files, told by their suffixes; a file is written whole or not at all."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from pathlib import Path
from typing import Final

from stress.errors import UsageError
from stress.results import store
from stress.results.data import TraceData, TraceRequest, Violation

#: Rebuilds that a trace covers by default: 100 of 2 MiB blocks are 14 MB of page-table changes.
DEFAULT_REBUILDS: Final = 100


class TraceFormat(Enum):
    """The formats, each with its suffix and the module whose ``encoded`` makes it."""

    CHROME = (".json", "stress.trace.chrome")
    PERFETTO = (".pftrace", "stress.trace.perfetto")
    CASEMATE = (".casemate", "stress.trace.casemate")

    @property
    def suffix(self) -> str:
        """The ending of such a file's name."""
        return self.value[0]

    def request(self, rebuilds: int) -> TraceRequest:
        """The request to the executor for a trace in this format."""
        return TraceRequest(rebuilds, changes=self is TraceFormat.CASEMATE)

    def encoded(self, data: TraceData) -> Iterator[bytes]:
        """The file's contents, piece by piece."""
        encode: Callable[[TraceData], Iterator[bytes]] = importlib.import_module(self.value[1]).encoded
        return encode(data)


def format_of(path: Path) -> TraceFormat:
    """The format that the file's name asks for; `UsageError` if there is none."""
    for each in TraceFormat:
        if path.suffix.lower() == each.suffix:
            return each
    *most, last = (each.suffix for each in TraceFormat)
    suffix = f"its name ends in {path.suffix!r}" if path.suffix else "its name has no suffix"
    raise UsageError(
        f"--trace {path}: {suffix}, which is no trace format",
        f"use {', '.join(most)} (both open in ui.perfetto.dev) or {last} (for break-before-make checkers)",
    )


def name_records(path: Path, data: TraceData, violations: Iterable[Violation]) -> None:
    """Let evidence say which record of the file at ``path`` is the store that broke a rule.

    A run hands over the row of the trace that the store made, ``trace_row``: the file's ``record`` replaces it.
    """
    pieces = [piece for found in violations for piece in found.evidence if "trace_row" in piece]
    records: dict[int, int] = {}
    if pieces and format_of(path) is TraceFormat.CASEMATE:
        from stress.trace.casemate import first_records

        records = first_records(data, {piece["trace_row"] for piece in pieces})
    for piece in pieces:
        piece["record"] = records.get(piece.pop("trace_row"))


def export(path: Path, data: TraceData) -> None:
    """Write the trace so that ``path`` holds either all of it or what it held before. Raises `StressError`."""
    with store.replacing(path, "--trace") as file:
        for piece in format_of(path).encoded(data):
            file.write(piece)
