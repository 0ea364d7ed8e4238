"""A vCPU's software TLB: set-associative, one array per page size, with permission bits; and its walk cache.

Private to the vCPU's process. Entry: key = guest frame >> the level's bits, value = first frame << 2 | permissions.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from stress.arch.geometry import LAST_LEVEL
from stress.shm.atomics import load
from stress.shm.jit import inline, kernel
from stress.shm.layout import (
    Machine,
)
from stress.shm.words import (
    SEQUENCE,
    TLBI_END,
    TLBI_NUMBER,
    TLBI_RING,
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
R_SEEN = 0  # number of the newest TLBI applied
R_PAGE = 1  # page of the last access; in a program the position of the next
R_RANDOM = 2
R_LEFT = 3  # accesses left in a stage; negative: no end


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


def new_cpu() -> Cpu:
    """An empty TLB and walk cache."""
    registers = np.zeros(16, np.int64)
    registers[R_LEFT] = -1
    return Cpu(
        key=np.full(LEVELS * PER_LEVEL, EMPTY, np.int64),
        value=np.zeros(LEVELS * PER_LEVEL, np.int64),
        turn=np.zeros(LEVELS * SETS, np.int64),
        live=np.zeros(LEVELS, np.int64),
        walk_key=np.full(LEVELS * CACHED, EMPTY, np.int64),
        walk_page=np.zeros(LEVELS * CACHED, np.int64),
        path=np.zeros(LEVELS, np.int64),
        upcoming=np.zeros(CHUNK, np.int64),
        registers=registers,
    )


@inline
def lookup_level(cpu: Cpu, level: int, bits: int, gfn: int) -> int:
    """Translation of ``gfn`` from the entries of one size, or MISS."""
    low = (LAST_LEVEL - level) * bits
    key = gfn >> low
    at = level * PER_LEVEL + (key & (SETS - 1)) * WAYS
    for way in range(WAYS):
        if cpu.key[at + way] == key:
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
    if cpu.key[at] == EMPTY:
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


@kernel
def flush_range(cpu: Cpu, bits: int, start: int, end: int) -> None:
    """Forget what translates, or helps to walk to, guest frames [start, end)."""
    for level in range(1, LEVELS):
        low = (LAST_LEVEL - level) * bits
        first, last = start >> low, (end - 1) >> low
        if cpu.live[level] != 0:
            for at in range(level * PER_LEVEL, (level + 1) * PER_LEVEL):
                if first <= cpu.key[at] <= last:
                    cpu.key[at] = EMPTY
                    cpu.live[level] -= 1
        first, last = start >> (low + bits), (end - 1) >> (low + bits)
        for at in range(level * CACHED, (level + 1) * CACHED):
            if first <= cpu.walk_key[at] <= last:
                cpu.walk_key[at] = EMPTY


@kernel
def catch_up(s: Machine, cpu: Cpu, seen: int) -> int:
    """Apply the invalidations published since number ``seen``; returns the number caught up with."""
    now = load(s.control, SEQUENCE)
    if now - seen >= TLBI_RING:
        flush_all(cpu)
        return now
    for number in range(seen + 1, now + 1):
        row = number & (TLBI_RING - 1)
        written = load(s.tlbi, (row, TLBI_NUMBER))
        start = load(s.tlbi, (row, TLBI_START))
        end = load(s.tlbi, (row, TLBI_END))
        # The row is the one wanted if it was written before and not reused while it was read.
        if written != number or end == 0 or load(s.control, SEQUENCE) - number >= TLBI_RING:
            flush_all(cpu)
        else:
            flush_range(cpu, s.geo.index_bits, start, end)
    return now
