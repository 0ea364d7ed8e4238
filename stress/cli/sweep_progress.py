"""The display of a sweep under way: a live one on a terminal, a line per run elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from stress.cli.output import say
from stress.cli.progress import headline, on_terminal, render
from stress.config import Trial
from stress.results.sweep_table import name, reason
from stress.results.trials import TrialResult
from stress.sweeps.estimate import left_s, spelled
from stress.sweeps.execution import Observer

if TYPE_CHECKING:  # loads numba
    from stress.live import Progress


class Lines(Observer):
    """A line per finished run, with what is left."""

    def __init__(self) -> None:
        self._before = 0
        self._left: dict[str, Trial] = {}
        self._done: list[Trial] = []
        self._began = time.monotonic()

    def begins(self, trials: Sequence[Trial], done: int) -> None:
        """Start counting."""
        self._before = done
        self._left = {trial.id: trial for trial in trials}
        self._began = time.monotonic()
        if done:
            self.note(f"{done} of {self.total} runs are done already")

    def finished(self, trial: Trial, result: TrialResult) -> None:
        """Count, and say how it ended."""
        self._done.append(self._left.pop(trial.id))
        rest = f"; {spelled(self.left_s)} left" if self._left else ""
        self.note(f"{self.count}/{self.total} {name(result)}: {result.verdict}, {reason(result)}{rest}")

    def note(self, line: str) -> None:
        """Say it."""
        say(line)

    @property
    def total(self) -> int:
        """Runs of the sweep."""
        return self.count + len(self._left)

    @property
    def count(self) -> int:
        """Runs that came to an end, in this sweep or before."""
        return self._before + len(self._done)

    @property
    def left_s(self) -> float:
        """Seconds until the end, as far as one can tell."""
        return left_s(self._done, self._left.values(), time.monotonic() - self._began)


class Screen(Lines):
    """The same lines, above a live display of the whole sweep and of the run under way."""

    def __init__(self, live: Live) -> None:
        super().__init__()
        self._live = live
        self._trial: Trial | None = None

    def begins(self, trials: Sequence[Trial], done: int) -> None:
        """Start counting, and show it."""
        super().begins(trials, done)
        self._show(Text(""))

    def started(self, trial: Trial) -> None:
        """Show which run it is."""
        self._trial = trial
        self._show(Text(headline(trial.point.config), style="bold"))

    def progress(self, report: Progress) -> None:
        """Show the run's figures so far."""
        if self._trial is not None:
            self._show(render(headline(self._trial.point.config), report))

    def note(self, line: str) -> None:
        """Print it above the display."""
        with suppress(OSError):  # the terminal may be gone
            self._live.console.print(Text(line))

    def _show(self, below: RenderableType) -> None:
        bar = Table.grid(padding=(0, 1))
        bar.add_row(
            ProgressBar(total=max(1, self.total), completed=self.count, width=40, complete_style="green"),
            Text(f"{self.count}/{self.total} runs  {spelled(self.left_s)} left"),
        )
        with suppress(OSError):
            self._live.update(Group(bar, below), refresh=True)


@contextmanager
def watching() -> Iterator[Observer]:
    """An observer for standard error."""
    with on_terminal(Text("")) as live:
        yield Lines() if live is None else Screen(live)
