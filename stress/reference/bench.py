"""The page of the regression gate: the keys of its suite and of its document, and what it measures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from pydantic import BaseModel

from stress.bench.baseline import SCHEMA_VERSION, Record
from stress.bench.metrics import METRICS
from stress.bench.suite import KernelCase, OrderCase, Suite
from stress.reference.markdown import code, page, table

_SUITE: Final = """\
`stress bench` measures the suite in `configs/suites/bench.toml`, or the one that `--suite` names. Everything that is
wrong with a file is reported at once, each problem with the path of its key."""

_METRICS: Final = """\
Each is compared as its ratio to that of the case's first order. Besides, the name of each step is a metric: its median
time over the median of its rebuild's rest, in every order that has it. When one step gets slower, the ratios of the
others fall."""

_DOCUMENT: Final = f"""\
A baseline, and what `--json` and `--output` give, is one JSON document, schema version {SCHEMA_VERSION}; other
versions are refused. With a baseline it also says which one it was (`baseline`), and for each figure its change, its
p-value and its verdict (`figures`). What `--json` and `--output` give says whether all launches were made
(`complete`) and what ended them early (`failure`); `samples` then has fewer of them, and nothing is judged or saved as
a baseline."""

_KEPT: Final = """\
With `--output FILE` or `--save-baseline FILE` each launch is in `FILE.launches` as soon as it ends, one JSON line each
after a header, until all are done. Ctrl-C, a launch that broke or a killed `stress bench` loses none: the same command
with `--resume` makes those that are missing. They must be of the same measurement, which the header names: cases and
their options, number of launches, the program down to its source files, the machine and its kernel, Python and
compiler. Anything else is refused. Thresholds and the baseline may change: they decide, but measure nothing."""


def bench_page() -> str:
    """The page as Markdown."""
    parts = ["## The suite", _SUITE, _table(Suite)]
    parts += ["### [[order-case]]", _table(OrderCase), "### [[kernel-case]]", _table(KernelCase)]
    metrics = [
        [code(name), metric.meaning, "higher" if metric.higher_is_better else "lower"]
        for name, metric in METRICS.items()
    ]
    parts += ["## Metrics", _METRICS, table(("metric", "is", "better is"), metrics)]
    return page("Benchmark keys", *parts, "## The document", _DOCUMENT, _table(Record), "## Interrupted", _KEPT)


def _table(model: type[BaseModel]) -> str:
    return table(("key", "meaning", "default"), list(_rows(model)))


def _rows(model: type[BaseModel]) -> Iterator[list[str]]:
    for name, field in model.model_fields.items():
        has_default = not field.is_required() and isinstance(field.default, int)
        yield [code(field.alias or name), field.description or "", code(str(field.default)) if has_default else ""]
