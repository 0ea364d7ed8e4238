"""The grammar of casemate traces, read line by line by a parser that knows nothing of who wrote them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

_TOKEN = re.compile(r'\s*([()]|"[^"]*"|[^\s()"]+)')
_HEX = re.compile(r"0|[1-9a-f][0-9a-f]*")
_DECIMAL = re.compile(r"0|[1-9][0-9]*")
_SOURCE = re.compile(r'"[\w./-]+:[1-9][0-9]*"')

#: Record -> (bare words, fields): a field is a set of words, or empty if its value is a hexadecimal number.
_WORDS: dict[str, tuple[set[str], dict[str, set[str]]]] = {
    "sysreg-write": (
        set(),
        {"sysreg": {f"{r}_el2" for r in ("vtcr", "tcr", "mair", "hcr", "sctlr", "vttbr")}, "value": set()},
    ),
    "mem-init": (set(), {"address": set(), "size": set()}),
    "mem-free": (set(), {"address": set(), "size": set()}),
    "mem-write": (set(), {"mem-order": {"plain", "release"}, "address": set(), "value": set()}),
    "mem-read": (set(), {"address": set(), "value": set()}),
    "hint": (set(), {"kind": {"set_root_lock", "set_owner_root", "release_table"}, "location": set(), "value": set()}),
    "lock": (set(), {"address": set()}),
    "trylock": (set(), {"address": set()}),
    "unlock": (set(), {"address": set()}),
    "barrier": ({"dsb"}, {"kind": {"ish", "ishst", "nsh", "sy"}}),
    "tlbi": ({"vmalls12e1is", "vmalle1is"}, {}),
}
_TLBI_BY_ADDRESS = {"ipas2e1is"}


class GrammarError(Exception):
    """A line that no checker would read."""


@dataclass
class Record:
    """One line: its head, the core, what was bare, and the fields."""

    head: str
    tid: int
    word: str = ""
    texts: dict[str, str] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)


def _parse(line: str) -> list[object]:
    """The s-expression as nested lists of atoms."""
    stack: list[list[object]] = [[]]
    at = 0
    while match := _TOKEN.match(line, at):
        token, at = match[1], match.end()
        if token == "(":
            stack.append([])
        elif token == ")":
            if len(stack) == 1:
                raise GrammarError("a parenthesis too many")
            inner = stack.pop()
            stack[-1].append(inner)
        else:
            stack[-1].append(token)
    if line[at:].strip() or len(stack) != 1 or len(stack[0]) != 1 or not isinstance(stack[0][0], list):
        raise GrammarError("not one s-expression")
    return stack[0][0]


def _read(line: str, expected_id: int) -> Record:
    head, *rest = _parse(line)
    if not isinstance(head, str) or head not in _WORDS:
        raise GrammarError(f"unknown record {head}")
    pairs: list[tuple[str, str]] = []
    bare = []
    for item in rest:
        if isinstance(item, str):
            bare.append(item)
        elif isinstance(item, list) and len(item) == 2 and all(isinstance(part, str) for part in item):
            pairs.append((str(item[0]), str(item[1])))
        else:
            raise GrammarError(f"neither a word nor a pair: {item}")
    if [name for name, _ in pairs[:2]] != ["id", "tid"] or not pairs or pairs[-1][0] != "src":
        raise GrammarError("a record begins with id and tid, and ends with src")
    (_, number), (_, tid), *fields, (_, source) = pairs
    if not _DECIMAL.fullmatch(number) or int(number) != expected_id:
        raise GrammarError(f"id {number} where {expected_id} was expected")
    if not _DECIMAL.fullmatch(tid) or not _SOURCE.fullmatch(source):
        raise GrammarError("tid is a decimal number, src a file and line in quotes")
    words, kinds = _WORDS[head]
    if head == "tlbi" and bare and bare[0] in _TLBI_BY_ADDRESS:
        words, kinds = _TLBI_BY_ADDRESS, {"value": set()}
    if len(bare) != bool(words) or not words.issuperset(bare) or [name for name, _ in fields] != list(kinds):
        raise GrammarError(f"a {head} has other parts")
    record = Record(head, int(tid), bare[0] if bare else "")
    for name, value in fields:
        if kinds[name]:
            if value not in kinds[name]:
                raise GrammarError(f"{name} cannot be {value}")
            record.texts[name] = value
        elif not _HEX.fullmatch(value) or int(value, 16) >> 64:
            raise GrammarError(f"{name}: {value} is no hexadecimal number of 64 bits")
        else:
            record.numbers[name] = int(value, 16)
    return record


def read(lines: Iterable[str]) -> Iterator[Record]:
    """Every record of a trace. Raises `GrammarError`, which names the line."""
    for number, line in enumerate(lines):
        try:
            yield _read(line, number)
        except GrammarError as error:
            raise GrammarError(f"line {number + 1}: {error}: {line.strip()}") from None
