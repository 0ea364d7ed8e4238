"""The configuration of a run as one validated record.

A field's description is also its option's help text. A field whose value follows from others, if no source sets it, is
None while those are checked; the last validator fills it in.
"""

from __future__ import annotations

import os
from typing import Annotated, Any, Final, Self

from pydantic import (
    AliasGenerator,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationInfo,
    field_validator,
    model_validator,
)

from stress.arch.bbm import HIGHEST
from stress.arch.geometry import BLOCK_SIZES, MEMSLOT_BASE, Geometry
from stress.backings import Backing
from stress.bugs import BUGS, Bug
from stress.config import blocks as rules
from stress.config import recovery, staged
from stress.config.values import (
    LOGGING,
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
    choice,
    key_of,
    listed,
    parsed,
    problem,
)
from stress.errors import shown
from stress.guess import did_you_mean
from stress.orders import MAX_ORDERS, Order, parse_order
from stress.platforms import MAX_CORES, NATIVE, Platform, load
from stress.splits import BUILD_FIRST, SplitOrder, parse_split_order

SECOND_NS: Final = 1_000_000_000
MILLISECOND_NS: Final = 1_000_000

#: Longer times would only be typing errors, and sums of them must stay inside 64 bits.
MAX_NS: Final = 30 * 24 * 3600 * SECOND_NS

#: The orders that a comparison compares by default.
COMPARED: Final = ("unmap-first", "block-first")

#: Stands for a value that follows from others, until `RunConfig` is complete.
_DERIVED: Final[Any] = None


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0))


def default_vcpus() -> int:
    """One vCPU per core, less one for the hypervisor process, between 1 and 4."""
    return max(1, min(4, cores() - 1))


class RunConfig(BaseModel):
    """Everything that decides what a run does. Sizes in bytes, times in ns.

    Built in code by field name (pydantic's ``ValidationError``), from users by `from_sources` (`UsageError`).
    """

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

    _platform: Platform = PrivateAttr()
    _asked: tuple[Order, ...] = PrivateAttr()

    @field_validator("orders")
    @classmethod
    def _distinct(cls, orders: tuple[str, ...]) -> tuple[str, ...]:
        if not orders:
            raise problem("there is no order; give at least one")
        if len(orders) > MAX_ORDERS:
            raise problem(f"{len(orders)} orders, one run compares at most {MAX_ORDERS}; make it several runs")
        for index, name in enumerate(orders):
            if name in orders[:index]:
                steps = ",".join(parse_order(name).steps)
                raise problem(f"{name} is there twice; to compare it with itself, write the other one {steps}")
        return orders

    @field_validator("granule")
    @classmethod
    def _supported_granule(cls, granule: int) -> int:
        if granule not in BLOCK_SIZES:
            raise problem(f"no granule has {granule} bytes; use {choice(BLOCK_SIZES)}")
        return granule

    @field_validator("block_size", "backing", "phys_offset", "memory", "blocks")
    @classmethod
    def _possible(cls, value: Any, info: ValidationInfo) -> Any:
        """Check a key of guest memory against those above it that are right: a wrong one is not in ``info.data``."""
        data = info.data
        if not {"scenario", "granule", "ipa_bits"} <= data.keys():
            return value
        machine = data["scenario"], data["granule"], data["ipa_bits"]
        if info.field_name == "block_size":
            rules.check_block_size(value, *machine)
            return value
        if "block_size" not in data:
            return value
        if info.field_name == "backing":
            rules.check_backing(value, *machine, data["block_size"])
            return value
        if "backing" not in data:
            return value
        block = rules.block_of(data["backing"] or rules.default_backing(*machine, data["block_size"]), data["granule"])
        if info.field_name == "phys_offset":
            rules.check_phys_offset(value, *machine, block)
        elif "phys_offset" in data and info.field_name == "memory":
            parts = rules.parts(data["scenario"], data.get("vcpus", 1))  # a number that is wrong has its own problem
            rules.check_memory(value, parts, *machine, block, data["phys_offset"])
        elif "phys_offset" in data:
            rules.check_blocks(value, data["ipa_bits"], block, data["phys_offset"])
        return value

    @field_validator("blocks")
    @classmethod
    def _instead_of_memory(cls, blocks: int, info: ValidationInfo) -> int:
        if info.data.get("memory", 0) is not None:  # no value at all: one was given, and is wrong
            raise problem("given together with memory; give one of them")
        return blocks

    @field_validator("memslots")
    @classmethod
    def _cut(cls, memslots: int, info: ValidationInfo) -> int:
        data = info.data
        if memslots > 1 and data.get("scenario", LOGGING[0]) not in LOGGING:
            raise problem(f"scenario {data['scenario']} has one memslot; use scenario {', '.join(LOGGING)}")
        if data.get("memory") and {"scenario", "vcpus", "granule"} <= data.keys():
            memory = data["memory"] * rules.parts(data["scenario"], data["vcpus"])
            if memory < memslots * data["granule"]:
                raise problem(f"{memslots} memslots need a page each; use fewer, or more memory")
        return memslots

    @field_validator("yield_every")
    @classmethod
    def _under_mmu_lock(cls, entries: int, info: ValidationInfo) -> int:
        orders = info.data.get("orders", ())
        if entries and orders and not any(parse_order(name).tears_down_locked for name in orders):
            raise problem(f"{orders[0]} tears nothing down under mmu_lock; use another order, or leave it out")
        return entries

    @field_validator(*staged.KEYS)
    @classmethod
    def _in_stages(cls, value: Any, info: ValidationInfo) -> Any:
        staged.check(info.field_name or "", value, info.data)
        return value

    @field_validator(*recovery.KEYS)
    @classmethod
    def _after_logging(cls, value: Any, info: ValidationInfo) -> Any:
        data = info.data
        block = None
        if {"block_size", "backing", "granule", "ipa_bits", "scenario"} <= data.keys():
            backing = data["backing"] or rules.default_backing(
                data["scenario"], data["granule"], data["ipa_bits"], data["block_size"]
            )
            block = data["block_size"] or rules.block_of(backing, data["granule"])
        recovery.check(info.field_name or "", value, {**data, "block": block})
        return value

    @field_validator("platform")
    @classmethod
    def _loadable(cls, platform: str) -> str:
        parsed(load, platform)
        return platform

    @field_validator("inject")
    @classmethod
    def _known_bug(cls, inject: str | None) -> str | None:
        if inject is None:
            return None
        if inject not in BUGS:
            hint = did_you_mean(inject, BUGS, f"the bugs are {', '.join(BUGS)}")
            raise problem(f"unknown bug {shown(inject)}; {hint}")
        return inject

    @model_validator(mode="after")
    def _derive(self) -> Self:
        """Fill in the fields that no source set; every value that is set has been checked."""
        self._platform = load(self.platform)
        self._asked = tuple(map(parse_order, self.orders))
        given = dict(self.__dict__)
        granule, ipa_bits = self.granule, self.ipa_bits
        given["backing"] = self.backing or rules.default_backing(self.scenario, granule, ipa_bits, self.block_size)
        size = given["block_size"] = self.block_size or rules.block_of(given["backing"], granule)
        if self.memory:
            given["memory"] = self.memory * rules.parts(self.scenario, self.vcpus)
            given["blocks"] = given["memory"] // size
        else:
            room = rules.room_in_blocks(ipa_bits, size, self.phys_offset)
            given["blocks"] = self.blocks or min(rules.DEFAULT_BLOCKS, room)
            given["memory"] = given["blocks"] * size
        endless = self.rebuilds is None and self.passes is None
        derived = {
            "duration_ns": 10 * SECOND_NS if endless else None,
            "write_fraction": 1.0 if self.scenario is Scenario.DIRTY_LOG_PERF else 0.2,
            "rebuilder": Rebuilder.HYPERVISOR if self.scenario is Scenario.REBUILD else Rebuilder.VCPU,
            "fwb": self._platform.fwb,
            "bbm_level": self._platform.bbm_level,
            "pin": self.vcpus < cores(),
        }
        given |= {field: value for field, value in derived.items() if given[field] is None}
        given["recover"] = recovery.recovers(self.scenario, self.recover, given["rebuilder"])
        self.__dict__.update(given)  # the record is frozen for everybody else
        return self

    @property
    def bug(self) -> Bug | None:
        """The bug injected, if any."""
        return BUGS[self.inject] if self.inject else None

    @property
    def asked_orders(self) -> tuple[Order, ...]:
        """The orders under test as they were asked for, without the bug injected."""
        return self._asked

    @property
    def parsed_orders(self) -> tuple[Order, ...]:
        """The orders under test, with the steps that are executed: those of an injected bug."""
        return tuple(map(self.bug.rewrite, self._asked)) if self.bug else self._asked

    def looks_again(self, order: Order) -> bool:
        """Whether a rebuild by ``order`` is without mmu_lock before its block stands, and so has to look again."""
        return order.looks_again or (self.yield_every > 0 and order.tears_down_broken)

    @property
    def parsed_split_order(self) -> SplitOrder:
        """The split order."""
        return parse_split_order(self.split_order)

    @property
    def platform_profile(self) -> Platform:
        """The platform's features and costs. `fwb` and `bbm_level` here overrule its own."""
        return self._platform

    def on(self, platform: Platform) -> Self:
        """The same configuration with the costs of another machine; features that followed from its own stay."""
        moved = self.model_copy()
        moved._platform = platform
        return moved

    @property
    def only_predicted(self) -> str:
        """The problem with running this configuration instead of predicting it, after the key; "" if there is none."""
        return "" if self.cores is None else "a live run has this machine's cores; leave it out, or use stress predict"

    @property
    def geometry(self) -> Geometry:
        """The table's geometry."""
        return Geometry(self.granule, self.ipa_bits)

    @property
    def block_level(self) -> int:
        """The level whose entries are the blocks."""
        return self.geometry.block_level(self.block_size)

    @property
    def has_blocks(self) -> bool:
        """Whether stage 2 may map guest memory by blocks at all."""
        return self.backing is not Backing.ANONYMOUS and self.phys_offset % self.block_size == 0

    @property
    def chunk_blocks(self) -> int:
        """Blocks over which eager splitting and recovery hold mmu_lock."""
        return self.chunk // self.block_size if self.chunk else self.batch

    @property
    def pages(self) -> int:
        """Pages of guest memory."""
        return self.memory // self.granule

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, the unit in each key."""
        return self.model_dump(mode="json", by_alias=True) | {
            "platform_profile": self._platform.model_dump(mode="json")
        }
