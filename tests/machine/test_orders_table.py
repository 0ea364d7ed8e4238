"""docs/orders-table.md: each verdict on it is what the rule in words says; some are judged again."""

from __future__ import annotations

import runpy
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from basic_orders import BASIC, Steps

from stress.orders import enumerate_orders
from stress.shm.mode import JIT_DISABLED

DOCS = Path(__file__).resolve().parents[2] / "docs"
INVALIDATE, TLBI, CLEAN, INSTALL, UNMAP = BASIC


def correct(steps: Steps, bbm_level: int, needs_clean: bool) -> bool:
    """What docs/architecture.md says of an order, by positions."""
    at = {step: steps.index(step) for step in steps}
    if not {TLBI, UNMAP} <= at.keys() or (needs_clean and at.get(CLEAN, 9) > at[INSTALL]):
        return False
    if INVALIDATE in at:
        if at[INVALIDATE] < at[TLBI] < min(at[INSTALL], at[UNMAP]):
            return True
        return bbm_level >= 2 and at[INVALIDATE] < at[INSTALL] < at[TLBI] < at[UNMAP]
    return bbm_level >= 2 and at[INSTALL] < at[TLBI] < at[UNMAP]


def tables() -> tuple[dict[str, str], dict[Steps, list[str]]]:
    """Machine -> its column's number, and order -> its cells."""
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in (DOCS / "orders-table.md").read_text().splitlines()
        if line.startswith("|")
    ]
    columns = {name.strip(): row[0] for row in rows if row[0].isdecimal() for name in row[1].split(";")}
    written = {row[0]: row[1:] for row in rows}
    orders = {steps: written[", ".join(steps)] for steps in enumerate_orders(BASIC)}
    return columns, orders


COLUMNS, ORDERS = tables()


def cells() -> Iterator[tuple[str, Steps, str]]:
    """Machine, order and what the page says."""
    for name, column in COLUMNS.items():
        for steps, row in ORDERS.items():
            yield name, steps, row[int(column) - 1]


def test_every_verdict_is_that_of_the_rule() -> None:
    assert (len(ORDERS), len(COLUMNS)) == (261, 24)
    for name, steps, said in cells():
        memory, mapped, level = name.split(", ")
        assert (said == "ok") == correct(steps, int(level), memory == "caches off" and mapped == "partial"), (
            name,
            steps,
        )


@pytest.mark.thorough
@pytest.mark.skipif(not JIT_DISABLED, reason="compiled code cannot be stopped between two accesses")
def test_some_are_judged_again() -> None:
    from stress.search.judging import explore, screen

    page: dict[str, Any] = runpy.run_path(str(DOCS / "orders_table.py"))
    limits = dict(page["machines"]())
    for name, steps, said in Random(7).sample(list(cells()), 12):
        verdict = screen(page["written"](page["program"](steps, limits[name]["fwb"])), limits[name])
        assert said == page["cell"](verdict).replace("?", "ok"), (name, steps)
    name = "caches off, partial, 2"
    assert explore((CLEAN, INSTALL, TLBI, UNMAP), limits[name], None).judgement == "proved"
