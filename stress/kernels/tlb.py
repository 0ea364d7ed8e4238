"""A vCPU's software TLB: set-associative, one array per page size, with permission bits; and its walk cache.

Private to the vCPU's process. Entry: key = guest frame >> the level's bits, value = first frame << 2 | permissions.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from stress.arch.geometry import LAST_LEVEL
from stress.shm.atomics import load, store
from stress.shm.jit import inline, kernel
from stress.shm.layout import (
    Machine,
)
from stress.shm.mode import JIT_DISABLED
from stress.shm.placement import out_of_line, unlikely
from stress.shm.words import (
    LINE,
    SEQUENCE,
    TLBI_END,
    TLBI_FRAMES,
    TLBI_HINT,
    TLBI_LOCAL,
    TLBI_NUMBER,
    TLBI_START,
)

SETS, WAYS = 64, 4
PER_LEVEL = SETS * WAYS
CACHED = 64  # walk-cache slots per level, direct mapped
LEVELS = LAST_LEVEL + 1
EMPTY = -1  # key of a free slot
MISS = 0  # a translation without permissions
CHUNK = 128  # accesses drawn at a time

# Cpu.registers
CPU_SEEN = 0  # number of the newest TLBI applied
CPU_PAGE = 1  # page of the last access; in a program the position of the next
CPU_RANDOM = 2
CPU_LEFT = 3  # accesses left in a stage; negative: no end
CPU_NUMBER = 4  # of the vCPU


class Cpu(NamedTuple):
    """One vCPU's private state."""

    key: npt.NDArray[np.int64]  # (LEVELS * PER_LEVEL,)
    value: npt.NDArray[np.int64]  # (LEVELS * PER_LEVEL,)
    turn: npt.NDArray[np.int64]  # (LEVELS * SETS,) way that is replaced next
    live: npt.NDArray[np.int64]  # (LEVELS,) entries held per size: a size that has none is not looked up
    walk_key: npt.NDArray[np.int64]  # (LEVELS * CACHED,)
    walk_page: npt.NDArray[np.int64]  # (LEVELS * CACHED,) table page that serves this level
    path: npt.NDArray[np.int64]  # (LEVELS,) table pages of the walk under way, not yet committed
    upcoming: npt.NDArray[np.int64]  # (CHUNK,) the chunk's accesses, page << 1 | write
    registers: npt.NDArray[np.int64]  # (16,) what survives between calls


_LENGTHS = {
    "key": LEVELS * PER_LEVEL,
    "value": LEVELS * PER_LEVEL,
    "turn": LEVELS * SETS,
    "live": LEVELS,
    "walk_key": LEVELS * CACHED,
    "walk_page": LEVELS * CACHED,
    "path": LEVELS,
    "upcoming": CHUNK,
    "registers": 16,
}

if not JIT_DISABLED:
    from stress.shm.record_type import register

    register(Cpu, _LENGTHS)


def new_cpu() -> Cpu:
    """An empty TLB and walk cache."""
    size = sum(_LENGTHS.values())
    words = np.zeros(size + LINE, np.int64)
    start = -(words.ctypes.data // 8) % LINE  # no set of the TLB straddles cache lines
    cpu = Cpu(*np.split(words[start : start + size], np.cumsum(list(_LENGTHS.values()))[:-1]))
    cpu.key[:] = EMPTY
    cpu.walk_key[:] = EMPTY
    cpu.registers[CPU_LEFT] = -1
    return cpu


@inline
def lookup_level(cpu: Cpu, level: int, bits: int, gfn: int) -> int:
    """Translation of ``gfn`` from the entries of one size, or MISS."""
    low = (LAST_LEVEL - level) * bits
    key = gfn >> low
    at = level * PER_LEVEL + (key & (SETS - 1)) * WAYS
    for way in range(WAYS):
        if unlikely(cpu.key[at + way] == key):  # any one way
            return cpu.value[at + way] + ((gfn & ((1 << low) - 1)) << 2)
    return MISS


@inline
def sizes_held(cpu: Cpu) -> int:
    """Bit per level of which the TLB holds entries: the others need no lookup."""
    return (cpu.live[1] != 0) << 1 | (cpu.live[2] != 0) << 2 | (cpu.live[3] != 0) << 3


@inline
def lookup(cpu: Cpu, bits: int, gfn: int, sizes: int) -> int:
    """Translation of ``gfn`` (frame << 2 | permissions), or MISS; ``sizes`` as ``sizes_held`` says."""
    translation = MISS
    if sizes & 1 << 3:
        translation = lookup_level(cpu, 3, bits, gfn)
    if translation == MISS and sizes & 1 << 2:
        translation = lookup_level(cpu, 2, bits, gfn)
    if translation == MISS and sizes & 1 << 1:
        translation = lookup_level(cpu, 1, bits, gfn)
    return translation


@inline
def fill(cpu: Cpu, level: int, bits: int, gfn: int, translation: int) -> None:
    """Enter the entry that gives ``gfn`` this translation, replacing round robin within the set."""
    level &= LAST_LEVEL  # as it is; but Numba then knows that no index below is negative
    low = (LAST_LEVEL - level) * bits
    key = gfn >> low
    group = level * SETS + (key & (SETS - 1))
    way = cpu.turn[group] & (WAYS - 1)
    cpu.turn[group] = (way + 1) & (WAYS - 1)
    at = group * WAYS + way
    if unlikely(cpu.key[at] == EMPTY):
        cpu.live[level] += 1
    cpu.key[at] = key
    cpu.value[at] = translation - ((gfn & ((1 << low) - 1)) << 2)


@kernel
def overlapping(cpu: Cpu, level: int, bits: int, gfn: int) -> int:
    """Level of a live entry of a smaller size inside the new entry's range, or -1.

    A larger one needs no search: it would have hit.
    """
    key = gfn >> ((LAST_LEVEL - level) * bits)
    for smaller in range(level + 1, LEVELS):
        if cpu.live[smaller] != 0:
            down = (smaller - level) * bits
            held = cpu.key[smaller * PER_LEVEL : (smaller + 1) * PER_LEVEL]
            found = 0
            for at in range(PER_LEVEL):  # no early exit, and no index that could be negative: this vectorises
                found |= held[at] >> down == key
            if found:
                return smaller
    return -1


@kernel
def flush_all(cpu: Cpu) -> None:
    """Forget every translation and every cached table pointer."""
    for level in range(LEVELS):
        if cpu.live[level] != 0:
            cpu.live[level] = 0
            for at in range(level * PER_LEVEL, (level + 1) * PER_LEVEL):
                cpu.key[at] = EMPTY
    for at in range(LEVELS * CACHED):
        cpu.walk_key[at] = EMPTY


@inline
def forget(keys: Any, start: int, sets: int, ways: int, first: int, last: int) -> int:
    """Empty the slots whose key is in [first, last], among ``sets`` sets of ``ways`` from ``start`` on; how many.

    A key can be in one set only, so the cost is that of the range, not of the cache. The store is atomic because
    compilers leave such stores alone: they turn a plain one into masked vector stores, which AMD's cores before Zen 4
    execute as microcode, several times slower than this loop.
    """
    forgotten = 0
    for key in range(first, min(last, first + sets - 1) + 1):
        group = start + (key & (sets - 1)) * ways
        for at in range(group, group + ways):
            if first <= keys[at] and keys[at] <= last:
                store(keys, at, EMPTY)
                forgotten += 1
    return forgotten


@kernel
def flush_page(cpu: Cpu, bits: int, gfn: int) -> None:
    """Forget what translates, or helps to walk to, one guest frame: one key per level, in one set each."""
    out_of_line()
    for level in range(1, LEVELS):
        key = gfn >> ((LAST_LEVEL - level) * bits)
        at = level * PER_LEVEL + (key & (SETS - 1)) * WAYS
        for way in range(WAYS):
            if cpu.key[at + way] == key:
                store(cpu.key, at + way, EMPTY)  # atomic, as in `forget`
                cpu.live[level] -= 1
        key >>= bits
        slot = level * CACHED + (key & (CACHED - 1))
        if cpu.walk_key[slot] == key:
            store(cpu.walk_key, slot, EMPTY)


@kernel
def evict_pointers(cpu: Cpu, bits: int, gfn: int) -> None:
    """Forget the table pointers that help to walk to one guest frame, as any walk cache may at any time."""
    for level in range(1, LEVELS):
        key = gfn >> ((LAST_LEVEL + 1 - level) * bits)
        slot = level * CACHED + (key & (CACHED - 1))
        if cpu.walk_key[slot] == key:
            store(cpu.walk_key, slot, EMPTY)


@kernel
def flush_leaves(cpu: Cpu, bits: int, level: int, start: int, end: int) -> None:
    """Forget what translates guest frames [start, end) by leaf entries of one level."""
    if cpu.live[level] != 0:
        low = (LAST_LEVEL - level) * bits
        cpu.live[level] -= forget(cpu.key, level * PER_LEVEL, SETS, WAYS, start >> low, (end - 1) >> low)


@kernel
def flush_range(cpu: Cpu, bits: int, start: int, end: int) -> None:
    """Forget what translates, or helps to walk to, guest frames [start, end)."""
    if end - start == 1:
        flush_page(cpu, bits, start)
        return
    for level in range(1, LEVELS):
        flush_leaves(cpu, bits, level, start, end)
        low = (LAST_LEVEL + 1 - level) * bits
        forget(cpu.walk_key, level * CACHED, CACHED, 1, start >> low, (end - 1) >> low)


@kernel
def flush_as_said(cpu: Cpu, bits: int, start: int, end: int) -> None:
    """Forget what a TLBI that is no plain one says: one of this vCPU alone, or of the leaf entries of one level."""
    out_of_line()
    frames, only, level = end & TLBI_FRAMES, (end & ((1 << TLBI_HINT) - 1)) >> TLBI_LOCAL, end >> TLBI_HINT
    if only != 0 and only != cpu.registers[CPU_NUMBER] + 1:
        return
    if level != 0:
        flush_leaves(cpu, bits, level, start, frames)
    else:
        flush_range(cpu, bits, start, frames)


@kernel
def catch_up(s: Machine, cpu: Cpu, seen: int) -> int:
    """Apply the invalidations published since number ``seen``; returns the number caught up with."""
    out_of_line()
    now = load(s.control, SEQUENCE)
    if now - seen >= s.geo.tlbi_rows:
        flush_all(cpu)
        return now
    for number in range(seen + 1, now + 1):
        row = number & (s.geo.tlbi_rows - 1)
        written = load(s.tlbi, (row, TLBI_NUMBER))
        start = load(s.tlbi, (row, TLBI_START))
        end = load(s.tlbi, (row, TLBI_END))
        # The row is the one wanted if it was written before and not reused while it was read.
        if written != number or end == 0 or load(s.control, SEQUENCE) - number >= s.geo.tlbi_rows:
            flush_all(cpu)
        elif end >> TLBI_LOCAL != 0:
            flush_as_said(cpu, s.geo.index_bits, start, end)
        else:
            flush_range(cpu, s.geo.index_bits, start, end)
    return now
