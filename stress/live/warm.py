"""Compiles every kernel that is called from Python, or loads it from the cache."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import typeof

from stress.arch.geometry import MIB, Geometry
from stress.errors import RunBroken
from stress.kernels import (
    audit,
    dirty,
    drain,
    notifier,
    pattern,
    rebuild,
    records,
    split,
    teardown,
    vcpu,
)
from stress.kernels.tlb import new_cpu
from stress.shm import cache, layout
from stress.shm.atomics import JIT_DISABLED


def _sample_machine() -> layout.Machine:
    geometry = Geometry(4096)
    geo = layout.geo_for(
        geometry, block_size=2 * MIB, blocks=1, vcpus=1, leaf_attributes=0, fwb=True, guest_caches=True
    )
    return layout.carve(bytearray(layout.segment_bytes(geo, 1)), geo, 1)


def _compile(everything: bool, vcpu_loop: bool) -> None:
    """Compile or load every entry point, or the vCPU loop, or the others; nothing to do without the JIT."""
    if JIT_DISABLED:
        return
    s = _sample_machine()
    words = np.zeros(1, np.int64)
    rows = np.zeros((1, 1), np.int64)
    workload = pattern.Workload(0, 0, 0, 0.0, 0, 0)
    entry_points: list[tuple[Any, tuple[Any, ...]]] = [
        (vcpu.run, (s, new_cpu(), workload, 0, 0)),
        (vcpu.await_stage, (s, 0, 0, 0)),
        (split.split, (s, 0, 0, 0, 0, 0)),
        (split.populate, (s, 0, 0)),
        (split.is_split, (s, 0)),
        (split.write_unmapped, (s, 0, 0)),
        (rebuild.rebuild, (s, 0, 0)),
        (records.settled, (s, 0)),
        (records.open_cycle, (s, 0)),
        (records.close_records, (s, 0)),
        (records.close_cycle, (s, 0, 0, 0, 0)),
        (teardown.reap, (s, 0)),
        (audit.audit, (s, 0, words, words)),
        (dirty.set_logging, (s, 0, 0)),
        (dirty.stop_logging_at, (s, 0, 0, 0)),
        (dirty.harvest, (s, 0, words)),
        (dirty.send, (s, words)),
        (dirty.send_all, (s, 0, 0)),
        (dirty.compare_copy, (s, 0)),
        (notifier.invalidate_start, (s, 0, 0, 0, 0)),
        (notifier.invalidate_end, (s, 0, 0, 0, 0, 0, 0)),
        (notifier.move_frames, (s, 0, 0, 0, 0, 0)),
        (notifier.move_memslots, (s, 0, 0)),
        (notifier.unmap_memslots, (s, 0)),
        (drain.drain_events, (s, 0, rows)),
        (drain.copy_record, (s, 0, words)),
        (drain.copy_cycle, (s, 0, words)),
    ]
    for function, arguments in entry_points:
        if not everything and vcpu_loop != (function is vcpu.run):
            continue
        function.compile(tuple(typeof(argument) for argument in arguments))  # type: ignore[no-untyped-call]


def compile_all() -> None:
    """Compile or load every entry point; nothing to do with ``NUMBA_DISABLE_JIT=1``."""
    _compile(True, True)
    if not JIT_DISABLED:  # else a later run would compile without a word
        cache.mark_complete()


def compile_vcpu_loop() -> None:
    """Compile what takes as long as all the rest: the vCPU loop with its fault handler."""
    _compile(False, True)


def compile_others() -> None:
    """Compile every entry point but the vCPU loop."""
    _compile(False, False)


def compile_in_background(interrupted: threading.Event) -> bool:
    """Fill the cache in two processes, which an interrupt can end at any time; False if it did.

    Raises RunBroken if the kernels do not compile.
    """
    halves = [_compiler(part) for part in (compile_vcpu_loop, compile_others)]
    try:
        for half in halves:
            if not _finished(half, interrupted):
                return False
    finally:
        for half in halves:
            half.kill()
            half.communicate()
    cache.mark_complete()
    return True


def _compiler(part: Callable[[], None]) -> subprocess.Popen[str]:
    """A process that runs one of the functions above."""
    code = f"from stress.live.warm import {part.__name__} as part; part()"
    return subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, start_new_session=True)


def _finished(compiler: subprocess.Popen[str], interrupted: threading.Event) -> bool:
    """Wait for one half; False if an interrupt came first. Raises RunBroken if it failed."""
    while not interrupted.is_set():
        try:
            _, errors = compiler.communicate(timeout=0.1)
        except subprocess.TimeoutExpired:
            continue
        if compiler.returncode != 0:
            last = errors.strip().splitlines()[-1] if errors.strip() else f"exit code {compiler.returncode}"
            raise RunBroken(f"kernels do not compile: {last}", "run `stress clean` and try again")
        return True
    return False
