"""Compiles every kernel that is called from Python, or loads it from the cache."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import typeof

from stress.arch.geometry import MIB, Geometry
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
        function.compile(tuple(typeof(argument) for argument in arguments))
    cache.mark_complete()
