"""One number as text for a table cell: short, with its unit, and no more digits than it deserves."""

from __future__ import annotations

import textwrap
from typing import Any, Final

from stress.units import format_ns

#: The cell of a figure that was not measured.
NONE: Final = "-"
NO_RATIO: Final = "no ratio"

_LARGE: Final = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def time(ns: float | None) -> str:
    """A time in ns as people read it: ``34.2 us``."""
    return NONE if ns is None else format_ns(ns)


def count(value: int | None) -> str:
    """An exact count up to six digits, then three significant ones: ``12,345``, ``1.23 M``."""
    if value is None:
        return NONE
    return f"{value:,}" if abs(value) < 1_000_000 else scaled(value)


def scaled(value: float | None) -> str:
    """Three significant digits and a decimal prefix: ``312 M``."""
    if value is None:
        return NONE
    for factor, prefix in _LARGE:
        if abs(value) >= 0.9995 * factor:
            return f"{_three_digits(value / factor)} {prefix}"
    return _three_digits(value)


def _three_digits(value: float) -> str:
    magnitude = abs(value)
    return f"{value:.{2 if magnitude < 9.995 else 1 if magnitude < 99.95 else 0}f}"


def share(value: float | None) -> str:
    """A share in percent: ``1.2%``; a share that is not quite 0 or 100% never looks like it."""
    if value is None:
        return NONE
    percent = 100 * value
    if value in (0, 1):
        return f"{percent:.0f}%"
    decimals = 1 if 0.1 <= percent <= 99.9 else 2
    return f"{min(max(percent, 0.01), 99.99):.{decimals}f}%"


def factor(value: float | None) -> str:
    """A ratio: three decimals about 1, two significant digits when small: ``0.031``, ``1.004``, ``31.2``."""
    if value is None:
        return NONE
    if value == 0:
        return "0"
    if value < 0.01:
        return f"{value:.2g}"
    return f"{value:.{3 if value < 9.9995 else 1 if value < 99.95 else 0}f}"


def ratio(found: dict[str, Any]) -> str:
    """A ratio with its interval: ``0.031x [0.028, 0.036]``; ``?`` for an unknown bound, none if predicted."""
    if found["ratio"] is None:
        return NO_RATIO
    if found["low"] is None:
        return f"{factor(found['ratio'])}x{' (no interval)' if 'reason' in found else ''}"
    high = "?" if found["high"] is None else factor(found["high"])
    return f"{factor(found['ratio'])}x [{factor(found['low'])}, {high}]"


def name(text: str, width: int = 20) -> str:
    """An order's name on as many lines of ``width`` as it takes; lists of steps break after commas."""
    lines = textwrap.wrap(text.replace(",", ", "), width, break_on_hyphens=False) or [""]
    return "\n".join(line.replace(", ", ",") for line in lines)
