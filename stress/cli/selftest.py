"""Options in the letters of the KVM selftests (``kvm_page_table_test``, ``dirty_log_perf_test``).

Most letters are short spellings of a key. Others have no key of their own: ``-m`` is a granule and a width of IPA,
``-f N`` and ``-w PERCENT`` are fractions of writes, ``-a`` is a pattern. Some can mean nothing here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

from stress.arch.geometry import BLOCK_SIZES, KIB
from stress.cli.help import SectionOption
from stress.config import Pattern
from stress.errors import UsageError, shown

_Command = TypeVar("_Command", bound=Callable[..., Any])

#: Field -> the letter that means it in the selftests.
LETTERS: Final = {
    "vcpus": "-v",
    "memory": "-b",
    "memslots": "-x",
    "backing": "-s",
    "phys_offset": "-p",
    "iterations": "-i",
    "get_clears": "-g",
    "clear_chunk": "-k",
    "overlap": "-o",
    "seed": "-r",
}

#: ``enum vm_guest_mode`` on arm64 (tools/testing/selftests/kvm/include/kvm_util.h, later kvm_util_base.h), by the
#: version of Linux since which numbers mean this.
MODES: Final = {
    (5, 12): ("p52v48_4k", "p52v48_64k", "p48v48_4k", "p48v48_64k", "p40v48_4k", "p40v48_64k", "pxxv48_4k"),
    (5, 17): (
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
    ),
}
#: Newer kernels number modes otherwise (LPA2 brought p52v48_16k).
_LAST_NUMBERED: Final = (6, 7)
#: More than any kernel has.
_MOST_MODES: Final = 32
#: The kernel whose numbers are meant by default: that of the thread which proposed block-first.
_THREADS_KERNEL: Final = "5.12"

_MODE: Final = re.compile(r"(?:vm_mode_)?(?:p(\d{2}|xx)v\d{2}_)?(\d{1,2})k", re.IGNORECASE)
_VERSION: Final = re.compile(r"v?(\d{1,3})\.(\d{1,3})(?:\.\d{1,3})?", re.ASCII)
_MOST_BITS: Final = 48

#: Letters that mean nothing here: letter -> the option's name, the metavar of its value or None for a flag, what it
#: would do in the selftests, and what is done instead.
MEANINGLESS: Final = {
    "-c": (
        "processors",
        "LIST",
        "pin each vCPU to the processor listed for it",
        "--pin gives each process a core (of those that taskset leaves)",
    ),
    "-e": ("while_disabling", None, "run vCPUs while dirty logging is switched off", "scenario migration does so"),
    "-j": ("independent", None, "run vCPUs on, independent of the iterations", "scenario migration does so"),
    "-n": ("nested", None, "run the guest in a VM of its own (L2)", "there is one level of VMs"),
}


def mode_options(section: str) -> Callable[[_Command], _Command]:
    """Add ``-m`` and ``--selftest-kernel``."""
    return _options(
        section,
        (("-m", "mode"), str, "MODE", "Granule and IPA width as the selftests write them: 4K, p48v48_4k, or a number"),
        (
            ("--selftest-kernel", "selftest_kernel"),
            str,
            "VERSION",
            f"Linux whose number -m is  [default: {_THREADS_KERNEL}]",
        ),
    )


def access_options(section: str) -> Callable[[_Command], _Command]:
    """Add ``-a``, ``-f`` and ``-w``."""
    return _options(
        section,
        (("-a", "at_random"), None, None, "Access pages at random, as --pattern uniform"),
        (("-f", "one_in"), int, "N", "Write one access in N, as --write-fraction 1/N"),
        (("-w", "percent"), int, "PERCENT", "Write this percentage of accesses, as --write-fraction PERCENT/100"),
    )


def meaningless_options(section: str) -> Callable[[_Command], _Command]:
    """Add the letters of `MEANINGLESS`."""
    return _options(
        section,
        *(
            ((letter, name), str if metavar else None, metavar, f"Would {what}; here {instead}")
            for letter, (name, metavar, what, instead) in MEANINGLESS.items()
        ),
    )


def _options(
    section: str, *each: tuple[tuple[str, str], type | None, str | None, str]
) -> Callable[[_Command], _Command]:
    """Add an option of the section for each (names, type of its value or None for a flag, metavar, help)."""

    def add(command: _Command) -> _Command:
        for names, kind, metavar, text in reversed(each):
            command = click.option(
                *names, type=kind, is_flag=kind is None, metavar=metavar, cls=SectionOption, section=section, help=text
            )(command)
        return command

    return add


def translated(options: dict[str, Any]) -> tuple[dict[str, Any], list[str], list[str]]:
    """``options`` with the letters' turned into keys, the problems with them, and what to tell about them."""
    keys = dict(options)
    mode, kernel = keys.pop("mode", None), keys.pop("selftest_kernel", None)
    one_in, percent = keys.pop("one_in", None), keys.pop("percent", None)
    problems: list[str] = []
    notes = [
        f"{letter} would {what}; here {instead}, and the run goes on without"
        for letter, (name, _, what, instead) in MEANINGLESS.items()
        if keys.pop(name, None)
    ]
    if keys.pop("at_random", None):
        _take(keys, "-a", {"pattern": Pattern.UNIFORM}, problems)
    if kernel is not None and (mode is None or not _is_number(mode)):
        problems.append("--selftest-kernel: says what a number given to -m means; give one, or leave it out")
    elif mode is not None:
        name = _named(mode, kernel or _THREADS_KERNEL, problems, notes) if _is_number(mode) else mode.strip()
        if name:
            _take(keys, "-m", _geometry(name, problems), problems)
    if one_in is not None:
        if one_in < 1:
            problems.append(f"-f: must be at least 1, not {one_in}")
        else:
            _take(keys, "-f", {"write_fraction": 1 / one_in}, problems)
    if percent is not None:
        if not 0 <= percent <= 100:
            problems.append(f"-w: must be a percentage from 0 to 100, not {percent}")
        else:
            _take(keys, "-w", {"write_fraction": percent / 100}, problems)
    return keys, problems, notes


def check_mode(mode: str) -> None:
    """Raise `UsageError` unless ``-m`` was given a mode that some Linux, or an option here, has."""
    text = mode.strip()
    match = _MODE.fullmatch(text)
    if not (int(text[:3]) < _MOST_MODES if _is_number(text) else match and int(match[2]) * KIB in BLOCK_SIZES):
        raise UsageError(f"-m: no Linux has mode {shown(mode)}", "write the command line as it was")


def _is_number(mode: str) -> bool:
    return re.fullmatch("[0-9]+", mode.strip()) is not None


def _named(number: str, kernel: str, problems: list[str], notes: list[str]) -> str:
    """The name of a mode that a kernel's selftests number so; "" if there is none."""
    match = _VERSION.fullmatch(kernel.strip())
    version = (int(match[1]), int(match[2])) if match else (0, 0)
    first, last = min(MODES), _LAST_NUMBERED
    if not first <= version <= last:
        problems.append(
            f"--selftest-kernel: {shown(kernel)} is not a version of Linux from {_dotted(first)} to {_dotted(last)}, "
            "whose numbers are known; give -m a name such as p48v48_4k"
        )
        return ""
    modes = MODES[max(since for since in MODES if since <= version)]
    text = number.strip()
    if len(text) > 2 or int(text) >= len(modes):
        problems.append(
            f"-m: unknown mode {shown(number)}; Linux {_dotted(version)} numbers them 0 to {len(modes) - 1}, "
            "--selftest-kernel names another one; or use 4K, 16K, 64K, a name such as p48v48_4k"
        )
        return ""
    name = modes[int(text)]
    notes.append(f"-m {text} is {name} in the selftests of Linux {_dotted(version)} (--selftest-kernel)")
    return name


def _dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


def _take(keys: dict[str, Any], letter: str, values: dict[str, Any], problems: list[str]) -> None:
    for field, value in values.items():
        if keys.get(field) is not None:
            problems.append(f"{letter}: given together with --{field.replace('_', '-')}; give one of them")
        keys[field] = value


def _geometry(name: str, problems: list[str]) -> dict[str, Any]:
    """The keys that a mode stands for."""
    match = _MODE.fullmatch(name)
    if match is None or int(match[2]) * KIB not in BLOCK_SIZES:
        problems.append(f"-m: unknown mode {shown(name)}; use 4K, 16K, 64K, a name such as p48v48_4k, or its number")
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
