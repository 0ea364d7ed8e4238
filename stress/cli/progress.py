"""The display of a run under way: a live one on a terminal, a plain line elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from stress.cli.output import make_way, say
from stress.config import Backing, RunConfig, Scenario
from stress.results import cells
from stress.results.text import counted
from stress.units import format_duration, format_ns, format_size

if TYPE_CHECKING:  # loads numba
    from stress.live import Progress

ProgressSink = Callable[["Progress"], None]
NoteSink = Callable[[str], None]


def headline(config: RunConfig) -> str:
    """The run in one line: scenario, orders, vCPUs, memory, bug, and when it ends."""
    parts = [
        f"{'' if config.scenario is Scenario.REBUILD else f'{config.scenario}: '}{' against '.join(config.orders)}",
        counted(config.vcpus, "vCPU"),
        f"{_memory(config)} ({format_size(config.granule)} granule)",
    ]
    if config.inject:
        parts.append(f"bug {config.inject}")
    limits = []
    if config.duration_ns is not None:
        limits.append(format_duration(config.duration_ns))
    if config.rebuilds is not None:
        limits.append(f"{config.rebuilds} rebuilds")
    if config.passes is not None:
        limits.append("one pass" if config.passes == 1 else f"{config.passes} passes")
    return ", ".join([*parts, " or ".join(limits)])


def _memory(config: RunConfig) -> str:
    if config.backing is Backing.ANONYMOUS:
        return f"{format_size(config.memory)} of pages"
    if config.memory % config.block_size:
        return f"{format_size(config.memory)} in blocks of {format_size(config.block_size)}"
    return f"{counted(config.blocks, 'block')} of {format_size(config.block_size)}"


def fraction_done(progress: Progress) -> float:
    """How far the run is, 0 to 1, by whichever of its limits is nearer."""
    done = [
        now / limit
        for now, limit in ((progress.elapsed_ns, progress.duration_ns), (progress.rebuilds, progress.rebuilds_target))
        if limit
    ]
    return min(1.0, max(done, default=0.0))


def render(title: str, progress: Progress) -> RenderableType:
    """The live display: what runs, how far it is, and the figures so far."""
    bar = Table.grid(padding=(0, 1))
    elapsed = format_ns(progress.elapsed_ns)
    bar.add_row(
        ProgressBar(total=1.0, completed=fraction_done(progress), width=40, complete_style="cyan"),
        Text(f"{elapsed}  {progress.phase}"),
    )
    verdict = Text("violations 0", style="green")
    if progress.violations:
        verdict = Text(f"violations {progress.violations}", style="bold red")
    faults = "  ".join(f"{name} {cells.count(count)}" for name, count in progress.faults.items() if count)
    figures = Table.grid(padding=(0, 2))
    figures.add_row("rebuilds", f"{progress.rebuilds}")
    figures.add_row("accesses", f"{cells.scaled(progress.accesses_per_s)}/s")
    figures.add_row("faults", faults or "none")
    figures.add_row("window p50", _windows(progress.window_p50_ns))  # last: a low terminal cuts off the last orders
    return Group(Text(title, style="bold"), bar, verdict, figures)


def _windows(p50_ns: dict[str, float | None]) -> RenderableType:
    """The window of a single order, or a line per order with its name."""
    times = {order: "-" if p50 is None else format_ns(p50) for order, p50 in p50_ns.items()}
    if len(times) == 1:
        return "".join(times.values())
    lines = Table.grid(padding=(0, 2))
    lines.add_column(no_wrap=True)
    lines.add_column(no_wrap=True, justify="right")
    for order, time in times.items():
        lines.add_row(Text(order, overflow="ellipsis"), time)
    return lines


@contextmanager
def on_terminal(text: RenderableType, console: Console | None = None) -> Iterator[Live | None]:
    """A live display that begins with ``text``, on standard error or a console; None if nobody could look at it."""
    # rich's own test can be overruled by the environment; no escape codes may reach a file.
    if console is None and sys.stderr.isatty():
        console = Console(stderr=True, highlight=False)
    if console is None or not console.is_terminal or console.is_dumb_terminal:
        yield None
        return
    make_way()
    # The display is refreshed by its owner's calls alone: no thread of ours wakes up beside the vCPUs.
    with Live(text, console=console, auto_refresh=False, transient=True) as live:
        yield live


@contextmanager
def display(config: RunConfig, console: Console | None = None) -> Iterator[tuple[ProgressSink | None, NoteSink]]:
    """Give the executor its two callbacks, for progress (None when nobody looks) and for single lines."""
    title = headline(config)
    with on_terminal(Text(title, style="bold"), console) as live:
        if live is None:
            say(title)
            yield None, say
            return

        def show(progress: Progress) -> None:
            with suppress(OSError):  # the terminal may be gone
                live.update(render(title, progress), refresh=True)

        yield (show, lambda line: live.console.print(Text(line)))
