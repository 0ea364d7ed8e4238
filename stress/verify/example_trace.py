"""The changes of the tables in a schedule, as the trace of a run has them, for a checker that knows whole tables.

The toy's tables have few entries; those of the trace have as many as the granule holds. What is in them stays where it
is, from the first entry on, and the root is one page.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from stress.arch.geometry import KIB, LAST_LEVEL
from stress.bugs import MISSING_DSB
from stress.errors import UsageError
from stress.kernels.descriptor import first_frame, is_leaf, is_table, next_page, pages_at
from stress.orders import Order
from stress.results.data import TRACED_FAULT, TRACED_REBUILD, TableShape, TraceData
from stress.shm import words
from stress.shm.layout import Geo
from stress.shm.traced import TRACE_WORDS, Traced
from stress.verify.hooks import Hooks
from stress.verify.replay import follow
from stress.verify.scene import Scene
from stress.verify.verification import Counterexample

_ROWS: Final = 1 << 12
_SHIFT, _BITS = 12, 9  # what checkers know: pages of 4 KiB


def trace_of(hooks: Hooks, order: Order, example: Counterexample) -> TraceData:
    """Play a counterexample, with pages of 4 KiB, and trace it. Raises `UsageError`."""
    if example.bounds.shared:
        raise UsageError(
            "--trace: checkers know one owner of the table, and a shared mmu_lock has many", "use --locking exclusive"
        )
    bounds = replace(example.bounds, granule=4 * KIB)
    plain = Scene(hooks, order, bounds, example.guess)
    stops = [plain.world.about(at) for at in example.stops]
    scene = Scene(hooks, order, bounds, example.guess, _ROWS)
    first = {name: at for at, name, _ in scene.world.names}
    base = {name: at for at, name, _ in plain.world.names}
    for at, (name, _) in zip(example.stops, stops, strict=True):
        scene.world.visible.add(at - base[name] + first[name])
    follow(scene, example.choices)
    rows = []
    for row in range(_ROWS):
        kind, who, at, value = (int(scene.s.trace[row, word]) for word in range(TRACE_WORDS))
        if kind == 0:
            break
        rows.append((kind, who, *_whole(scene.s.geo, Traced(kind), at, value)))
    changes = np.array(rows, np.int64).reshape(-1, TRACE_WORDS)
    geo = scene.s.geo
    return TraceData(
        orders=(order,),
        exit_ns=0,
        guest_ns=[0] * geo.hypervisor,
        end_ns=0,
        rebuilds=np.zeros(0, TRACED_REBUILD),
        faults=np.zeros(0, TRACED_FAULT),
        shape=TableShape(_SHIFT, _BITS, geo.start_level, 1, geo.table_pages, words.TABLES_PA),
        changes=changes,
        waits=geo.inject & MISSING_DSB == 0,
        slowed=True,
    )


def _whole(geo: Geo, kind: Traced, at: int, value: int) -> tuple[int, int]:
    """A row's place and value where tables are whole."""
    if kind in (Traced.FILL, Traced.SET, Traced.SWAP, Traced.BREAK):
        return _index(geo, at), _descriptor(geo, at, value)
    if kind in (Traced.ALLOCATE, Traced.FREE, Traced.DETACH):
        return _page(geo, at), value
    if kind in (Traced.TLBI_ENTRY, Traced.TLBI_RANGE):
        return _spread(geo, at), _spread(geo, (value & words.TLBI_FRAMES) - 1) + 1
    return at, value


def _page(geo: Geo, page: int) -> int:
    return max(page - geo.root_pages + 1, 0)


def _index(geo: Geo, index: int) -> int:
    page, slot = index >> geo.index_bits, index & (1 << geo.index_bits) - 1
    return index if page < geo.root_pages else _page(geo, page) << _BITS | slot


def _spread(geo: Geo, number: int) -> int:
    """A frame's number where a block has as many pages as a table has entries."""
    return number >> geo.index_bits << _BITS | number & (1 << geo.index_bits) - 1


def _descriptor(geo: Geo, index: int, value: int) -> int:
    level = geo.start_level if index >> geo.index_bits < geo.root_pages else LAST_LEVEL
    if is_table(value, level):
        page = next_page(geo, value)
        return int(value + (_page(geo, page) - page << _SHIFT))
    if is_leaf(value, level):
        frame = first_frame(geo, value, level)
        assert frame & pages_at(geo, level) - 1 == 0
        return int(value + (_spread(geo, frame) - frame << _SHIFT))
    return value
