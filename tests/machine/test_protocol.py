"""Kernels access each word that decides what happens by a function of the atomics: others may see and order them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from machines import rebuild_block, split_block

import stress
from stress.kernels import tlbi
from stress.orders import BLOCK_FIRST
from stress.shm import accounts, atomics, words
from stress.shm.layout import PROTOCOL, RECORDS, REGIONS, Machine
from stress.shm.mode import JIT_DISABLED
from stress.shm.processor import Processor, use
from stress.shm.toy import Toy, toy_geo
from stress.shm.words import SEQUENCE

COMPILED = [path for part in ("kernels", "shm") for path in sorted((Path(stress.__file__).parent / part).glob("*.py"))]


def plain_accesses(source: str) -> list[tuple[int, str]]:
    """Line and region of each place where a compiled function indexes, or gives away, a region of the protocol."""
    found = []
    for function in ast.walk(ast.parse(source)):
        if not isinstance(function, ast.FunctionDef):
            continue
        marks = {mark.id for mark in function.decorator_list if isinstance(mark, ast.Name)}
        if not marks & {"kernel", "inline", "entry"}:
            continue
        allowed = set()
        for call in ast.walk(function):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.args:
                name = call.func.id
                if name == "len" or hasattr(atomics, name):
                    allowed.add(id(call.args[0]))
        for part in ast.walk(function):
            if not isinstance(part, ast.Attribute) or id(part) in allowed:
                continue
            if part.attr in PROTOCOL and ast.unparse(part.value) == "s":
                found.append((part.lineno, part.attr))
    return found


@pytest.mark.parametrize("path", COMPILED, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_no_kernel_indexes_a_region_of_the_protocol(path: Path) -> None:
    assert plain_accesses(path.read_text()) == []


@pytest.mark.parametrize(
    "statement",
    ["s.tables[i] = 0", "x = s.control[HEAD]", "row = s.tlbi[i]", "s.page_count[i] += 1", "other(s.dirty)"],
)
def test_such_an_access_would_be_found(statement: str) -> None:
    assert len(plain_accesses(f"@kernel\ndef f(s, i):\n    {statement}\n")) == 1
    assert plain_accesses("@kernel\ndef f(s, i):\n    put(s.tables, i, len(s.dirty))\n") == []


def names_in(index: ast.expr) -> Iterator[str]:
    """Names that an index is made of, but not those of other accesses in it."""
    if isinstance(index, ast.Name):
        yield index.id
    elif not isinstance(index, ast.Subscript | ast.Call):
        for part in ast.iter_child_nodes(index):
            if isinstance(part, ast.expr):
                yield from names_in(part)


def foreign_words(source: str) -> list[tuple[str, str]]:
    """Region and name of each word that a compiled function looks for in a region of the other kind."""
    found = []
    for part in ast.walk(ast.parse(source)):
        place = part.args if isinstance(part, ast.Call) else []
        if isinstance(part, ast.Subscript):
            place = [part.value, part.slice]
        if len(place) < 2 or not isinstance(place[0], ast.Attribute) or ast.unparse(place[0].value) != "s":
            continue
        if (region := place[0].attr) in REGIONS:
            other = accounts if region in PROTOCOL or region in PRIVATE else words
            found += [(region, name) for name in names_in(place[1]) if name in vars(other)]
    return found


@pytest.mark.parametrize("path", COMPILED, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_no_kernel_looks_for_a_word_in_a_region_of_the_other_kind(path: Path) -> None:
    assert foreign_words(path.read_text()) == []


def test_such_a_word_would_be_found() -> None:
    assert len(foreign_words("load(s.control, PHASE)\ns.states[who, WALKING] = 1\nload(s.procs, (who, STATE))\n")) == 3


#: Kernels that do both: they count and time what they do, say that they get on, or read the order under test.
BOTH = {
    *("conflict", "fault", "holding", "lockless", "mmu_lock", "pool"),
    *("rebuild", "recover", "split", "splitting", "steps", "teardown", "vcpu"),
}
#: Kernels that only count, time, judge and trace.
JUST_RECORD = {"cost", "inject", "oracle", "records", "drain", "edges", "events", "histogram", "trace_log", "layout"}


@pytest.mark.parametrize("path", COMPILED, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_all_other_kernels_decide_and_touch_no_accounts(path: Path) -> None:
    taken = {
        name.name
        for statement in ast.walk(ast.parse(path.read_text()))
        if isinstance(statement, ast.ImportFrom) and statement.module == "stress.shm.accounts"
        for name in statement.names
    }
    if path.stem not in BOTH | JUST_RECORD:
        assert taken <= {"Kind", "State"}


class Recorder(Processor):
    """Notes what was done to which array."""

    def __init__(self) -> None:
        self.done: list[tuple[str, int, Any]] = []

    def load(self, array: Any, index: Any) -> int:
        self.done.append(("load", id(array), index))
        return super().load(array, index)

    def get(self, array: Any, index: Any) -> int:
        self.done.append(("get", id(array), index))
        return super().get(array, index)

    def store(self, array: Any, index: Any, value: int) -> None:
        self.done.append(("store", id(array), index))
        super().store(array, index, value)

    def put(self, array: Any, index: Any, value: int) -> None:
        self.done.append(("put", id(array), index))
        super().put(array, index, value)

    def update(self, array: Any, index: Any, new: Any) -> int:
        self.done.append(("update", id(array), index))
        return super().update(array, index, new)

    def compare_exchange(self, array: Any, index: Any, expected: int, value: int) -> bool:
        self.done.append(("compare_exchange", id(array), index))
        return super().compare_exchange(array, index, expected, value)

    def fence(self) -> None:
        self.done.append(("fence", 0, None))

    def of(self, array: Any) -> list[str]:
        """What was done to ``array``, in order."""
        return [what for what, which, _ in self.done if which == id(array)]


#: Regions that one process alone uses, or nobody writes to while vCPUs run.
PRIVATE = ("batches", "building", "orders", "programs", "copy")

needs_twins = pytest.mark.skipif(not JIT_DISABLED, reason="compiled code has this machine's processor")


@needs_twins
def test_another_processor_sees_every_change_of_a_rebuild() -> None:
    s = Toy(toy_geo()).machine
    seen = Recorder()
    before = {name: getattr(s, name).copy() for name in PROTOCOL}
    with use(seen):
        split_block(s, 0)
        rebuild_block(s, 0, BLOCK_FIRST.steps)
    for name in PROTOCOL:
        changed = (getattr(s, name) != before[name]).any()
        wrote = {"store", "put", "update", "compare_exchange"} & set(seen.of(getattr(s, name)))
        assert wrote or not changed, name
    assert "put" in seen.of(s.tables), "a table is filled before it is linked"
    count = len(seen.done)
    split_block(s, 0)
    assert len(seen.done) == count, "only while it is in use"


@needs_twins
def test_the_row_of_an_invalidation_is_written_by_releases_after_its_number_moved() -> None:
    """On machines whose atomics are LL/SC a plain store behind one may be seen before it."""
    s = Toy(toy_geo()).machine
    seen = Recorder()
    with use(seen):
        tlbi.publish(s, 1, 2)
    assert [(what, index) for what, which, index in seen.done if which == id(s.control)] == [("update", SEQUENCE)]
    assert seen.done[0][0] == "update"
    assert seen.of(s.tlbi) == ["store"] * 3


def test_every_region_is_of_one_kind() -> None:
    kinds = [*PROTOCOL, *RECORDS, *PRIVATE]
    assert sorted(kinds) == sorted(set(Machine._fields) - {"geo"})
