"""Every key of a run's configuration: its type, bounds, default, and meaning, which is also its option's help text.

A field whose value follows from others, if no source sets it, is None until `stress.config.model` fills it in.
"""

from __future__ import annotations

import os
from typing import Annotated, Any, Final

from pydantic import AliasGenerator, BaseModel, ConfigDict, Field

from stress.arch.bbm import HIGHEST
from stress.arch.geometry import MEMSLOT_BASE
from stress.backings import Backing
from stress.config import blocks as rules
from stress.config.values import (
    BackingName,
    Cmo,
    CmoName,
    Duration,
    Fraction,
    Locking,
    LockingName,
    OrderText,
    Pattern,
    PatternName,
    Rebuilder,
    RebuilderName,
    Recover,
    RecoverName,
    Scenario,
    ScenarioName,
    Size,
    SplitOrderText,
    key_of,
    listed,
)
from stress.platforms import MAX_CORES, NATIVE
from stress.splits import BUILD_FIRST

SECOND_NS: Final = 1_000_000_000
MILLISECOND_NS: Final = 1_000_000

#: Longer times would only be typing errors, and sums of them must stay inside 64 bits.
MAX_NS: Final = 30 * 24 * 3600 * SECOND_NS

#: Stands for a value that follows from others, until the configuration is complete.
_DERIVED: Final[Any] = None


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0))


def default_vcpus() -> int:
    """One vCPU per core, less one for the hypervisor process, between 1 and 4."""
    return max(1, min(4, cores() - 1))


class RunKeys(BaseModel):
    """The keys of a run, each checked by itself. Sizes in bytes, times in ns."""

    # A field may only be checked against fields declared above it.
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        validate_by_name=True,
        validate_by_alias=False,
        alias_generator=AliasGenerator(validation_alias=key_of),
    )

    orders: Annotated[tuple[OrderText, ...], Field(strict=False)] = Field(
        default=("block-first",), description="Order under test: a name or steps separated by commas"
    )
    scenario: ScenarioName = Field(
        default=Scenario.REBUILD, description=f"What happens to the page table: {listed(Scenario)}"
    )
    vcpus: int = Field(default_factory=default_vcpus, ge=1, le=512, description="vCPU processes")
    granule: Size = Field(
        default=4 << 10, description="Translation granule: 4K, 16K or 64K", serialization_alias="granule_bytes"
    )
    ipa_bits: int = Field(default=40, ge=32, le=48, description="Width of guest physical addresses in bits")
    block_size: Size = Field(
        default=_DERIVED,
        description="Size of a block; what the backing says if left out, else the granule's largest",
        serialization_alias="block_size_bytes",
    )
    backing: BackingName = Field(
        default=_DERIVED,
        description=f"Host memory behind the guest's: {listed(Backing)}; what the block size says if left out",
    )
    phys_offset: Size = Field(
        default=MEMSLOT_BASE,
        ge=0,
        description="IPA of the first byte of guest memory",
        serialization_alias="phys_offset_bytes",
    )
    memory: Size = Field(
        default=_DERIVED,
        gt=0,
        description="Bytes of guest memory, instead of --blocks; in dirty-log-perf of each vCPU's part of it",
        serialization_alias="memory_bytes",
    )
    blocks: int = Field(
        default=_DERIVED, ge=1, description=f"Blocks of guest memory; {rules.DEFAULT_BLOCKS} if left out"
    )
    memslots: int = Field(default=1, ge=1, le=8, description="Memslots that guest memory is cut into")
    populated: Fraction = Field(default=1.0, description="Fraction of a block's pages mapped before its rebuild")
    rebuilds: int | None = Field(
        default=None, ge=1, le=1 << 40, description="Stop after this many rebuilds of each order"
    )
    passes: int | None = Field(
        default=None, ge=1, le=1 << 40, description="Stop after this many passes over the stages under each order"
    )
    duration_ns: Duration | None = Field(
        default=None,
        gt=0,
        le=MAX_NS,
        description="Stop after this time; 10s if left out, unlimited with --rebuilds or --passes",
    )
    dwell_ns: Duration = Field(
        default=5 * MILLISECOND_NS,
        ge=0,
        le=MAX_NS,
        description="Mean time the guest runs on pages, and again on the block",
    )
    iterations: int = Field(
        default=2, ge=1, le=1 << 20, description="Harvests of the dirty bitmap per migration or dirty-log-perf pass"
    )
    get_clears: bool = Field(
        default=False, description="Getting the dirty log clears it too: no manual protection (dirty-log-perf)"
    )
    clear_chunk: Size | None = Field(
        default=None,
        gt=0,
        description="Memory that each clear of the dirty log is of (dirty-log-perf); a whole memslot if left out",
        serialization_alias="clear_chunk_bytes",
    )
    rebuilder: RebuilderName = Field(
        default=_DERIVED,
        description=f"Who rebuilds a block: {listed(Rebuilder)}; vcpu if left out, but in scenario rebuild",
    )
    batch: int = Field(
        default=1, ge=1, le=512, description="Adjacent blocks that are rebuilt together, step by step, with one TLBI"
    )
    locking: LockingName = Field(
        default=Locking.EXCLUSIVE, description=f"How fault handlers take mmu_lock: {listed(Locking)} (since Linux 6.2)"
    )
    split_order: SplitOrderText = Field(
        default=BUILD_FIRST.name,
        description="How a block is split into pages: a name (stress orders) or steps separated by commas",
    )
    yield_every: int = Field(
        default=0,
        ge=0,
        le=1 << 30,
        description="Entries after which a tear-down gives mmu_lock up if somebody waits for it; 0: it never does",
    )
    eager_split: bool = Field(default=False, description="Split blocks when dirty logging starts, not at write faults")
    recover: RecoverName | None = Field(
        default=None,
        description=f"Blocks after dirty logging come back by {listed(Recover)}, by who stops it (x86, Linux 6.13); "
        "fault if left out, but with rebuilder hypervisor",
    )
    chunk: Size | None = Field(
        default=None,
        gt=0,
        description="Memory that eager-split and recover ioctl hold mmu_lock over; a block, or a batch, if left out",
        serialization_alias="chunk_bytes",
    )
    overlap: bool = Field(
        default=False, description="Every vCPU works on all of memory, not on a part of its own (dirty-log-perf)"
    )
    pattern: PatternName = Field(default=Pattern.SEQUENTIAL, description=f"Access pattern: {listed(Pattern)}")
    stride: int = Field(
        default=17,
        ge=1,
        le=1 << 40,
        description="Pages from one access to the next (strided)",
        serialization_alias="stride_pages",
    )
    zipf_exponent: float = Field(
        default=0.99, gt=0, le=8, allow_inf_nan=False, description="Skew of the distribution (zipf)"
    )
    write_fraction: Fraction = Field(
        default=_DERIVED, description="Fraction of accesses that write; 0.2 if left out, 1 in dirty-log-perf"
    )
    seed: int = Field(default=1, ge=0, lt=1 << 63, description="Seed of every vCPU's random numbers")
    platform: str = Field(default=NATIVE, description="Machine profile: a name (stress platforms) or a TOML file")
    cores: int | None = Field(
        default=None,
        ge=1,
        le=MAX_CORES,
        description="Cores that vCPUs take turns on (stress predict); the platform's if left out, or one for each",
    )
    fwb: bool = Field(
        default=_DERIVED, description="The CPU has FEAT_S2FWB: no cache maintenance needed; the platform's if left out"
    )
    bbm_level: int = Field(
        default=_DERIVED, ge=0, le=HIGHEST, description="FEAT_BBM level of the CPU, 0 to 3; the platform's if left out"
    )
    cmo: CmoName = Field(
        default=Cmo.PER_INSTALL,
        description="Faults that clean the cache: installing ones (per-install) or all (per-fault, before Linux 5.14)",
    )
    guest_caches: bool = Field(default=True, description="The guest runs with its caches on")
    inject: str | None = Field(default=None, description="Bug to put into our code (stress bugs)")
    pin: bool = Field(
        default=_DERIVED, description="Pin each process to a core; done if left out and there is a core for each"
    )
    fail_fast: bool = Field(default=False, description="Stop at the first violation")
    audit_interval_ns: Duration = Field(
        default=SECOND_NS, gt=0, le=MAX_NS, description="Time between audits of the table's reference counts"
    )
    watchdog_ns: Duration = Field(
        default=5 * SECOND_NS,
        ge=100 * MILLISECOND_NS,
        le=MAX_NS,
        description="Give up on a process without progress for this long",
    )
