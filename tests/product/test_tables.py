"""What people read: verdict, numbers, intervals and trouble, in at most 100 plain columns."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from synthetic import (
    dirty_log_perf,
    head_to_head,
    migration,
    order_data,
    page_table_test,
    published,
    run_data,
    vcpu_rebuilt,
)

from stress.errors import UsageError
from stress.orders import BLOCK_FIRST, CLEAN_FIRST, NAMED_ORDERS, UNMAP_FIRST, parse_order
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
            violations=[Violation("stale-translation", 1_234, evidence), Violation("bbm", 1, [], by_rule=1)],
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
    assert not [line for line in text.splitlines() if line.split()[:1] in (["rebuild"], ["retry"])]
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


def headers(text: str) -> list[list[str]]:
    """The header lines of the comparison tables, in words."""
    return [line.split() for line in text.splitlines() if line.startswith(10 * " ") and "unmap-first" in line]


def test_orders_with_long_names_and_intervals_split_into_tables_that_fit() -> None:
    text = compare_table(build(run_data([order_data(rng(), order) for order in NAMED_ORDERS.values()])))
    assert widest(text) <= WIDTH
    names = list(NAMED_ORDERS)[1:]
    assert [name for each in headers(text) for name in each[1:3] if name in names] == names


def test_many_orders_split_into_tables_that_fit() -> None:
    document = trouble()
    text = compare_table(document)
    assert headers(text) == [
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
        assert "  stale-translation: 1,234 (1,234 by access), the first 1:" in lines
        assert "  bbm: 1 (1 by rule)" in lines
        assert any(line.startswith("    vcpu=1 ipa=0x40001000 step=unmap note=") for line in lines)
        for warning in document["warnings"]:
            assert any(line.startswith(f"  {warning['name']}: ") for line in lines)
        assert sum(line.startswith("    remedy: ") for line in lines) == len(document["warnings"])


@pytest.mark.parametrize("fmt", FORMATS)
def test_every_format_works_without_escape_codes(fmt: str) -> None:
    for document in (
        trouble(),
        build(head_to_head(rng(), rebuilds=0)),
        build(run_data([])),
        build(page_table_test(rng())),
        build(dirty_log_perf(rng())),
    ):
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


# -- who rebuilt, and the guest's life --------------------------------------------------------


def test_rebuilds_by_vcpus_are_shown_with_their_faults() -> None:
    named = [vcpu_rebuilt(order_data(rng(), order)) for order in NAMED_ORDERS.values()]
    document = build(run_data([*named, order_data(rng(), parse_order("tlbi,install"))]))
    text = run_table(document)
    assert widest(text) <= WIDTH
    assert "vCPUs" in text
    assert row(text, "block-first-deferred").split()[:3] == ["block-first-deferred", "200", "200"]
    assert row(text, "tlbi,install").split()[:3] == ["tlbi,install", "200", "0"]
    shown = [line.split() for line in text.splitlines()]
    assert ["retry", "1,400", "-", "-", "-", "-"] in shown
    assert ["rebuild", "0", "-", "-", "-", "-"] in shown  # of the last order, as the others have some
    assert "vCPUs" not in run_table(build(run_data([order_data(rng())])))


def test_a_migration_is_told_in_words() -> None:
    data = migration(rng())
    told = run_table(build(data)).splitlines()
    assert told[0].startswith("CORRECT: ")
    assert any("all, after logging" in line for line in told)
    assert told[2:4] == [
        "12 migrations: 6 completed (every copy equal to memory), 6 cancelled; 20,000 pages copied",
        "Dirty logging: enabled 12 times, disabled 12 times, 31 harvests of 12,345 dirty pages",
    ]
    data.violations = [Violation("lost-dirty", 1, [])]
    assert "6 completed (not every copy equal to memory)" in run_table(build(data))
    data.life_cycle = {"migrations_cancelled": 1}
    assert "1 migration: 0 completed, 1 cancelled\n" in run_table(build(data))


def test_moves_are_told_in_words() -> None:
    life_cycle = {"collapses": 5, "breakups": 1, "slot_moves": 3, "frames_moved": 2560, "tables_deferred": 7}
    text = run_table(build(run_data([order_data(rng())], scenario="thp", life_cycle=life_cycle)))
    line = "5 THP collapses, 1 break-up, 3 memslot moves, 2,560 frames moved, 7 tables freed after a grace period"
    assert line in " ".join(text.split())
    assert widest(text) <= WIDTH
    eager = run_table(build(run_data([order_data(rng())], life_cycle={"blocks_split_eagerly": 1})))
    assert "\nDirty logging: 1 block split eagerly\n" in eager


def test_a_life_without_events_is_not_told() -> None:
    life_cycle = {"collapses": 0, "harvests": 0, "migrations_completed": 0}
    data = run_data([order_data(rng())], life_cycle=life_cycle)
    assert run_table(build(data)) == run_table(build(run_data([order_data(rng())])))


def test_an_injected_bug_is_named() -> None:
    text = run_table(build(run_data([order_data(rng())], config={"inject": "no-break"})))
    assert "seed 42, no-break injected)" in " ".join(text.split())


# -- what the difference comes from -----------------------------------------------------------


def test_the_clean_is_told_from_the_order() -> None:
    data = published(rng())
    text = compare_table(build(data))
    assert row(text, "clean, median").split()[2:] == 3 * ["130", "ms"]
    assert row(text, "unmap, median").split()[2:] == 3 * ["1.30", "ms"]
    said = " ".join(text.split())
    assert (
        "Of unmap-first's 131 ms rebuild the clean takes 130 ms (99.0%) and the tear-down 1.30 ms (1.0%). "
        "Reordering alone: block-first 1.000x, clean-first 1.000x. "
        "Leaving out the clean, as the RFC's first version did: 0.0099x, but wrong without FWB."
    ) in said
    data.orders[0].cleaned_bytes = 0  # with FWB
    assert "Leaving out the clean" not in compare_table(build(data))


def test_other_steps_are_no_reordering() -> None:
    data = published(rng())
    data.orders = [data.orders[0], order_data(rng(), NAMED_ORDERS["clean-unmapped-first"])]
    data.orders[1].rows["rebuild_ns"] = 65_651_500
    said = " ".join(compare_table(build(data)).split())
    assert "Reordering" not in said
    assert "With other steps: clean-unmapped-first 0.500x. Leaving out the clean, from unmap-first: 0.0099x" in said


def test_nothing_is_found_where_nothing_was_measured() -> None:
    for orders in (
        [order_data(rng(), rebuilds=0), order_data(rng(), BLOCK_FIRST)],
        [order_data(rng()), order_data(rng(), BLOCK_FIRST, rebuilds=0)],
        [order_data(rng(), parse_order("invalidate,tlbi,install")), order_data(rng(), BLOCK_FIRST)],
    ):
        text = compare_table(build(run_data(orders)))
        assert "Leaving out" not in text
    line = row(text, "clean, median").split()
    assert line[2] == "-"
    assert len(line) == 5


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
    assert cells.name(CUSTOM.name) == "clean,invalidate,\ntlbi,install,unmap"
    assert cells.name("invalidate,tlbi,clean-unmapped,install") == "invalidate,tlbi,\nclean-unmapped,\ninstall"
    for name in NAMED_ORDERS:
        assert cells.name(name) == name
    assert cells.name("block-first") == "block-first"
