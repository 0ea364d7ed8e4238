"""What a person sees while a run goes on."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
from contextlib import suppress
from typing import Any

import pytest
from commands import FakeProgress
from rich.console import Console

from stress.cli.progress import display, fraction_done, headline, render
from stress.config import Backing, RunConfig, Scenario
from stress.orders import NAMED_ORDERS, Step

#: Orders that have no name but their steps.
LONGEST = (
    (Step.INVALIDATE, Step.TLBI, Step.CLEAN_UNMAPPED, Step.INSTALL, Step.UNMAP_DEFERRED),
    (Step.CLEAN, Step.CLEAN_UNMAPPED, Step.INVALIDATE, Step.TLBI, Step.INSTALL, Step.UNLOCK, Step.UNMAP),
)


@pytest.mark.parametrize(
    ("changes", "fraction"),
    [
        ({}, 0.8),
        ({"rebuilds_target": None}, 0.25),
        ({"duration_ns": None, "rebuilds_target": None}, 0.0),
        ({"elapsed_ns": 11_000_000_000}, 1.0),
    ],
)
def test_the_nearer_limit_says_how_far_the_run_is(changes: dict[str, Any], fraction: float) -> None:
    progress: Any = FakeProgress(**changes)
    assert fraction_done(progress) == fraction


def test_headline() -> None:
    config = RunConfig(orders=("unmap-first", "block-first"), vcpus=1, rebuilds=7)
    assert headline(config) == "unmap-first against block-first, 1 vCPU, 4 blocks of 1G (4K granule), 7 rebuilds"
    config = RunConfig(vcpus=2, blocks=1, rebuilds=7, duration_ns=10**9)
    assert headline(config) == "block-first, 2 vCPUs, 1 block of 1G (4K granule), 1s or 7 rebuilds"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {"scenario": Scenario.PAGE_TABLE_TEST, "blocks": 20, "passes": 1},
            "kvm-page-table-test: block-first, 1 vCPU, 20 blocks of 1G (4K granule), one pass",
        ),
        (
            {"scenario": Scenario.MIGRATION, "memory": 4608 << 20, "inject": "no-break"},
            "migration: block-first, 1 vCPU, 4608M in blocks of 1G (4K granule), bug no-break, 10s",
        ),
        (
            {
                "scenario": Scenario.DIRTY_LOG_PERF,
                "backing": Backing.ANONYMOUS,
                "memory": 3 << 20,
                "duration_ns": 10**9,
            },
            "dirty-log-perf: block-first, 1 vCPU, 3M of pages (4K granule), 1s",
        ),
    ],
)
def test_headline_of_other_scenarios(changes: dict[str, Any], text: str) -> None:
    assert headline(RunConfig(vcpus=1, **changes)) == text


def drawn(p50_ns: dict[str, float | None], width: int) -> list[str]:
    """The lines of the live display, on a terminal of this width."""
    console = Console(file=io.StringIO(), width=width, height=24, color_system=None, _environ={})
    config = RunConfig(orders=tuple(p50_ns), vcpus=2, bbm_level=2)
    faults = dict.fromkeys(("window", "spurious", "population", "permission", "rebuild"), 123_456) | {"retry": 0}
    report: Any = FakeProgress(window_p50_ns=p50_ns, faults=faults)
    with console.capture() as found:
        console.print(render(headline(config), report))
    return found.get().splitlines()


@pytest.mark.parametrize("width", [80, 120])
def test_every_order_has_its_own_window(width: int) -> None:
    lines = drawn({"unmap-first": 983_000.0, "block-first": 10_000.0, "clean-first": None}, width)
    assert [line.split() for line in lines[-3:]] == [
        ["window", "p50", "unmap-first", "983", "us"],
        ["block-first", "10.0", "us"],
        ["clean-first", "-"],
    ]
    assert ["window", "p50", "0", "ns"] in [line.split() for line in drawn({"bbml2": 0.0}, width)]


@pytest.mark.parametrize("width", [80, 120])
def test_eleven_orders_fit_a_terminal(width: int) -> None:
    names = [*NAMED_ORDERS, *(",".join(map(str, steps)) for steps in LONGEST)]
    assert len(names) == 11
    lines = drawn({name: 1000.0 * place for place, name in enumerate(names, 1)}, width)
    assert len(lines) < 24  # with the line of a sweep above
    assert max(map(len, lines)) <= width
    for line, name in zip(lines[-11:], names, strict=True):
        assert f"{name}  " in line
    assert "retry" not in "".join(lines)


def shown(violations: int) -> str:
    """What a terminal is sent for one progress report and one note."""
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=100, color_system=None, _environ={})
    with display(RunConfig(vcpus=1), console) as (progress, note):
        assert progress is not None
        note("compiling [bold] kernels")
        report: Any = FakeProgress(violations=violations)
        progress(report)
    return stream.getvalue()


def test_a_terminal_sees_the_figures() -> None:
    text = shown(0)
    for words in (
        "block-first, 1 vCPU",
        "compiling [bold] kernels",
        "31.2 us",
        "390 M/s",
        "window 12",
        "violations 0",
    ):
        assert words in text
    assert "violations 3" in shown(3)


def test_a_dumb_terminal_gets_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, _environ={"TERM": "dumb"})
    with display(RunConfig(vcpus=1), console) as (progress, note):
        assert progress is None
        note("compiling kernels")
    assert capsys.readouterr().err.splitlines()[1:] == ["stress: compiling kernels"]


def on_a_terminal(*arguments: str, term: str) -> str:
    """What the real command writes to its terminal (standard error)."""
    master, terminal = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "stress", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=terminal,
        env=os.environ | {"TERM": term},
    ):
        os.close(terminal)
        written = b""
        with suppress(OSError), os.fdopen(master, "rb", buffering=0) as screen:  # EIO: nobody has it open any more
            while more := screen.read(1 << 16):
                written += more
    return written.decode()


@pytest.mark.parametrize("command", ["run", "compare"])
def test_a_terminal_is_not_blank_while_the_command_loads(command: str) -> None:
    """The first line is there before the options are read, and what is said next takes its place."""
    written = on_a_terminal(command, "--granule", "5K", term="xterm")
    assert written.startswith("stress: starting\r\x1b[Kstress: ")
    assert written.count("\n") == written.count("stress: ") - 1


def test_it_has_no_escape_codes_where_they_mean_nothing() -> None:
    written = on_a_terminal("run", "--granule", "5K", term="dumb")
    assert written.startswith("stress: ")
    assert "\x1b" not in written
    assert "starting" not in written
