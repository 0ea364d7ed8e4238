"""The plan of a run, which its workers get: small enough to be pickled, and light to import.

Every worker imports this module, so it knows nothing of configurations: to import their validation takes longer than
to load the kernels.
"""

from __future__ import annotations

from dataclasses import dataclass

from stress.kernels.workload import Workload, seed_for
from stress.shm.layout import Geo


@dataclass(frozen=True, slots=True)
class Plan:
    """All that a worker is told at its start. ``orders`` holds each order's step codes."""

    scenario: str
    staged: bool  # vCPUs run programs, stage by stage
    geo: Geo
    workload: Workload
    orders: tuple[tuple[int, ...], ...]
    seed: int
    share: int  # pages mapped after a split, in 2**-20 of the block's pages
    dwell_ns: int
    duration_ns: int | None
    rounds: int | None  # cycles of each order: rebuilds, or passes
    iterations: int
    eager_split: bool
    recovers: bool  # who stops dirty logging makes blocks of all tables
    chunk_pages: int  # over which that, and eager splitting, hold mmu_lock
    clear_pages: int | None  # pages of a memslot that a call clears the dirty log of; None: getting the log clears it
    overlap: bool  # every vCPU works on all of memory
    one_page_blocks: bool  # the backing has no blocks: a selftest's "large pages" are pages
    audit_interval_ns: int
    cpus: tuple[int, ...]  # processors to pin to, in turn; empty: not pinned

    def first_page(self, vcpu: int) -> int:
        """Page at which a vCPU starts: sequential ones are spread over guest memory."""
        return self.geo.pages * vcpu // self.geo.hypervisor

    def random_state(self, vcpu: int) -> int:
        """Generator state of a vCPU."""
        return seed_for(self.seed, vcpu)
