"""Options in the letters of the KVM selftests (``kvm_page_table_test``, ``dirty_log_perf_test``).

Most are short spellings of a key. These two say something that has no key of its own: ``-m`` is a granule and a width
of IPA, ``-f N`` a fraction of writes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

from stress.arch.geometry import BLOCK_SIZES, KIB
from stress.cli.help import SectionOption

_Command = TypeVar("_Command", bound=Callable[..., Any])

#: Field -> the letter that means it in the selftests.
LETTERS: Final = {"vcpus": "-v", "memory": "-b", "backing": "-s", "phys_offset": "-p", "iterations": "-i"}

#: ``enum vm_guest_mode`` as Linux 6.1 numbers it on arm64.
MODES: Final = (
    "p52v48_4k",
    "p52v48_64k",
    "p48v48_4k",
    "p48v48_16k",
    "p48v48_64k",
    "p40v48_4k",
    "p40v48_16k",
    "p40v48_64k",
    "pxxv48_4k",
    "p47v64_4k",
    "p44v64_4k",
    "p36v48_4k",
    "p36v48_16k",
    "p36v48_64k",
    "p36v47_16k",
)

_MODE: Final = re.compile(r"(?:vm_mode_)?(?:p(\d{2}|xx)v\d{2}_)?(\d{1,2})k", re.IGNORECASE)
_MOST_BITS: Final = 48


def mode_option(section: str) -> Callable[[_Command], _Command]:
    """Add ``-m``."""
    return click.option(
        "-m",
        "mode",
        metavar="MODE",
        cls=SectionOption,
        section=section,
        help="Granule and IPA width as the selftests write them: 4K, p48v48_4k, or a number of Linux 6.1",
    )


def write_option(section: str) -> Callable[[_Command], _Command]:
    """Add ``-f``."""
    return click.option(
        "-f",
        "one_in",
        type=int,
        metavar="N",
        cls=SectionOption,
        section=section,
        help="Write one access in N, as --write-fraction 1/N",
    )


def translated(options: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """``options`` with ``mode`` and ``one_in`` turned into keys, and the problems with them."""
    keys = dict(options)
    mode, one_in = keys.pop("mode", None), keys.pop("one_in", None)
    problems: list[str] = []
    if mode is not None:
        _take(keys, "-m", _geometry(mode, problems), problems)
    if one_in is not None:
        if one_in < 1:
            problems.append(f"-f: must be at least 1, not {one_in}")
        else:
            _take(keys, "-f", {"write_fraction": 1 / one_in}, problems)
    return keys, problems


def _take(keys: dict[str, Any], letter: str, values: dict[str, Any], problems: list[str]) -> None:
    for field, value in values.items():
        if keys.get(field) is not None:
            problems.append(f"{letter}: given together with --{field.replace('_', '-')}; give one of them")
        keys[field] = value


def _geometry(mode: str, problems: list[str]) -> dict[str, Any]:
    """The keys that a mode stands for."""
    text = mode.strip()
    name = MODES[int(text)] if re.fullmatch("[0-9]{1,2}", text) and int(text) < len(MODES) else text
    match = _MODE.fullmatch(name)
    if match is None or int(match[2]) * KIB not in BLOCK_SIZES:
        shown = repr(mode if len(mode) <= 40 else mode[:37] + "...")
        problems.append(f"-m: unknown mode {shown}; use 4K, 16K, 64K, a name such as p48v48_4k, or its number")
        return {}
    if re.search(r"v64_", name, re.IGNORECASE):
        problems.append(f"-m: {name} is not a mode of arm64; use 4K, 16K, 64K, or a name such as p48v48_4k")
        return {}
    keys: dict[str, Any] = {"granule": int(match[2]) * KIB}
    bits = (match[1] or "xx").lower()
    if bits != "xx":
        if int(bits) > _MOST_BITS:
            problems.append(f"-m: {name} has {bits} bits of IPA, which needs LPA2 or LPA; use at most {_MOST_BITS}")
            return {}
        keys["ipa_bits"] = int(bits)
    return keys
