"""Platform profiles: what a machine has (FWB, DIC, FEAT_BBM) and what things cost there, from small TOML files.

`Platform.cost` is the only place that knows what anything costs: a live run spins some of it where the work is done
(`SPUN`), a prediction adds all of it up. A cost of nothing is not modelled.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import (
    AliasGenerator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from stress import shipped
from stress.arch.bbm import HIGHEST
from stress.errors import UsageError
from stress.orders import Scope, Step
from stress.reading import read_bytes
from stress.shipped import Kind
from stress.units import format_bytes, format_ns

#: The platform without modelled costs, which every run has unless it names another.
NATIVE: Final = "native"

# What lies beyond would only be a typing error: a TLBI or an exit of more than a second, a clean slower than any memory
# or faster than its cost can be told from none.
_MAX_NS: Final = 1_000_000_000
MAX_CORES: Final = 1 << 20
_LEAST_BYTES_PER_S: Final = 1e6
_MOST_BYTES_PER_S: Final = 1e15

# Table entries, each with a word of its page, that a core's own caches hold beside the hypervisor: half a MiB. Those of
# all arm64 and x86 servers, 256 KiB to 2 MiB, tell the same blocks apart: tables have 512 to 8192 entries below one of
# 2 MiB (4 KiB granule), 32 MiB (16 KiB) and 512 MiB (64 KiB), but 262,144 below one of 1 GiB.
_CACHED_ENTRIES: Final = 1 << 15

_REMEDY: Final = (
    "give a bandwidth as 1e6 to 1e15 bytes/s, other costs as 0 to 1_000_000_000 ns, and leave out what costs "
    "nothing (configs/platforms/ has examples)"
)

Line = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]
Cost = Annotated[float, Field(ge=0, le=_MAX_NS, allow_inf_nan=False)]
Bandwidth = Annotated[float, Field(ge=_LEAST_BYTES_PER_S, le=_MOST_BYTES_PER_S, allow_inf_nan=False)]


class Work(StrEnum):
    """What costs something besides the steps of an order."""

    EXIT = "a vCPU's exit to the hypervisor and its way back"
    CONFLICT = "a TLB conflict abort: an exit, a TLBI of the one core, and the way back"
    FAULT = "to look what a fault is about, under mmu_lock"
    MAP = "to write entries of a table that is linked or will be"
    ZERO = "to zero memory that the host gives to the guest"
    COPY = "to move the contents of frames, for which as much is read as written"
    TLBI_RANGE = "to invalidate the TLB entries of a range of IPAs"
    HAND_OVER = "to hand mmu_lock to a vCPU that waits for it"
    SHARE = "to take a lock for reading after another core did: mmap_lock, and a shared mmu_lock"
    HIT = "a guest access that hits the TLB"
    WALK = "a guest access that walks the tables"
    MISS = "a guest access that walks the tables, and whose data no cache holds"
    START = "to let vCPUs begin a stage of a test"
    REBUILD = "to look at the tables of a block that is to be rebuilt"


@dataclass(frozen=True, slots=True)
class Shape:
    """How large a piece of work is; what has no meaning for it is left alone."""

    #: Bytes cleaned or zeroed.
    bytes: int = 0
    #: Ranges cleaned, each with an I-cache invalidation of its own.
    ranges: int = 1
    #: Table entries written, or visited by a tear-down.
    entries: int = 0
    #: Table entries that the guest goes through from one TLBI, or rebuild, to the next.
    between: int = 0
    #: Table pages freed.
    tables: int = 0
    #: Others that wait meanwhile, for mmu_lock, or with a TLBI or misses of their own.
    waiting: int = 0
    #: A TLBI for this core alone, not broadcast.
    local: bool = False


ONCE: Final = Shape()


class Origin(StrEnum):
    """How far a figure can be trusted."""

    PUBLISHED = "published"
    FITTED = "fitted"
    GUESSED = "guessed"


@dataclass(frozen=True, slots=True)
class Figure:
    """One cost of a platform as people read it. ``origin`` and ``source`` are "" if the profile does not say."""

    key: str
    means: str
    value: str
    origin: str
    source: str
    spun: bool


def profile_key(field: str) -> str:
    """A platform's field as its key in a file: ``tlbi-ns`` of ``tlbi_ns``."""
    return field.replace("_", "-")


class Platform(BaseModel):
    """One machine. ``name`` is the file's, without its suffix; a file writes keys with dashes (``tlbi-ns``).

    A cost's field says in its description what costs that, for `stress platforms`.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        validate_by_name=True,
        validate_by_alias=False,
        alias_generator=AliasGenerator(validation_alias=profile_key),
    )

    name: Line
    description: Line
    #: Where the figures come from.
    source: Line
    #: FEAT_S2FWB: stage 2 forces memory cacheable, so the hypervisor cleans nothing.
    fwb: bool
    #: CTR_EL0.DIC: no I-cache invalidation after a clean.
    dic: bool
    #: FEAT_BBM level: 0, 1, 2 or 3.
    bbm_level: int = Field(ge=0, le=HIGHEST)
    #: Cores that vCPUs share; as many as they need if left out. Only `stress predict` looks at it.
    cores: int | None = Field(default=None, ge=1, le=MAX_CORES)

    clean_bytes_per_s: Bandwidth | None = Field(default=None, description="D-cache clean to PoC")
    icache_ns: Cost = Field(default=0, description="I-cache invalidation after a clean")
    unmap_ns: Cost = Field(default=0, description="tear-down, per entry visited")
    free_ns: Cost = Field(default=0, description="tear-down, per table page freed")
    tlbi_ns: Cost = Field(default=0, description="broadcast TLBI by VMID and its DSB")
    tlbi_range_ns: Cost | None = Field(default=None, description="TLBI by range; as by VMID if left out")
    tlbi_ipa_ns: Cost | None = Field(default=None, description="TLBI by IPA; as by VMID if left out")
    tlbi_local_ns: Cost | None = Field(
        default=None, description="TLBI of one core, by which permission is given (Linux 6.4 on); broadcast if left out"
    )
    tlbi_cold_ns: Cost = Field(
        default=0, description="more for a TLBI by VMID after accesses that took all else from the core's caches"
    )
    tlbi_waiting_ns: Cost = Field(default=0, description="more per broadcast TLBI, for each core that waits with one")
    exit_ns: Cost = Field(default=0, description="exit to the hypervisor and way back")
    fault_ns: Cost = Field(default=0, description="look of a fault handler under mmu_lock")
    map_ns: Cost = Field(default=0, description="entry written to a table")
    rebuild_ns: Cost = Field(
        default=0, description="look at the tables below a block, under mmu_lock, before a rebuild"
    )
    rebuild_cold_ns: Cost = Field(
        default=0, description="more for that after accesses that took all else from the core's caches"
    )
    split_ns: Cost = Field(default=0, description="table put in place of a block, besides its TLBI and entries")
    zero_bytes_per_s: Bandwidth | None = Field(
        default=None, description="zeroing of memory new to the guest; moving takes twice as long"
    )
    hand_over_ns: Cost = Field(default=0, description="mmu_lock handed to who waits for it")
    hand_over_waiting_ns: Cost = Field(default=0, description="more per hand-over, for each vCPU that waits on")
    share_ns: Cost = Field(default=0, description="mmap_lock or mmu_lock taken for reading, after another core did")
    hit_ns: Cost = Field(default=0, description="guest access that hits the TLB")
    walk_ns: Cost = Field(default=0, description="guest access that walks the tables")
    miss_ns: Cost = Field(default=0, description="guest access that walks, to data that no cache holds")
    miss_shared_ns: Cost = Field(default=0, description="of it, what memory serves for one core at a time")

    start_ns: Cost = Field(default=0, description="a stage's start, until its vCPUs are in the guest")

    #: For each key of a cost, the source of its figure, under how far it can be trusted.
    published: Mapping[str, Line] = {}
    fitted: Mapping[str, Line] = {}
    guessed: Mapping[str, Line] = {}

    @model_validator(mode="after")
    def _sources_of_costs(self) -> Self:
        known, seen = {profile_key(field) for field in COSTS}, set[str]()
        for origin in Origin:
            for key in self._sources(origin):
                if key not in known:
                    raise ValueError(f"{origin}.{key} is no cost")
                if key in seen:
                    raise ValueError(f"{origin}.{key} has another origin, too")
                seen.add(key)
        return self

    def _sources(self, origin: Origin) -> Mapping[str, str]:
        return {Origin.PUBLISHED: self.published, Origin.FITTED: self.fitted, Origin.GUESSED: self.guessed}[origin]

    def cost(self, step: Step | Work, shape: Shape = ONCE) -> float:
        """What a step of an order, or other work, of this shape takes here, in ns; 0 if that is not modelled."""
        match step:
            case Work.EXIT:
                return self.exit_ns
            case Work.CONFLICT:
                return self.exit_ns + self._tlbi_ns(self.tlbi_ns, Shape(local=True))
            case Work.FAULT:
                return self.fault_ns
            case Work.MAP:
                return shape.entries * self.map_ns
            case Work.ZERO:
                return _transfer_ns(shape.bytes, self.zero_bytes_per_s)
            case Work.COPY:
                return 2 * _transfer_ns(shape.bytes, self.zero_bytes_per_s)
            case Work.TLBI_RANGE:
                return self._tlbi_ns(self.tlbi_range_ns, shape)
            case Work.HAND_OVER:
                return self.hand_over_ns + shape.waiting * self.hand_over_waiting_ns
            case Work.SHARE:
                return self.share_ns
            case Work.HIT:
                return self.hit_ns
            case Work.WALK:
                return self.walk_ns
            case Work.MISS:
                return max(self.miss_ns, (1 + shape.waiting) * self.miss_shared_ns)
            case Work.START:
                return self.start_ns
            case Work.REBUILD:
                return self.rebuild_ns + _if_cold(self.rebuild_cold_ns, shape)
        facts = step.facts
        ns = 0.0
        if facts.cleans:
            ns += _transfer_ns(shape.bytes, self.clean_bytes_per_s)
            ns += 0 if self.dic else shape.ranges * self.icache_ns
        if facts.tlbi is not None:
            ns += self._tlbi_ns(self.tlbi_ipa_ns if facts.tlbi is Scope.IPA else self.tlbi_ns, shape)
        if facts.tlbi is Scope.VMID:
            ns += _if_cold(self.tlbi_cold_ns, shape)
        if facts.builds:
            ns += shape.entries * self.map_ns
        if facts.links:
            ns += self.split_ns
        if facts.tears_down:
            ns += shape.entries * self.unmap_ns + shape.tables * self.free_ns
        return ns

    def _tlbi_ns(self, alone: float | None, shape: Shape) -> float:
        alone = self.tlbi_ns if alone is None else alone
        if shape.local:
            return alone if self.tlbi_local_ns is None else self.tlbi_local_ns
        return alone + shape.waiting * self.tlbi_waiting_ns

    @property
    def figures(self) -> tuple[Figure, ...]:
        """The modelled costs, in the order of the fields; empty if there is none."""
        found = []
        for field in COSTS:
            value = getattr(self, field)
            if value and not (field == "icache_ns" and self.dic):
                key = profile_key(field)
                origin = next((each for each in Origin if key in self._sources(each)), None)
                found.append(
                    Figure(
                        key=key,
                        means=(Platform.model_fields[field].description or "").partition(";")[0],
                        value=as_written(field, value),
                        origin=origin or "",
                        source=self._sources(origin)[key] if origin else "",
                        spun=field in SPUN,
                    )
                )
        return tuple(found)


#: The fields that are costs.
COSTS: Final = tuple(name for name, field in Platform.model_fields.items() if field.description)
#: Those that a live run spins; the others take the time that this machine needs.
SPUN: Final = (
    "clean_bytes_per_s",
    "icache_ns",
    "unmap_ns",
    "free_ns",
    "tlbi_ns",
    "tlbi_ipa_ns",
    "tlbi_cold_ns",
    "exit_ns",
)


def as_written(field: str, value: float) -> str:
    """A cost as people read it."""
    if field.endswith("_bytes_per_s"):
        return f"{format_bytes(value)}/s"
    return f"{value:.3g} ns" if value < 100 else format_ns(value)


def _if_cold(ns: float, shape: Shape) -> float:
    """A cost of finding in memory what the guest took from the core's caches."""
    return ns if shape.between > _CACHED_ENTRIES else 0.0


def _transfer_ns(amount: int, bytes_per_s: float | None) -> float:
    return amount * 1e9 / bytes_per_s if bytes_per_s else 0.0


def names() -> tuple[str, ...]:
    """Names of the profiles that come with the program, `NATIVE` first."""
    return tuple(sorted(shipped.names(Kind.PLATFORM), key=lambda name: (name != NATIVE, name)))


def load(name_or_path: str) -> Platform:
    """The profile that a name or a path (`shipped.find`) says.

    Raises `UsageError` for an unknown name, and for a file that cannot be read or makes no sense, with every problem.
    """
    return _read(shipped.find(Kind.PLATFORM, name_or_path))


def _read(path: Path) -> Platform:
    try:
        values = tomllib.loads(read_bytes(path).decode())
    except OSError as error:
        raise UsageError(f"cannot read platform {path}: {error.strerror}", f"use one of {', '.join(names())}") from None
    except (ValueError, RecursionError) as error:
        # ValueError: TOMLDecodeError, UnicodeDecodeError, a path with a null byte, numbers with thousands of digits.
        raise UsageError(f"platform {path} is not TOML: {error}", "see configs/platforms/ for examples") from None
    problems = ["name: the file's name is the platform's"] if "name" in values else []
    try:
        platform = Platform.model_validate({**values, "name": path.stem}, by_alias=True, by_name=False)
    except ValidationError as error:
        problems += [
            ": ".join((*map(str, each["loc"]), _words(each["msg"]))) for each in error.errors(include_url=False)
        ]
    if problems:
        raise UsageError(f"platform {path}: {', '.join(problems)}", _REMEDY)
    return platform


def _words(message: str) -> str:
    message = message.replace("Input should be", "must be").removeprefix("Value error, ")
    return {"Extra inputs are not permitted": "unknown key", "Field required": "missing"}.get(message, message)
