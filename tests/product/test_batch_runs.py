"""Runs with --batch: what the result says of several blocks that are rebuilt together."""

from __future__ import annotations

import pytest
from live import run_json


@pytest.mark.parametrize(("rebuilder", "per_rebuild"), [("hypervisor", 1), ("vcpu", 2)])
def test_a_batch_has_a_rebuild_per_block_and_one_tlbi(rebuilder: str, per_rebuild: int) -> None:
    """Where a vCPU rebuilds the end of dirty logging takes one more."""
    tables = ("--block-size", "2M", "--blocks", "8", "--rebuilds", "24", "--dwell", "0.1ms", "-v", "1")
    alone, together = (
        run_json("run", "--order", "block-first", *tables, "--rebuilder", rebuilder, "--batch", batch)["orders"][0]
        for batch in ("1", "8")
    )
    assert alone["rebuilds"] == together["rebuilds"] == 24
    assert alone["tlbis"] - together["tlbis"] == per_rebuild * (24 - 24 // 8)
