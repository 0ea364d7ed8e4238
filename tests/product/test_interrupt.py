"""Which signals interrupt: not those that were ignored when the process started (nohup, shells without job control)."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from live import live_run

_SHOW = """
import signal
from stress import interrupt
interrupt.install()
with interrupt.caught() as flag:
    print(*(number.name for number in interrupt.SIGNALS if signal.getsignal(number) is signal.SIG_IGN))
    signal.raise_signal(signal.SIGHUP)
    print(flag.is_set())
"""


@contextmanager
def ignored(*numbers: signal.Signals) -> Iterator[None]:
    """What starts meanwhile inherits that these signals are ignored."""
    previous = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def shown() -> list[str]:
    return subprocess.run([sys.executable, "-c", _SHOW], check=True, capture_output=True, text=True).stdout.split("\n")


def test_what_was_ignored_stays_ignored() -> None:
    with ignored(signal.SIGHUP):
        assert shown()[:2] == ["SIGHUP", "False"]
    assert shown()[:2] == ["", "True"]


@pytest.mark.alone
@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT])
def test_a_run_in_the_background_survives_its_terminal(number: signal.Signals) -> None:
    with ignored(number), live_run("run", "--rebuilds", "20", "--dwell", "20ms", "--block-size", "2M") as run:
        run.wait_for_workers(2)
        run.process.send_signal(number)
        code, out, err, _ = run.finish(60)
    assert code == 0, err
    assert "20 rebuilds" in out
