"""Compiles every kernel that is called from Python, or loads it from the cache."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import typeof

from stress.arch.geometry import MIB, Geometry
from stress.kernels import audit, dirty, notifier, rebuild, records, recover, split, teardown, vcpu
from stress.kernels.tlb import new_cpu
from stress.kernels.workload import Workload
from stress.shm import cache, layout
from stress.shm.mode import JIT_DISABLED


def _sample_machine() -> layout.Machine:
    geometry = Geometry(4096)
    geo = layout.geo_for(geometry, block_size=2 * MIB, blocks=1, vcpus=1, fwb=True, guest_caches=True)
    return layout.carve(bytearray(layout.segment_bytes(geo, 1)), geo, 1)


def _compile(everything: bool, vcpu_loop: bool) -> None:
    """Compile or load every entry point, or the vCPU loop, or the others; nothing to do without the JIT."""
    if JIT_DISABLED:
        return
    s = _sample_machine()
    words = np.zeros(1, np.int64)
    workload = Workload(0, 0, 0, 0.0, 0, 0)
    entry_points: list[tuple[Any, tuple[Any, ...]]] = [
        (vcpu.run, (s, new_cpu(), workload, 0, 0)),
        (vcpu.await_stage, (s, 0, 0, 0)),
        (vcpu.await_beginning, (s, 0)),
        (split.split, (s, 0, 0, 0, 0, 0)),
        (split.split_eagerly, (s, 0, 0, 0)),
        (split.populate, (s, 0, 0)),
        (split.is_split, (s, 0)),
        (split.write_unmapped, (s, 0, 0)),
        (rebuild.rebuild, (s, 0, 0)),
        (recover.recover, (s, 0, 0, 0)),
        (records.settled, (s, 0)),
        (records.open_cycle, (s, 0)),
        (records.close_records, (s, 0)),
        (records.close_cycle, (s, 0, 0, 0, 0)),
        (teardown.reap, (s, 0)),
        (audit.audit, (s, 0, words, words)),
        (dirty.set_logging, (s, 0, 0)),
        (dirty.stop_logging_at, (s, 0, 0, 0)),
        (dirty.harvest, (s, 0, words)),
        (dirty.clear_log, (s, 0, words, 0, 0, 0)),
        (dirty.send, (s, words)),
        (dirty.send_all, (s, 0, 0)),
        (dirty.compare_copy, (s, 0)),
        (notifier.invalidate_start, (s, 0, 0, 0, 0)),
        (notifier.invalidate_end, (s, 0, 0, 0, 0, 0, 0)),
        (notifier.move_frames, (s, 0, 0, 0, 0, 0)),
        (notifier.move_memslots, (s, 0, 0)),
        (notifier.unmap_memslots, (s, 0)),
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
