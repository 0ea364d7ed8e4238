"""Where a vCPU goes next: sequential, strided, uniform or Zipf over guest memory's pages, from one seed.

Or a program, as the KVM selftests' guests run: groups of accesses at fixed places, of which only writes are random.
"""

from __future__ import annotations

import math
from typing import Any

from stress.kernels.workload import Pattern, Workload
from stress.shm.jit import inline, kernel
from stress.shm.mode import JIT_DISABLED
from stress.shm.placement import out_of_line

_SEQUENTIAL, _UNIFORM, _ZIPF, _STRIDED, _PROGRAM = (int(p) for p in Pattern)

# Knuth's MMIX linear congruential generator; its high bits are the good ones.
_FACTOR, _ADDEND = 6364136223846793005, 1442695040888963407
_WORD = 0xFFFFFFFF
RANDOM_BITS = 32

if JIT_DISABLED:

    def advance(state: int) -> int:
        """Next state of the generator, a signed 64-bit word."""
        state = (int(state) * _FACTOR + _ADDEND) & (1 << 64) - 1
        return state - (1 << 64) if state >> 63 else state

else:

    @inline
    def advance(state: int) -> int:
        """Next state of the generator, a signed 64-bit word."""
        return state * _FACTOR + _ADDEND


@inline
def draw(state: int) -> int:
    """32 random bits of a state."""
    return (state >> RANDOM_BITS) & _WORD


@inline
def zipf_rank(uniform: int, pages: int, exponent: float) -> int:
    """Rank in [0, pages) with density ~ rank**-exponent, by inverting the continuous power law."""
    u = uniform / 4294967296.0
    if abs(exponent - 1.0) < 1e-9:
        x = math.exp(u * math.log(pages + 1.0))
    else:
        power = 1.0 - exponent
        x = (1.0 + u * ((pages + 1.0) ** power - 1.0)) ** (1.0 / power)
    return min(int(x) - 1, pages - 1)


@inline
def page_after(work: Workload, pattern: int, page: int, state: int) -> int:
    """Page in [0, pages) that follows ``page``; ``state`` is this access's random word."""
    if pattern == _SEQUENTIAL:
        page += 1
        return 0 if page >= work.pages else page
    if pattern == _UNIFORM:
        return (draw(state) * work.pages) >> RANDOM_BITS
    if pattern == _STRIDED:
        page += work.stride
        # Each lap starts one page further on, so that every page is reached.
        return (page % work.stride + 1) % work.stride if page >= work.pages else page
    return zipf_rank(draw(state), work.pages, work.exponent) * work.scatter % work.pages


@inline
def draw_by(work: Workload, pattern: int, upcoming: Any, page: int, state: int) -> tuple[int, int]:
    """``draw_accesses`` for one pattern. Callers pass ``pattern`` as a constant, so that the loop does not test it."""
    for i in range(len(upcoming)):
        state = advance(state)
        page = page_after(work, pattern, page, state)
        # Uniform and Zipf use the upper half of these random bits, so writes are independent of pages.
        upcoming[i] = page << 1 | ((state >> 20) & 0xFFF < work.write_below)
    return page, state


@inline
def draw_program(work: Workload, upcoming: Any, position: int, state: int) -> tuple[int, int]:
    """``draw_accesses`` for a program; ``position`` counts the accesses made so far."""
    head = 1 if work.head != 0 else 0
    each = work.run + head
    group, at = position // each, position % each
    for i in range(len(upcoming)):
        state = advance(state)
        start = work.first + group * work.group
        if head != 0 and at == 0:
            upcoming[i] = start << 1 | (work.head == 2)
        else:
            page = start + work.skip + at - head
            upcoming[i] = page << 1 | ((state >> 20) & 0xFFF < work.write_below)
        at += 1
        if at == each:
            group, at = group + 1, 0
    return position + len(upcoming), state


@inline
def draw_pattern(work: Workload, upcoming: Any, page: int, state: int) -> tuple[int, int]:
    """``draw_accesses`` for a pattern over pages [0, work.pages)."""
    if work.pattern == _SEQUENTIAL:
        return draw_by(work, _SEQUENTIAL, upcoming, page, state)
    if work.pattern == _UNIFORM:
        return draw_by(work, _UNIFORM, upcoming, page, state)
    if work.pattern == _STRIDED:
        return draw_by(work, _STRIDED, upcoming, page, state)
    return draw_by(work, _ZIPF, upcoming, page, state)


@kernel
def draw_accesses(work: Workload, upcoming: Any, page: int, state: int) -> tuple[int, int]:
    """Fill ``upcoming`` with accesses, page << 1 | write, that follow ``page``; the new page and random state."""
    out_of_line()
    if work.pattern == _PROGRAM:
        return draw_program(work, upcoming, page, state)
    page, state = draw_pattern(work, upcoming, page, state)
    if work.first != 0:
        for i in range(len(upcoming)):
            upcoming[i] += work.first << 1
    return page, state
