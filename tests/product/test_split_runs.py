"""Split orders with real processes: at write faults and eagerly; what is wrong about one is caught, and called so."""

from __future__ import annotations

import pytest
from live import run_json

LOGGED = ("run", "--scenario", "migration", "--block-size", "2M", "--blocks", "2", "--dwell", "1ms", "--rebuilds", "4")


#: Nobody writes, so no fault splits a block before the hypervisor does, which therefore makes blocks again as well.
EAGER = ("--eager-split", "--write-fraction", "0", "--recover", "ioctl")


@pytest.mark.parametrize("eager", [(), EAGER])
@pytest.mark.parametrize("split_order", ["break-first", "split-bbml2"])
def test_a_correct_split_order(split_order: str, eager: tuple[str, ...]) -> None:
    document = run_json(*LOGGED, *eager, "--bbm-level", "2", "--split-order", split_order)
    assert (document["verdict"], document["violations"]) == ("correct", [])
    [order] = document["orders"]
    if eager:
        assert order["rebuilds"] == document["life_cycle"]["blocks_split_eagerly"] > 0
        assert order["mappings"]["splits"] == 0
    else:
        assert order["mappings"]["splits"] > 0


@pytest.mark.parametrize("eager", [(), ("--eager-split",)])
@pytest.mark.parametrize(
    ("split_order", "kind"),
    [("invalidate,tlbi-ipa,link,build", "table-use-after-free"), ("build,link", "stale-translation")],
)
def test_a_wrong_split_order_is_caught(split_order: str, kind: str, eager: tuple[str, ...]) -> None:
    document = run_json(*LOGGED, *eager, "--bbm-level", "2", "--fail-fast", "--split-order", split_order)
    [found] = document["violations"]
    assert (found["kind"], found["evidence"][0]["step"]) == (kind, "link")
