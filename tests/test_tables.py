"""What people read: verdict, numbers, intervals and trouble, in at most 100 plain columns."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from synthetic import head_to_head, order_data, run_data

from stress.errors import UsageError
from stress.orders import BLOCK_FIRST, CLEAN_FIRST, UNMAP_FIRST, parse_order
from stress.results import cells
from stress.results.data import Violation
from stress.results.document import build
from stress.results.tables import FORMATS, WIDTH, compare_table, run_table

CUSTOM = parse_order("clean,invalidate,tlbi,install,unmap")

GRIDS = ("simple", "plain", "github", "grid", "pipe", "rst", "psql", "outline", "rounded_grid")


def rng() -> np.random.Generator:
    return np.random.default_rng(1)


def trouble() -> dict[str, Any]:
    evidence = [{"vcpu": 1, "ipa": 0x4000_1000, "step": "unmap", "note": "\x1b[31mred " + 40 * "word "}]
    orders = [
        order_data(rng(), UNMAP_FIRST, rebuilds=40),
        order_data(rng(), CUSTOM, rebuilds=8, window_ns=123_000_000),
        order_data(rng(), CLEAN_FIRST, rebuilds=0),
        order_data(rng(), BLOCK_FIRST, rebuilds=40),
        order_data(rng(), parse_order("tlbi,install"), rebuilds=40, hit_share=0),
    ]
    return build(
        run_data(
            orders,
            complete=False,
            exit_code=4,
            failure={"who": "vcpu 1", "how": "SIGKILL", "state": "holding mmu_lock"},
            violations=[Violation("stale-translation", 1_234, evidence), Violation("bbm", 1, [])],
        )
    )


def widest(text: str) -> int:
    return max(len(line) for line in text.splitlines())


def row(text: str, title: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(title))


def test_the_verdict_comes_first() -> None:
    document = build(head_to_head(rng()))
    for text in (run_table(document), compare_table(document)):
        first = text.splitlines()[0]
        assert first.startswith("CORRECT: no violation in 400 rebuilds and ")
        assert first.endswith("checked accesses (10.0 s, seed 42)")
        assert "Warnings" not in text
        assert "Violations" not in text


def test_run_table_holds_the_numbers() -> None:
    document = build(head_to_head(rng()))
    text = run_table(document)
    order = document["orders"][1]
    line = row(text, "block-first")
    for value in (
        "200",
        cells.share(order["rebuilds_hit_share"]),
        *(cells.time(order["window_ns"][name]) for name in ("p50", "p99", "max")),
        cells.scaled(order["accesses_per_s"]),
    ):
        assert value in line
    for name in ("window", "spurious", "population", "permission"):
        times = [cells.time(order["stall_by_class_ns"][name][quantile]) for quantile in ("p50", "p90", "p99", "max")]
        cell = "  ".join([name, cells.count(order["faults"][name]), *times]).split()
        assert cell in [line.split() for line in text.splitlines()]
    for step in order["steps"]:
        assert f"{step} " in text


def test_compare_table_shows_ratios_with_intervals() -> None:
    document = build(head_to_head(rng()))
    text = compare_table(document)
    assert "95% interval" in text
    found = document["comparison"][0]["ratios"]
    for title, metric in (
        ("window, median", "window"),
        ("rebuilds hit", "rebuilds_hit_share"),
        ("window faults/rebuild", "window_faults_per_rebuild"),
        ("window stall, p99", "stall_p99"),
        ("accesses/s", "throughput"),
    ):
        ratio = found[metric]
        interval = f"{cells.factor(ratio['ratio'])}x [{cells.factor(ratio['low'])}, {cells.factor(ratio['high'])}]"
        assert row(text, title).endswith(interval)


def test_many_orders_split_into_tables_that_fit() -> None:
    document = trouble()
    text = compare_table(document)
    headers = [line.split() for line in text.splitlines() if line.startswith(10 * " ") and "unmap-first" in line]
    assert headers == [
        ["unmap-first", "clean,invalidate,", "clean-first", "block-first"],
        ["unmap-first", "tlbi,install", "ratio", "[95%", "interval]"],
    ]
    assert "clean-first has no rebuilds" in " ".join(text.split())
    assert "no ratio" in text
    assert "(no interval)" in text


@pytest.mark.parametrize("fmt", GRIDS)
def test_everything_fits_in_100_columns(fmt: str) -> None:
    good = build(head_to_head(rng()))
    assert widest(run_table(good, fmt)) <= WIDTH
    assert widest(compare_table(good, fmt)) <= WIDTH
    if fmt == "simple":
        assert widest(run_table(trouble(), fmt)) <= WIDTH
        assert widest(compare_table(trouble(), fmt)) <= WIDTH


def test_trouble_is_spelled_out() -> None:
    document = trouble()
    for text in (run_table(document), compare_table(document)):
        lines = text.splitlines()
        assert lines[0].startswith("VIOLATIONS: stale-translation 1,234, bbm 1 in 128 rebuilds")
        assert "  What broke: who=vcpu 1 how=SIGKILL state=holding mmu_lock" in lines
        assert "  stale-translation: 1,234, the first 1:" in lines
        assert "  bbm: 1" in lines
        assert any(line.startswith("    vcpu=1 ipa=0x40001000 step=unmap note=") for line in lines)
        for warning in document["warnings"]:
            assert any(line.startswith(f"  {warning['name']}: ") for line in lines)
        assert sum(line.startswith("    remedy: ") for line in lines) == len(document["warnings"])


@pytest.mark.parametrize("fmt", FORMATS)
def test_every_format_works_without_escape_codes(fmt: str) -> None:
    for document in (trouble(), build(head_to_head(rng(), rebuilds=0)), build(run_data([]))):
        for text in (run_table(document, fmt), compare_table(document, fmt)):
            assert type(text) is str
            assert "\x1b" not in text


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(UsageError, match=r"unknown table format 'fancy'; use one of .*simple"):
        run_table(build(head_to_head(rng(), rebuilds=0)), "fancy")


def test_one_order_has_nothing_to_compare() -> None:
    document = build(run_data([order_data(rng())]))
    assert compare_table(document) == run_table(document)


def test_no_rebuilds_show_as_nothing() -> None:
    line = row(run_table(build(run_data([order_data(rng(), rebuilds=0)]))), "unmap-first")
    assert line.split() == ["unmap-first", "0", *["-"] * 6]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0, "0"),
        (0.0312, "0.031"),
        (0.00281, "0.0028"),
        (1.0, "1.000"),
        (9.9996, "10.0"),
        (1234.5, "1234"),
    ],
)
def test_factor(value: float | None, text: str) -> None:
    assert cells.factor(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0.0, "0%"),
        (1.0, "100%"),
        (1e-6, "0.01%"),
        (0.0004, "0.04%"),
        (0.0123, "1.2%"),
        (0.99999, "99.99%"),
    ],
)
def test_share(value: float | None, text: str) -> None:
    assert cells.share(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(999_999, "999,999"), (1_000_000, "1.00 M"), (999_960_000, "1.00 G"), (31_234_567, "31.2 M")],
)
def test_count(value: int, text: str) -> None:
    assert cells.count(value) == text


def test_ratio_without_upper_bound() -> None:
    assert cells.ratio({"ratio": 2.0, "low": 0.5, "high": None}) == "2.000x [0.500, ?]"


def test_long_names_break_after_commas() -> None:
    assert cells.name(CUSTOM.name) == "clean,invalidate,\ntlbi,install,\nunmap"
    assert cells.name("block-first") == "block-first"
