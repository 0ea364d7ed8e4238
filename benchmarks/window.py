"""The invalid window of block-first against that of unmap-first, live, with one vCPU and 1 GiB blocks."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.command import stress
from benchmarks.figure import Figure

TARGET = 1 / 20
_OPTIONS = ("--vcpus=1", "--block-size=1G", "--blocks=2", "--duration=6s")


def figures(rounds: int) -> Iterator[Figure]:
    """The ratio of the medians with its 95% interval; ``stress compare`` interleaves the orders itself."""
    document = stress("compare", "unmap-first", "block-first", *_OPTIONS)
    found = document["comparison"][0]["ratios"]["window"]
    before, after = (order["window_ns"]["p50"] for order in document["orders"])
    yield Figure(
        "window, block-first to unmap-first",
        f"{after / 1e3:.0f} us",
        f"{before / 1e3:.0f} us",
        after / before,
        None if found["low"] is None else (found["low"], found["high"]),
        TARGET,
        at_least=False,
    )
