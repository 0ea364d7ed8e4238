"""Compiles every kernel that is called from Python, or loads it from the cache."""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import Any

import numpy as np
from numba import typeof

from stress.arch.geometry import MIB, Geometry
from stress.errors import RunBroken
from stress.kernels import audit, drain, pattern, rebuild, split, vcpu
from stress.kernels.tlb import new_cpu
from stress.shm import cache, layout
from stress.shm.atomics import JIT_DISABLED


def _sample_machine() -> layout.Machine:
    geometry = Geometry(4096)
    geo = layout.geo_for(
        geometry, block_size=2 * MIB, blocks=1, vcpus=1, leaf_attributes=0, fwb=True, guest_caches=True
    )
    return layout.carve(bytearray(layout.segment_bytes(geo, 1)), geo, 1)


def compile_all() -> None:
    """Compile or load every entry point; nothing to do with ``NUMBA_DISABLE_JIT=1``."""
    if JIT_DISABLED:
        return
    s = _sample_machine()
    words = np.zeros(1, np.int64)
    rows = np.zeros((1, 1), np.int64)
    workload = pattern.Workload(0, 0, 0, 0.0, 0, 0)
    entry_points: list[tuple[Any, tuple[Any, ...]]] = [
        (vcpu.run, (s, new_cpu(), workload, 0, 0)),
        (split.split, (s, 0, 0, 0)),
        (split.write_unmapped, (s, 0, 0)),
        (rebuild.rebuild, (s, 0, 0, words, 0, 0)),
        (rebuild.complete, (s, 0, 0, 0, 0, 0, 0)),
        (audit.audit, (s, 0, words)),
        (drain.drain_events, (s, 0, rows)),
        (drain.copy_record, (s, 0, words)),
    ]
    for function, arguments in entry_points:
        function.compile(tuple(typeof(argument) for argument in arguments))  # type: ignore[no-untyped-call]
    cache.mark_complete()


def compile_in_background(interrupted: threading.Event) -> bool:
    """Fill the cache in a process of its own, which an interrupt can end at any time; False if it did.

    Raises RunBroken if the kernels do not compile.
    """
    command = [sys.executable, "-c", "from stress.run.warm import compile_all; compile_all()"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as compiler:
        while not interrupted.is_set():
            try:
                _, errors = compiler.communicate(timeout=0.1)
            except subprocess.TimeoutExpired:
                continue
            if compiler.returncode != 0:
                last = errors.strip().splitlines()[-1] if errors.strip() else f"exit code {compiler.returncode}"
                raise RunBroken(f"kernels do not compile: {last}", "run `stress clean` and try again")
            return True
        compiler.kill()
    return False
