"""How single values are written: sizes, durations, orders, and the words of closed sets."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from typing import Annotated, Final, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo
from pydantic_core import PydanticCustomError

from stress.backings import SELFTEST_NAMES, Backing
from stress.errors import UsageError, shown
from stress.guess import did_you_mean
from stress.orders import parse_order
from stress.splits import parse_split_order
from stress.units import format_size, parse_duration, parse_size

_Parsed = TypeVar("_Parsed")

_HEXADECIMAL: Final = re.compile(r"\s*0[xX][0-9a-fA-F]{1,15}\s*")


class Scenario(StrEnum):
    """The script of a run."""

    REBUILD = "rebuild"
    MIGRATION = "migration"
    THP = "thp"
    PAGE_TABLE_TEST = "kvm-page-table-test"
    DIRTY_LOG_PERF = "dirty-log-perf"


#: Scenarios that play stages: once, or again and again until a duration is over.
STAGED: Final = (Scenario.PAGE_TABLE_TEST, Scenario.DIRTY_LOG_PERF)

#: Scenarios that log dirty pages of all of memory, and stop.
LOGGING: Final = (Scenario.MIGRATION, *STAGED)

#: Scenarios that have nothing to do in guest memory without whole blocks.
BLOCKS_ONLY: Final = (Scenario.REBUILD, Scenario.THP)


class Rebuilder(StrEnum):
    """The process that turns a table back into a block: the vCPU that faults on it, as in KVM, or the hypervisor."""

    VCPU = "vcpu"
    HYPERVISOR = "hypervisor"


class Recover(StrEnum):
    """How tables become blocks after dirty logging: at faults, as on arm64, or by the thread that ends logging."""

    FAULT = "fault"
    IOCTL = "ioctl"


class Locking(StrEnum):
    """How fault handlers take mmu_lock: exclusive, or shared as since Linux 6.2."""

    EXCLUSIVE = "exclusive"
    SHARED = "shared"


class Cmo(StrEnum):
    """The faults that clean the cache: those that install the mapping, as since Linux 5.14, or all."""

    PER_INSTALL = "per-install"
    PER_FAULT = "per-fault"


class Pattern(StrEnum):
    """How a vCPU picks its next page. Compiled code has a code for each, by name."""

    SEQUENTIAL = "sequential"
    UNIFORM = "uniform"
    ZIPF = "zipf"
    STRIDED = "strided"


def key_of(field: str) -> str:
    """A field's key in files and options: ``block-size`` of ``block_size``, ``dwell`` of ``dwell_ns``."""
    return field.removesuffix("_ns").replace("_", "-")


def problem(text: str) -> PydanticCustomError:
    """The error that a validator raises; its text follows the key's path and a colon."""
    return PydanticCustomError("config", "{text}", {"text": text})


def listed(words: Iterable[str]) -> str:
    """``a``, ``a or b``, ``a, b or c``."""
    *most, last = words
    return f"{', '.join(most)} or {last}" if most else last


def choice(sizes: Iterable[int]) -> str:
    """Sizes in bytes as a list of alternatives."""
    return listed(format_size(size) for size in sizes)


def parsed(parse: Callable[[str], _Parsed], text: str) -> _Parsed:
    """``parse(text)``, with its `UsageError` turned into a problem."""
    try:
        return parse(text)
    except UsageError as error:
        raise problem(str(error)) from None


def _size(value: object) -> object:
    if isinstance(value, int):
        return value
    if not isinstance(value, str):
        raise problem("must be a size such as 4K, 2M, 1G or plain bytes")
    # The selftests take offsets in hexadecimal.
    return int(value, 16) if _HEXADECIMAL.fullmatch(value) else parsed(parse_size, value)


def _duration(value: object, info: ValidationInfo) -> object:
    if not isinstance(value, str):
        # Code passes ns, as the field's name says; people must write a unit.
        if info.context == "text":
            raise problem("must be a duration with its unit, such as 5us, 500ms, 10s or 2m")
        return value
    return parsed(parse_duration, value)


def _order_name(text: str) -> str:
    return parsed(parse_order, text).name


def _split_order_name(text: str) -> str:
    return parsed(parse_split_order, text).name


def _word(kind: type[StrEnum], also: Mapping[str, StrEnum] | None = None) -> Callable[[object, ValidationInfo], object]:
    """A validator that reads a member of ``kind``, or one of the other spellings."""

    def read(value: object, info: ValidationInfo) -> object:
        if isinstance(value, str):
            if also and value in also:
                return also[value]
            if value in tuple(kind):
                return kind(value)
        hint = did_you_mean(str(value), kind, f"use {listed(kind)}")
        raise problem(f"unknown {key_of(info.field_name or '')} {shown(value)}; {hint}")

    return read


Size = Annotated[int, BeforeValidator(_size)]
Duration = Annotated[int, BeforeValidator(_duration)]
OrderText = Annotated[str, AfterValidator(_order_name)]
SplitOrderText = Annotated[str, AfterValidator(_split_order_name)]
Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
ScenarioName = Annotated[Scenario, BeforeValidator(_word(Scenario))]
BackingName = Annotated[Backing, BeforeValidator(_word(Backing, {name: each for each, name in SELFTEST_NAMES.items()}))]
RebuilderName = Annotated[Rebuilder, BeforeValidator(_word(Rebuilder))]
RecoverName = Annotated[Recover, BeforeValidator(_word(Recover))]
LockingName = Annotated[Locking, BeforeValidator(_word(Locking))]
CmoName = Annotated[Cmo, BeforeValidator(_word(Cmo))]
PatternName = Annotated[Pattern, BeforeValidator(_word(Pattern))]
