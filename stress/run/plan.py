"""The plan of a run: its configuration turned into what workers need, small enough to be pickled to them."""

from __future__ import annotations

import os
from dataclasses import dataclass

from stress.arch.descriptors import leaf_attributes
from stress.arch.geometry import Geometry
from stress.config import RunConfig
from stress.kernels.pattern import Pattern, Workload, scatter_for, seed_for
from stress.shm.layout import Geo, geo_for


@dataclass(frozen=True, slots=True)
class Plan:
    """What every worker is told at its start. ``orders`` holds each order's step codes."""

    geo: Geo
    workload: Workload
    orders: tuple[tuple[int, ...], ...]
    seed: int
    share: int  # pages mapped after a split, in 2**-20 of the block's pages
    dwell_ns: int
    duration_ns: int | None
    rebuilds: int | None  # per order
    audit_interval_ns: int
    cpus: tuple[int, ...]  # processors to pin to, in turn; empty: not pinned

    @classmethod
    def of(cls, config: RunConfig) -> Plan:
        """The plan for a validated configuration."""
        geometry = Geometry(config.granule, config.ipa_bits)
        geo = geo_for(
            geometry,
            block_size=config.block_size,
            blocks=config.blocks,
            vcpus=config.vcpus,
            leaf_attributes=leaf_attributes(config.fwb),
            fwb=config.fwb,
            guest_caches=config.guest_caches,
            fail_fast=config.fail_fast,
        )
        workload = Workload(
            pattern=int(Pattern[config.pattern.upper()]),
            pages=geo.frames,
            stride=min(config.stride, geo.frames),
            exponent=config.zipf_exponent,
            scatter=scatter_for(geo.frames),
            write_below=round(config.write_fraction * 4096),
        )
        return cls(
            geo=geo,
            workload=workload,
            orders=tuple(order.codes for order in config.parsed_orders),
            seed=config.seed,
            share=round(config.populated * (1 << 20)),
            dwell_ns=config.dwell_ns,
            duration_ns=config.duration_ns,
            rebuilds=config.rebuilds,
            audit_interval_ns=config.audit_interval_ns,
            cpus=tuple(sorted(os.sched_getaffinity(0))) if config.pin else (),
        )

    def first_page(self, vcpu: int) -> int:
        """Page at which a vCPU starts: sequential ones are spread over the memslot."""
        return self.geo.frames * vcpu // self.geo.hypervisor

    def random_state(self, vcpu: int) -> int:
        """Generator state of a vCPU."""
        return seed_for(self.seed, vcpu)
