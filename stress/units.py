"""Conversion of sizes and durations as people write them to integer bytes and nanoseconds, and back."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Final

from stress.errors import UsageError, shown

#: Binary units: 1K = 1024 bytes, as page sizes are written.
SIZE_UNITS: Final = {"": 1, "B": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
DURATION_UNITS: Final = {
    "ns": 1,
    "us": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}

#: Nothing larger fits the 64-bit integers of compiled code.
_MAX: Final = (1 << 63) - 1

# The number of digits is bounded, so that no input takes long.
_NUMBER: Final = r"([0-9]{1,19}(?:\.[0-9]{1,19})?)"
_SIZE: Final = re.compile(rf"{_NUMBER}\s*([KMGT]?)(?:iB|B)?", re.IGNORECASE)
_DURATION: Final = re.compile(rf"{_NUMBER}\s*(ns|us|µs|ms|s|m|h)")

_SIZE_REMEDY: Final = "write a size as 4K, 2M, 1G or plain bytes"
_DURATION_REMEDY: Final = "write a duration as 250ns, 5us, 500ms, 10s or 2m"


def _scaled(number: str, unit: int, text: str, what: str, remedy: str) -> int:
    value = Fraction(number) * unit
    if value.denominator != 1:
        raise UsageError(f"{what} {shown(text)} is not a whole number of its smallest unit", remedy)
    if value > _MAX:
        raise UsageError(f"{what} {shown(text)} is too large", remedy)
    return int(value)


def parse_size(text: str) -> int:
    """Bytes of ``"1G"``, ``"64K"``, ``"1.5M"`` or ``"4096"``; `UsageError` for anything else."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"{shown(text)} is not a size", _SIZE_REMEDY)
    return _scaled(match[1], SIZE_UNITS[match[2].upper()], text, "size", _SIZE_REMEDY)


def parse_duration(text: str) -> int:
    """Nanoseconds of ``"500ms"``, ``"1.5s"`` or ``"2m"``; a bare ``"0"`` needs no unit."""
    stripped = text.strip()
    if stripped == "0":
        return 0
    match = _DURATION.fullmatch(stripped)
    if match is None:
        raise UsageError(f"{shown(text)} is not a duration", _DURATION_REMEDY)
    return _scaled(match[1], DURATION_UNITS[match[2].replace("µ", "u")], text, "duration", _DURATION_REMEDY)


def format_size(size: int) -> str:
    """The shortest exact spelling of a size in bytes: ``1G``, ``64K``, ``1000``."""
    for unit in ("T", "G", "M", "K"):
        if size and size % SIZE_UNITS[unit] == 0:
            return f"{size // SIZE_UNITS[unit]}{unit}"
    return str(size)


def format_bytes(size: float) -> str:
    """A measured size for people, three significant digits: ``512 B``, ``42.3 MiB``, ``353 GiB``."""
    value, units = float(size), ("B", "KiB", "MiB", "GiB")
    for unit in units:
        if value < 999.5 or unit == units[-1]:
            decimals = 0 if unit == "B" or value >= 99.95 else 1 if value >= 9.995 else 2
            return f"{value:.{decimals}f} {unit}"
        value /= 1024
    raise AssertionError("unreachable")


def format_duration(ns: int) -> str:
    """The shortest exact spelling of a duration in ns, which `parse_duration` reads back: ``500ms``."""
    for unit in ("h", "m", "s", "ms", "us"):
        if ns and ns % DURATION_UNITS[unit] == 0:
            return f"{ns // DURATION_UNITS[unit]}{unit}"
    return f"{ns}ns"


def format_ns(ns: float) -> str:
    """A measured time for people, three significant digits: ``31.2 us``, ``1.40 ms``."""
    magnitude = abs(ns)
    if magnitude < 999.5:
        return f"{ns:.0f} ns"
    for unit in ("us", "ms", "s"):
        value = ns / DURATION_UNITS[unit]
        if abs(value) < 999.5 or unit == "s":
            decimals = 2 if abs(value) < 9.995 else 1 if abs(value) < 99.95 else 0
            return f"{value:.{decimals}f} {unit}"
    raise AssertionError("unreachable")
