"""Every store to an entry that a walker may reach goes through one function, which asks the rules."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import stress

SOURCES = Path(stress.__file__).parent
STORES = {
    "store", "put", "publish", "exchange", "compare_exchange",
    "fetch_add", "fetch_and", "fetch_or", "fetch_max", "set_bits", "clear_bits",
}  # fmt: skip

#: Who else may write to ``tables``: pages that no walker can reach yet, or any more.
UNREACHABLE = {
    ("kernels/pool.py", "clear_table"): "zeroes a page that only its caller has",
    ("kernels/pool.py", "free_table"): "poisons a page that nothing points to",
    ("kernels/unlinked.py", "fill_last"): "fills a table before it is linked",
    ("kernels/unlinked.py", "fill_table"): "fills a table before it is linked",
    ("shm/layout.py", "initialise"): "before any process runs",
}
THE_ONE = ("kernels/entries.py", "write_entry")


def is_tables(node: ast.AST) -> bool:
    """``s.tables``, or a slice or element of it."""
    while isinstance(node, ast.Subscript):
        node = node.value
    return isinstance(node, ast.Attribute) and node.attr == "tables"


def stores(tree: ast.AST) -> Iterator[ast.AST]:
    """Whatever writes to ``tables`` in a function: an atomic, an assignment, or an alias that could hide one."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id in STORES and node.args and is_tables(node.args[0]):
                yield node
        elif isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(target, ast.Subscript) and is_tables(target) for target in targets) or (
                isinstance(node.value, ast.Attribute) and is_tables(node.value)
            ):
                yield node


def test_every_store_to_a_live_entry_goes_through_one_function() -> None:
    found = set()
    for path in sorted(SOURCES.rglob("*.py")):
        where = path.relative_to(SOURCES).as_posix()
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, ast.FunctionDef) and any(stores(function)):
                found.add((where, function.name))
    assert found == {THE_ONE, *UNREACHABLE}
