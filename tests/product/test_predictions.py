"""The page of predictions is what `stress predict` says, and rows that were not fitted on are met."""

from __future__ import annotations

import statistics
import sys
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).parents[2] / "docs"

pytestmark = pytest.mark.timeout(900)  # the event loop may have to be compiled first


def tables() -> list[Any]:
    """The published tables whose profile comes with the program; another's is fitted when the page is written."""
    sys.path.insert(0, str(DOCS))
    try:
        import predictions
    finally:
        sys.path.remove(str(DOCS))
    return [pytest.param(each, id=each.name) for each in predictions.tables() if "platform" in each.about]


@pytest.mark.parametrize("table", tables())
def test_the_page_says_what_is_predicted_and_held_back_rows_are_met(table: Any) -> None:
    page = (DOCS / "predictions.md").read_text(encoding="utf-8")
    assert f"## {table.about['title']}" in page
    held = []
    for row in table.rows:
        predicted = table.predicted(row, table.platform)
        off = predicted / row.published - 1
        line = f"| {row.series} | {row.log.config.vcpus} | {row.published:.4g} | {predicted:.4g} | {off:+.1%} |"
        assert line in page, "run `make docs`"
        if not row.fitted:
            held.append(abs(off))
    assert len(held) >= 3
    assert statistics.median(held) <= 0.10
    assert max(held) <= 0.25
