"""The configuration of a run: one validated record from a TOML file and options, defaults filled in.

A field's description is also its option's help text, and keys (``block-size``) are spelled alike in files and
on the command line. Everything that is wrong is reported at once, each problem with the path of its key.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

from pydantic import (
    AfterValidator,
    AliasGenerator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError

from stress.arch.geometry import BLOCK_SIZES, MEMSLOT_BASE, Geometry
from stress.errors import UsageError
from stress.orders import Order, parse_order
from stress.units import format_duration, format_size, parse_duration, parse_size

SECOND_NS: Final = 1_000_000_000
MILLISECOND_NS: Final = 1_000_000

#: Longer times would only be typing errors, and sums of them must stay inside 64 bits.
MAX_NS: Final = 30 * 24 * 3600 * SECOND_NS

_Parsed = TypeVar("_Parsed")


class Pattern(StrEnum):
    """How a vCPU picks its next page. Compiled code has a code for each, by name."""

    SEQUENTIAL = "sequential"
    UNIFORM = "uniform"
    ZIPF = "zipf"
    STRIDED = "strided"


class ConfigError(UsageError):
    """A configuration that makes no sense. ``problems`` has one line per bad key, starting with its path."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(" ".join(problem.split()) for problem in problems)
        count = len(self.problems)
        super().__init__(self.problems[0] if count == 1 else f"{count} problems: {' | '.join(self.problems)}")


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0))


def default_vcpus() -> int:
    """One vCPU per core, less one for the hypervisor process, between 1 and 4."""
    return max(1, min(4, cores() - 1))


def key_of(field: str) -> str:
    """A field's key in files and options: ``block-size`` of ``block_size``, ``dwell`` of ``dwell_ns``."""
    return field.removesuffix("_ns").replace("_", "-")


def block_sizes(granule: int, ipa_bits: int) -> tuple[int, ...]:
    """Sizes in bytes, largest first, of the blocks that KVM maps with this granule below its start level."""
    start = Geometry(granule, ipa_bits).start_level
    return tuple(size for level, size in sorted(BLOCK_SIZES[granule].items()) if level >= start)


def _listed(words: Iterable[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} or {last}" if most else last


def _choice(sizes: Iterable[int]) -> str:
    return _listed(format_size(size) for size in sizes)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _problem(text: str) -> PydanticCustomError:
    return PydanticCustomError("config", "{text}", {"text": text})


def _parsed(parse: Callable[[str], _Parsed], text: str) -> _Parsed:
    try:
        return parse(text)
    except UsageError as error:
        raise _problem(str(error)) from None


def _size(value: object) -> object:
    if isinstance(value, int):
        return value
    if not isinstance(value, str):
        raise _problem("must be a size such as 4K, 2M, 1G or plain bytes")
    return _parsed(parse_size, value)


def _duration(value: object, info: ValidationInfo) -> object:
    if not isinstance(value, str):
        # Code passes ns, and says so in the field's name; people must write a unit.
        if info.context == "text":
            raise _problem("must be a duration with its unit, such as 5us, 500ms, 10s or 2m")
        return value
    return _parsed(parse_duration, value)


def _order_name(text: str) -> str:
    return _parsed(parse_order, text).name


def _pattern(value: object) -> object:
    if not isinstance(value, str) or value not in tuple(Pattern):
        raise _problem(f"unknown pattern {_shown(value)}; use {_listed(Pattern)}")
    return Pattern(value)


Size = Annotated[int, BeforeValidator(_size)]
Duration = Annotated[int, BeforeValidator(_duration)]
OrderText = Annotated[str, AfterValidator(_order_name)]
Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


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
    vcpus: int = Field(default_factory=default_vcpus, ge=1, le=512, description="vCPU processes")
    granule: Size = Field(
        default=4 << 10,
        description="Translation granule: 4K, 16K or 64K",
        serialization_alias="granule_bytes",
    )
    ipa_bits: int = Field(default=40, ge=32, le=48, description="Width of guest physical addresses in bits")
    block_size: Size = Field(
        default_factory=lambda data: block_sizes(data["granule"], data["ipa_bits"])[0],
        description="Size of a block; the granule's largest if left out",
        serialization_alias="block_size_bytes",
    )
    blocks: int = Field(default=4, ge=1, description="Blocks in the memslot")
    populated: Fraction = Field(default=1.0, description="Fraction of a block's pages mapped before its rebuild")
    rebuilds: int | None = Field(
        default=None, ge=1, le=1 << 40, description="Stop after this many rebuilds of each order"
    )
    duration_ns: Duration | None = Field(
        default_factory=lambda data: None if data["rebuilds"] else 10 * SECOND_NS,
        gt=0,
        le=MAX_NS,
        description="Stop after this time; unlimited if left out and --rebuilds is given",
    )
    dwell_ns: Duration = Field(
        default=5 * MILLISECOND_NS,
        ge=0,
        le=MAX_NS,
        description="Mean time the guest runs on pages, and again on the block",
    )
    pattern: Pattern = Field(
        default=Pattern.SEQUENTIAL, description="Access pattern: sequential, uniform, zipf or strided"
    )
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
    write_fraction: Fraction = Field(default=0.2, description="Fraction of accesses that write")
    seed: int = Field(default=1, ge=0, lt=1 << 63, description="Seed of every vCPU's random numbers")
    fwb: bool = Field(default=True, description="The CPU has FEAT_S2FWB: no cache maintenance needed")
    guest_caches: bool = Field(default=True, description="The guest runs with its caches on")
    pin: bool = Field(
        default_factory=lambda data: data["vcpus"] < cores(),
        description="Pin each process to a core; the default if there is a core for each",
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

    _known_pattern = field_validator("pattern", mode="before")(_pattern)

    @field_validator("orders")
    @classmethod
    def _distinct(cls, orders: tuple[str, ...]) -> tuple[str, ...]:
        if not orders:
            raise _problem("there is no order; give at least one")
        for index, name in enumerate(orders):
            if name in orders[:index]:
                steps = ",".join(parse_order(name).steps)
                raise _problem(f"{name} is there twice; to compare it with itself, write the other one {steps}")
        return orders

    @field_validator("granule")
    @classmethod
    def _supported_granule(cls, granule: int) -> int:
        if granule not in BLOCK_SIZES:
            raise _problem(f"no granule has {granule} bytes; use {_choice(BLOCK_SIZES)}")
        return granule

    @field_validator("block_size")
    @classmethod
    def _supported_block(cls, block_size: int, info: ValidationInfo) -> int:
        if not {"granule", "ipa_bits"} <= info.data.keys():
            return block_size  # they have their own problem
        granule, ipa_bits = info.data["granule"], info.data["ipa_bits"]
        possible = block_sizes(granule, ipa_bits)
        if block_size % granule:
            raise _problem(
                f"{block_size} bytes do not divide into {format_size(granule)} pages; use {_choice(possible)}"
            )
        if block_size not in possible:
            raise _problem(
                f"KVM has no {format_size(block_size)} block with the {format_size(granule)} granule "
                f"and {ipa_bits} bits of IPA; use {_choice(possible)}"
            )
        return block_size

    @field_validator("blocks")
    @classmethod
    def _inside_ipa_space(cls, blocks: int, info: ValidationInfo) -> int:
        if not {"ipa_bits", "block_size"} <= info.data.keys():
            return blocks
        ipa_bits, block_size = info.data["ipa_bits"], info.data["block_size"]
        room = ((1 << ipa_bits) - MEMSLOT_BASE) // block_size
        if blocks > room:
            raise _problem(
                f"{blocks} blocks of {format_size(block_size)} do not fit above {format_size(MEMSLOT_BASE)} "
                f"in {ipa_bits} bits of IPA; use at most {room}"
            )
        return blocks

    @field_validator("duration_ns")
    @classmethod
    def _ends(cls, duration_ns: int | None, info: ValidationInfo) -> int | None:
        if duration_ns is None and info.data.get("rebuilds", 1) is None:
            raise _problem("the run would never end; give a duration or a number of rebuilds")
        return duration_ns

    @property
    def parsed_orders(self) -> tuple[Order, ...]:
        """The orders under test."""
        return tuple(parse_order(text) for text in self.orders)

    @property
    def geometry(self) -> Geometry:
        """The table's geometry."""
        return Geometry(self.granule, self.ipa_bits)

    @property
    def block_level(self) -> int:
        """The level whose entries are the blocks."""
        return self.geometry.block_level(self.block_size)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, the unit in each key."""
        return self.model_dump(mode="json", by_alias=True)


def load_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file; `UsageError` if it cannot be read or is not TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", "give --config a readable TOML file") from None
    except (ValueError, RecursionError) as error:
        # ValueError: TOMLDecodeError, UnicodeDecodeError, and numbers with thousands of digits.
        raise UsageError(f"{path} is not TOML: {error}", "see configs/ for examples") from None


def from_sources(
    file: Path | None = None,
    options: Mapping[str, Any] | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> RunConfig:
    """The configuration of defaults, overridden by the file's ``[run]`` table, overridden by options.

    Keys are those of files (``block-size``); code may write ``block_size``. ``order`` is the same as one of
    ``orders``. An option that is None counts as absent. Raises `ConfigError` with every problem found.
    """
    problems: list[str] = []
    values: dict[str, Any] = {}
    paths: dict[str, str] = {}  # key -> its path in an error
    table = _run_table(file, problems) if file else {}
    for source, prefix in ((defaults or {}, ""), (table, "run."), (options or {}, "--")):
        if "order" in source and "orders" in source:
            problems.append(f"{prefix}order: given together with orders; give one of them")
        for name, value in source.items():
            if value is None:
                continue
            spelling = name if source is table else name.replace("_", "-")
            key = "orders" if name == "order" else spelling
            values[key] = [value] if name == "order" else value
            # Several orders are arguments, not an option.
            paths[key] = "orders" if (prefix, name) == ("--", "orders") else prefix + spelling
    try:
        config = RunConfig.model_validate(values, by_alias=True, by_name=False, context="text")
    except ValidationError as error:
        problems += _problems(error, values, paths)
    if problems:
        raise ConfigError(problems)
    return config


def _run_table(file: Path, problems: list[str]) -> Mapping[str, Any]:
    tables = load_toml(file)
    for key in tables:
        if key != "run":
            hint = "belongs in the table [run]" if key in _KEYS else "unknown; the only table is [run]"
            problems.append(f"{key}: {hint}")
    run = tables.get("run", {})
    if not isinstance(run, dict):
        problems.append("run: must be a table, [run]")
        return {}
    return run


_KEYS: Final = ("order", *(key_of(field) for field in RunConfig.model_fields))
_DURATIONS: Final = {key_of(field) for field in RunConfig.model_fields if field.endswith("_ns")}
_BOUNDS: Final = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}


def _problems(error: ValidationError, values: Mapping[str, Any], paths: Mapping[str, str]) -> list[str]:
    """One line per key that pydantic found wrong, in the words and spellings of the user."""
    lines = []
    for detail in error.errors(include_url=False):
        kind, message = detail["type"], detail["msg"]
        if kind == "default_factory_not_called":
            continue  # follows from a problem that is reported anyway
        key, *inner = (str(part) for part in detail["loc"])
        path = paths.get(key, key)
        if not path.endswith("order"):
            path += "".join(f"[{part}]" for part in inner)
        if kind == "extra_forbidden":
            close = difflib.get_close_matches(key, _KEYS, n=1)
            hint = f"did you mean {close[0]}?" if close else f"the keys are {', '.join(_KEYS)}"
            message = f"unknown key; {hint}"
        elif kind != "config":
            if kind in _BOUNDS:
                name, words = _BOUNDS[kind]
                bound = detail["ctx"][name]
                message = f"must be {words} {format_duration(bound) if key in _DURATIONS else bound}"
            message = message.replace("Input should be", "must be").replace("valid tuple", "list")
            message += f", not {_shown(detail['input'] if inner else values.get(key, detail['input']))}"
        lines.append(f"{path}: {message}")
    return lines
