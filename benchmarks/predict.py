"""Predictions: from the prompt to the table, a long one with its memory, and how fast events are played."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np

from benchmarks.figure import Figure
from stress.config import from_sources
from stress.errors import RunBroken
from stress.predict import predict

PROMPT_LIMIT_S = 1.0
LONG_LIMIT_S = 60.0
MEMORY_LIMIT_MIB = 500.0
EVENTS_PER_S = 3e6
_RUNS = 5

# The question of the README, and 50 million faults of 48 vCPUs on memory of their own.
_SELFTEST = ("predict", "--platform=kunpeng920", "-v40", "-b20G", "-s", "anonymous_hugetlb_1gb")
_SHORT = ("predict", "block-first", "--scenario=dirty-log-perf", "--platform=kunpeng920", "-v48", "-b4M", "-i1")
_LONG = (*_SHORT, "-b4G")
_PAGES = ("-s", "anonymous", "--locking=shared")
# Under a shared mmu_lock vCPUs that want the same pages never fall into step: all is played.
_PLAYED = {"scenario": "kvm-page-table-test", "platform": "kunpeng920", "backing": "hugetlb-2m", "memory": "256M"}


#: Linux counts the memory of whoever starts a process as that process's, too (``exec_mmap``), so a small one starts it.
_WATCHER = """
import resource, subprocess, sys, time
start = time.monotonic()
status = subprocess.run([sys.executable, "-m", "stress", *sys.argv[1:]], stdout=subprocess.DEVNULL).returncode
print(time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)
sys.exit(status)
"""


def _cost(*arguments: str) -> tuple[float, float]:
    """Seconds of a command, and MiB of its process."""
    done = subprocess.run([sys.executable, "-c", _WATCHER, *arguments], capture_output=True, text=True)
    if done.returncode != 0:
        raise RunBroken(f"stress {' '.join(arguments)}: {done.stderr.strip()}", "try it by hand")
    seconds, mib = map(float, done.stdout.split())
    return seconds, mib


def figures(rounds: int) -> Iterator[Figure]:
    """Seconds of whole commands, MiB of the largest, and events per second of processor time."""
    config = from_sources(None, _PLAYED | {"vcpus": 16, "locking": "shared", "orders": ["block-first"]})
    rates = []
    for _ in range(_RUNS):  # the first may compile
        start = time.process_time()
        played = int(predict(config).extra["events_played"])
        rates.append(played / (time.process_time() - start))
    rate = float(np.median(rates[1:]))
    yield Figure(
        "predict: events per second", f"{rate / 1e6:.1f} M", f"{EVENTS_PER_S / 1e6:g} M", rate / EVENTS_PER_S, None, 1
    )
    prompt = [_cost(*_SELFTEST)[0] for _ in range(_RUNS)]
    yield Figure.of_limit("predict: 40 vCPUs, 20 GiB, prompt to table", prompt, PROMPT_LIMIT_S, "s")
    _cost(*_SHORT, *_PAGES)  # it may compile: the memory of that is not a prediction's
    seconds, mib = _cost(*_LONG, *_PAGES)
    yield Figure.of_limit("predict: 48 vCPUs, 150 million faults", [seconds], LONG_LIMIT_S, "s")
    yield Figure.of_limit("predict: memory of that", [mib], MEMORY_LIMIT_MIB, "MiB")
