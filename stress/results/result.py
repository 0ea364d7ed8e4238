"""A result in a notebook: typed attributes, its document, its tables, its file."""

from __future__ import annotations

import copy
import html
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import PrivateAttr

from stress.results import store
from stress.results.rows import flat
from stress.results.schema import Document, OrderResult

_TABLE = "<table>\n"
_OF_THE_RUN = ("scenario", "seed", "verdict", "complete", "started_at", "elapsed_ns", "config_hash")


class Result(Document):
    """A run's result as attributes: ``result.orders["block-first"].window_ns.p50``."""

    _document: dict[str, Any] = PrivateAttr()

    @classmethod
    def of(cls, document: Mapping[str, Any], source: str = "the document") -> Self:
        """The result in a document of the present shape; `UsageError` if ``source`` is no whole one."""
        result = store.validated(cls, document, source, "run again")
        result._document = copy.deepcopy(dict(document))
        return result

    @classmethod
    def load(cls, path: Path) -> Self:
        """The result in a file, of this schema version or an older one; `UsageError` if it cannot be read."""
        return cls.of(store.read(path), str(path))

    @property
    def document(self) -> dict[str, Any]:
        """The JSON document, as plain values; a copy."""
        return copy.deepcopy(self._document)

    @property
    def order(self) -> OrderResult:
        """The order under test; the first of several, which the ratios refer to."""
        return next(iter(self.orders.values()))

    def save(self, path: str | Path) -> None:
        """Write the document to a file, whole or not at all. Raises `StressError`."""
        store.check_writable(Path(path))
        store.write(Path(path), self._document)

    def table(self, fmt: str = "simple") -> str:
        """The text that the command prints, in a format of tabulate; `UsageError` for an unknown one."""
        from stress.results.tables import compare_table

        return compare_table(self._document, fmt)

    def to_records(self) -> list[dict[str, Any]]:
        """A flat dict per order, for ``pandas.DataFrame``: ``{"order": ..., "window_ns.p50": ..., ...}``."""
        run = {key: self._document[key] for key in _OF_THE_RUN}
        config = {f"config.{key}": value for key, value in flat(self._document["config"])}
        return [dict(flat(order)) | run | config for order in self._document["orders"]]

    def __repr__(self) -> str:
        rebuilds = sum(order.rebuilds for order in self.orders.values())
        return (
            f"<Result {self.verdict}: {', '.join(self.orders)}, {rebuilds} rebuilds in {self.elapsed_ns / 1e9:.3g} s>"
        )

    def __str__(self) -> str:
        return self.table()

    def _repr_html_(self) -> str:
        return as_html(self.table("html"))


def as_html(text: str) -> str:
    """Tables in tabulate's format ``html``, whose cells are escaped, and the lines between them, which are not yet."""
    parts = text.split("\n\n")
    return "\n".join(part if part.startswith(_TABLE) else f"<pre>{html.escape(part)}</pre>" for part in parts)
