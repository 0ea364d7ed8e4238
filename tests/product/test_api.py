"""The Python API with real runs: in a script without a guard, in a thread, twice, interrupted."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from live import PATIENCE_S, segments_of

import stress
from stress import Result, RunInterrupted, compare, load, run
from stress.errors import UsageError
from stress.live.server import kill, pid

TINY: dict[str, Any] = {"vcpus": 1, "block_size": "2M", "blocks": 2, "dwell": "1ms", "pin": False}


def workers() -> list[psutil.Process]:
    """vCPUs and hypervisors under this process's servers."""
    return [each for child in psutil.Process().children() for each in child.children()]


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    yield
    assert segments_of(os.getpid()) == []
    assert workers() == []


@pytest.fixture(scope="module")
def compared() -> Result:
    return compare("unmap-first", "block-first", duration="400ms", seed=np.int64(7), **TINY)


def test_a_comparison(compared: Result, tmp_path: Path) -> None:
    assert compared.verdict == "correct"
    assert compared.violations == ()
    assert compared.seed == 7
    assert all(order.rebuilds > 5 and order.window_ns.p50 for order in compared.orders.values())
    window = compared.comparison[0].ratios["window"]
    assert window.ratio is not None
    compared.save(tmp_path / "result.json")
    again = load(tmp_path / "result.json")
    assert isinstance(again, Result)
    assert again.document == compared.document


def test_a_violation_is_a_result() -> None:
    result = run("invalidate,unmap,tlbi,clean,install", duration="20s", fail_fast=True, **TINY)
    assert (result.verdict, result.exit_code) == ("violations", 1)
    assert {found.kind for found in result.violations} == {"table-use-after-free"}


def test_options_override_the_file(tmp_path: Path) -> None:
    config = tmp_path / "run.toml"
    config.write_text('[run]\norder = "unmap-first"\nduration = "1h"\nseed = 3\n')
    result = run(config=config, rebuilds=5, duration="10s", **TINY)
    assert list(result.orders) == ["unmap-first"]
    assert result.order.rebuilds == 5
    assert result.seed == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"block_sise": "2M"}, r"^block_sise: unknown key; did you mean block_size\?$"),
        ({"vcpus": 0, "duration": 3}, r"2 problems: vcpus: .* \| duration: .*unit"),
        ({"order": "nonsense"}, "^order: .*nonsense"),
        ({"config": "missing.toml"}, "cannot read missing.toml"),
        ({"populated": float("nan")}, "^populated: must be a finite number"),
        ({"duration": np.float64("nan")}, "^duration: "),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        run(**options)


def test_one_order_is_no_comparison() -> None:
    with pytest.raises(UsageError, match="only block-first"):
        compare("block-first")


def test_a_run_in_a_thread_excludes_others() -> None:
    started = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(run, rebuilds=20, progress=lambda now: started.set(), **(TINY | {"dwell": "10ms"}))
        assert started.wait(60)
        with pytest.raises(UsageError, match="another run of this process is under way"):
            run(**TINY)
        assert other.result(PATIENCE_S).order.rebuilds == 20


def when_running(action: Any) -> Any:
    """A progress function that acts once, as soon as there is something measured."""
    done: list[int] = []

    def look(now: Any) -> None:
        if now.rebuilds > 5 and not done:
            done.append(1)
            action()

    return look


def test_ctrl_c_carries_the_partial_result() -> None:
    interrupt = when_running(lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt) as raised:
        run(duration="1h", progress=interrupt, **TINY)
    assert isinstance(raised.value, RunInterrupted)
    result = raised.value.result
    assert isinstance(result, Result)
    assert result.verdict == "interrupted"
    assert result.order.rebuilds > 5
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(run, rebuilds=5, **TINY).result(PATIENCE_S).complete, (
            "the interrupt was about the run before"
        )


def test_sigterm_reaches_the_callers_handler_after_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: seen.append(segments_of(os.getpid())))
    try:
        with pytest.raises(RunInterrupted):
            run(duration="1h", progress=when_running(lambda: os.kill(os.getpid(), signal.SIGTERM)), **TINY)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert seen == [[]], "once, with the segment gone"


@pytest.mark.parametrize("error", [ZeroDivisionError(), OSError(errno.ENOSPC, "no room"), EOFError("over")])
def test_an_exception_in_progress_ends_the_run(error: Exception) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(type(error)) as raised:
        run(duration="1h", progress=when_running(fail), **TINY)
    assert raised.value is error
    assert segments_of(os.getpid()) == []


def test_a_run_outlives_the_thread_that_started_the_forkserver() -> None:
    """The kernel would end the server with its parent, which is a thread."""
    kill()  # the one that earlier tests left
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(run, rebuilds=3, **TINY).result(PATIENCE_S).complete
    before = pid()
    assert before is not None
    assert run(rebuilds=3, **TINY).complete
    assert pid() == before, "another one was started"


RUNS = f"""
import sys
import stress
assert "pydantic" not in sys.modules
from stress import run
assert "numba" not in sys.modules
print("main")
for _ in range(2):
    print(run(rebuilds=3, **{TINY!r}).verdict)
"""

FORKSERVER = """
import multiprocessing, signal
with multiprocessing.get_context("forkserver").Pool(1) as pool:
    print(pool.apply(signal.pthread_sigmask, (signal.SIG_BLOCK, ())))
    print(pool.apply(eval, ("'stress' in __import__('sys').modules",)))
"""


def output(*arguments: str) -> list[str]:
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_script_without_a_guard_is_not_imported_again(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(RUNS)
    assert output(str(script)) == ["main", "correct", "correct"]


def test_the_callers_own_forkserver_is_as_without_us() -> None:
    assert output("-c", RUNS + FORKSERVER) == ["main", "correct", "correct", "set()", "False"]


FORK = f"""
import multiprocessing
from stress import run
def verdict(queue):
    queue.put(run(rebuilds=3, **{TINY!r}).verdict)
verdict(queue := multiprocessing.SimpleQueue())
print(queue.get())
context = multiprocessing.get_context("fork")
child = context.Process(target=verdict, args=(queue,))
child.start()
child.join(100)
print(child.exitcode, queue.get() if child.exitcode == 0 else None)
verdict(queue)
print(queue.get())
"""


def test_a_process_forked_after_a_run_has_a_server_of_its_own() -> None:
    assert output("-c", FORK) == ["correct", "0 correct", "correct"]


def test_the_documentation_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every example of docs/api.md, in one go; only the durations are cut short."""
    text = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
    code = "\n".join(re.findall(r"^```python\n(.*?)^```", text, re.M | re.S))
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(re.sub(r'"[235]s"', '"300ms"', code), "docs/api.md", "exec"), names)
    assert {result.verdict for result in (names["both"], names["result"])} == {"correct"}
    assert len(names["records"]) == 3
    assert len(names["frame"]) == 4
    assert all(f"`{name}`" in text or re.search(rf"\b{name}\b", code) or name == "Result" for name in stress.__all__)
