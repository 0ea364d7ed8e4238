"""From a validated configuration to the plan of its run."""

from __future__ import annotations

import os

from stress.arch.geometry import LAST_LEVEL, Geometry
from stress.config import STAGED, Backing, Cmo, Locking, Rebuilder, Recover, RunConfig, Scenario
from stress.config.blocks import cycles_for
from stress.kernels.workload import Pattern, pattern_over
from stress.live.plan import Plan
from stress.orders import Step
from stress.platforms import Shape, Work
from stress.results.data import TraceRequest
from stress.shm.layout import Geo, geo_for

#: Page-table changes that a trace holds at most: 32 MiB of the segment.
TRACE_ROWS = 1 << 20


def _geo(config: RunConfig, trace: TraceRequest | None) -> Geo:
    geometry = Geometry(config.granule, config.ipa_bits)
    platform = config.platform_profile
    return geo_for(
        geometry,
        block_size=config.block_size,
        blocks=config.blocks,
        vcpus=config.vcpus,
        fwb=config.fwb,
        guest_caches=config.guest_caches,
        pages=config.pages,
        phys_offset=config.phys_offset,
        memslots=config.memslots,
        backing_level=LAST_LEVEL if config.backing is Backing.ANONYMOUS else config.block_level,
        backing_thp=config.backing is Backing.THP,
        spare_blocks=int(config.scenario is Scenario.THP),
        bbm_level=config.bbm_level,
        cmo_per_fault=config.cmo is Cmo.PER_FAULT,
        shared=config.locking is Locking.SHARED,
        lockless=any(order.tears_down_late for order in config.parsed_orders),
        vcpu_rebuilds=config.rebuilder is Rebuilder.VCPU,
        split_order=config.parsed_split_order.word,
        yield_every=config.yield_every,
        batch=config.batch,
        inject=config.bug.flag if config.bug else 0,
        clean_ps_per_page=round(platform.cost(Step.CLEAN, Shape(bytes=config.granule, ranges=0)) * 1000),
        icache_ns=round(platform.cost(Step.CLEAN)),
        unmap_ns_per_table=round(platform.cost(Step.UNMAP, Shape(entries=1 << geometry.index_bits, tables=1))),
        tlbi_ns=round(platform.cost(Step.TLBI, Shape(between=config.block_size // config.granule))),
        tlbi_ipa_ns=round(platform.cost(Step.TLBI_IPA)),
        exit_ns=round(platform.cost(Work.EXIT)),
        conflict_ns=round(platform.cost(Work.CONFLICT)),
        fail_fast=config.fail_fast,
        copies=config.scenario is Scenario.MIGRATION,
        trace_rows=TRACE_ROWS if trace and trace.changes else 0,
        trace_rebuilds=trace.rebuilds if trace else 0,
    )


def _rounds(config: RunConfig) -> int | None:
    """Cycles of each order, if they are counted: in scenario rebuild one is a batch of blocks."""
    if config.rebuilds is not None and config.scenario is Scenario.REBUILD:
        return cycles_for(config.rebuilds, config.blocks, config.batch)
    return config.rebuilds or config.passes


def plan_for(config: RunConfig, trace: TraceRequest | None = None) -> Plan:
    """The plan for a validated configuration, with a trace of the run if one is requested."""
    geo = _geo(config, trace)
    workload = pattern_over(
        int(Pattern[config.pattern.upper()]),
        first=0,
        pages=geo.pages,
        stride=config.stride,
        exponent=config.zipf_exponent,
        write_below=round(config.write_fraction * 4096),
    )
    return Plan(
        scenario=str(config.scenario),
        staged=config.scenario in STAGED,
        geo=geo,
        workload=workload,
        orders=tuple(order.codes for order in config.parsed_orders),
        seed=config.seed,
        share=round(config.populated * (1 << 20)),
        dwell_ns=config.dwell_ns,
        duration_ns=config.duration_ns,
        rounds=_rounds(config),
        iterations=config.iterations,
        eager_split=config.eager_split,
        recovers=config.recover is Recover.IOCTL,
        chunk_pages=config.chunk_blocks * config.block_size // config.granule,
        clear_pages=None if config.get_clears else (config.clear_chunk or config.memory) // config.granule,
        overlap=config.overlap,
        one_page_blocks=config.backing is Backing.ANONYMOUS,
        audit_interval_ns=config.audit_interval_ns,
        cpus=tuple(sorted(os.sched_getaffinity(0))) if config.pin else (),
    )
