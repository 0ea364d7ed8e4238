"""What a vCPU is to do, as its kernels take it."""

from __future__ import annotations

import math
from enum import IntEnum
from typing import NamedTuple


class Pattern(IntEnum):
    """Access patterns."""

    SEQUENTIAL = 0
    UNIFORM = 1
    ZIPF = 2
    STRIDED = 3
    PROGRAM = 4


class Workload(NamedTuple):
    """What a vCPU does."""

    pattern: int
    pages: int
    stride: int
    exponent: float
    scatter: int  # coprime to pages; spreads Zipf's popular ranks over the memslot
    write_below: int  # write if 12 random bits are below it: 0 never, 4096 always
    first: int = 0  # a pattern's pages, or a program's, begin at this one
    # A program: for each of its groups of ``group`` pages, access the group's first page if ``head`` is 1 (read) or 2
    # (write), then ``run`` pages from page ``skip`` of the group on.
    group: int = 1
    head: int = 0
    skip: int = 0
    run: int = 1


def pattern_over(pattern: int, first: int, pages: int, stride: int, exponent: float, write_below: int) -> Workload:
    """A pattern over ``pages`` of guest memory from page ``first`` on."""
    return Workload(pattern, pages, min(stride, pages), exponent, scatter_for(pages), write_below, first)


def scatter_for(pages: int) -> int:
    """A multiplier near the golden section of ``pages`` that is coprime to it."""
    scatter = max(1, int(pages * 0.6180339887))
    while math.gcd(scatter, pages) != 1:
        scatter += 1
    return scatter


def seed_for(seed: int, vcpu: int) -> int:
    """Generator state of one vCPU, derived from the run's seed (SplitMix64's finaliser)."""
    mask = (1 << 64) - 1
    z = (seed + (vcpu + 1) * 0x9E3779B97F4A7C15) & mask
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & mask
    z = (z ^ z >> 27) * 0x94D049BB133111EB & mask
    z ^= z >> 31
    return z - (1 << 64) if z >> 63 else z
