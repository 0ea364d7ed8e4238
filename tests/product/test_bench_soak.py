"""The shipped suite, proved both ways on this machine (make soak): unchanged code does not fire, slower code does."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import stress

pytestmark = [pytest.mark.soak, pytest.mark.timeout(3600)]

RUNS = int(os.environ.get("STRESS_BENCH_RUNS", "10"))
CHECKOUT = Path(stress.__file__).resolve().parent.parent

#: A tear-down that takes and drops another reference for each eighth entry: file, what it says, what it is to say.
SLOWER = (
    "stress/kernels/teardown.py",
    "            put_page(s, page)\n    return 1 if free_table",
    "            put_page(s, page)\n"
    "        if index & 7 == 0:\n"
    "            fetch_add(s.page_count, page, 1)\n"
    "            fetch_add(s.page_count, page, -1)\n"
    "    return 1 if free_table",
)


def bench(checkout: Path, *arguments: str) -> tuple[int, str]:
    """Exit code and output of ``stress bench`` in a checkout."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(checkout), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-m", "stress", "bench", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=checkout, env=environment, check=False)
    return done.returncode, done.stdout + done.stderr


def test_runs_of_unchanged_code_do_not_fire(tmp_path: Path) -> None:
    baseline = str(tmp_path / "baseline.json")
    code, out = bench(CHECKOUT, "--save-baseline", baseline)
    assert code == 0, out
    for _ in range(RUNS):
        code, out = bench(CHECKOUT, "--baseline", baseline)
        assert code == 0, out


def test_a_slower_kernel_fires_in_the_contest_with_c_and_in_the_live_run(tmp_path: Path) -> None:
    slow = tmp_path / "slow"
    for name in ("stress", "benchmarks", "configs"):
        shutil.copytree(CHECKOUT / name, slow / name, ignore=shutil.ignore_patterns("__pycache__"))
    file, now, then = SLOWER
    source = (slow / file).read_text()
    assert source.count(now) == 1
    (slow / file).write_text(source.replace(now, then))
    baseline = str(tmp_path / "baseline.json")
    assert bench(CHECKOUT, "--save-baseline", baseline)[0] == 0
    code, out = bench(slow, "--baseline", baseline, "--only", "unmap", "--only", "32m")
    assert code == 1, out
    for figure in ("unmap: unmap, 1 GiB of 4 KiB pages", "32m: unmap of unmap-first", "32m: unmap of block-first"):
        assert f"REGRESSION {figure}: " in out
