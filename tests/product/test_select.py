"""Rows of stored results: what is selected, side by side, and in which words and units."""

from __future__ import annotations

import csv
import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic import head_to_head, order_data, page_table_test, run_data

from stress.config import RunConfig, key_of
from stress.errors import UsageError
from stress.orders import BLOCK_FIRST, UNMAP_FIRST
from stress.results.document import build
from stress.results.pivot import AGGREGATES, pivot, pivot_csv, pivot_tables
from stress.results.rows import (
    Row,
    figure_key,
    figure_text,
    figures_of,
    keys_of,
    parse_condition,
    rows_of,
    rows_of_trials,
    selected,
)
from stress.results.schema import COLUMNS, Document, find_key
from stress.results.store import validated
from stress.results.sweep_table import sweep_table
from stress.results.text import WIDTH
from stress.results.trials import TrialResult


def document(vcpus: int, repeat: int, block_size: int = 2 << 20, **changes: Any) -> dict[str, Any]:
    """A comparison whose window is ``vcpus`` times a microsecond for unmap-first, and a tenth of it for block-first."""
    rng = np.random.default_rng(vcpus * 10 + repeat)
    config = RunConfig(vcpus=vcpus, block_size=block_size, duration_ns=500_000_000)
    orders = [
        order_data(rng, UNMAP_FIRST, rebuilds=50, window_ns=vcpus * 1000),
        order_data(rng, BLOCK_FIRST, rebuilds=50, window_ns=vcpus * 100),
    ]
    return build(run_data(orders, config=config.to_json())) | changes


def trial(point: int, vcpus: int, repeat: int, **changes: Any) -> TrialResult:
    return TrialResult(f"{point}-{repeat}", point, {"vcpus": vcpus}, repeat, "", document(vcpus, repeat, **changes))


#: As a sweep's file has them: in random order.
TRIALS = [trial(1, 4, 0), trial(0, 1, 0), trial(2, 2, 1), trial(0, 1, 1), trial(2, 2, 0), trial(1, 4, 1)]
ROWS = rows_of_trials(TRIALS)


def chosen(*conditions: str) -> list[Row]:
    return selected(ROWS, map(parse_condition, conditions))


def refused(*conditions: str) -> str:
    with pytest.raises(UsageError) as caught:
        chosen(*conditions)
    return str(caught.value)


def test_a_row_per_order_and_run_in_the_order_of_the_configuration() -> None:
    assert [(row.keys["vcpus"], row.keys["repeat"], row.keys["order"]) for row in ROWS] == [
        (vcpus, repeat, order) for vcpus in (1, 4, 2) for repeat in (1, 2) for order in ("unmap-first", "block-first")
    ]


def test_every_option_is_a_key_under_its_own_name() -> None:
    options = {key_of(field) for field in RunConfig.model_fields} - {"orders"}
    assert options <= set(keys_of(ROWS))
    (row, _) = rows_of(document(2, 0))
    assert [row.text(key) for key in ("block-size", "duration", "fwb", "inject", "populated", "vcpus")] == [
        "2M", "500ms", "on", "-", "1.0", "2",
    ]  # fmt: skip


def test_every_figure_is_registered_and_every_default_there() -> None:
    rows = [*ROWS, *rows_of(build(page_table_test(np.random.default_rng(1), passes=3)))]
    assert all(figure_key(path) for path in figures_of(rows))
    assert set(COLUMNS) <= set(figures_of(ROWS))
    assert figure_key("step_ns.unmap.p99") == find_key("orders[].step_ns.<step>.p99")
    assert figure_key("ratios.window.low") == find_key("comparison[].ratios.window.low")
    assert figure_key("stages.x") is None


def test_a_stage_is_a_figure_by_its_name() -> None:
    found = build(page_table_test(np.random.default_rng(1), passes=3))
    times = [each["duration_ns"] for each in found["stages"] if each["name"] == "KVM_ADJUST_MAPPINGS"]
    (row,) = rows_of(found)
    assert row.figures["stages.KVM_ADJUST_MAPPINGS.duration_ns"] == sorted(times)[1]


def test_a_ratio_belongs_to_the_order_that_is_compared() -> None:
    found = document(2, 0)
    baseline, other = rows_of(found)
    assert "ratios.window.ratio" not in baseline.figures
    assert other.figures["ratios.window.ratio"] == found["comparison"][0]["ratios"]["window"]["ratio"]


@pytest.mark.parametrize(
    ("conditions", "vcpus", "count"),
    [
        (["vcpus=2"], {2}, 4),
        (["vcpus>=2", "vcpus!=4"], {2}, 4),
        (["vcpus < 4", "order=block-first"], {1, 2}, 4),
        (["block-size=2M"], {1, 2, 4}, 12),
        (["block-size<2097152"], set(), 0),
        (["duration<=0.5s", "repeat=2"], {1, 2, 4}, 6),
        (["window_ns.p50>1.5us", "order=unmap-first"], {2, 4}, 4),
        (["fwb=on"], {1, 2, 4}, 12),
        (["inject=no-cmo"], set(), 0),
        (["inject!=no-cmo"], {1, 2, 4}, 12),
        (["verdict = correct"], {1, 2, 4}, 12),
    ],
)
def test_conditions_select(conditions: list[str], vcpus: set[int], count: int) -> None:
    found = chosen(*conditions)
    assert ({row.keys["vcpus"] for row in found}, len(found)) == (vcpus, count)


def test_what_cannot_be_compared_is_refused_with_what_was_meant() -> None:
    assert "there is no key or figure 'vcpu' in these results; did you mean vcpus" in refused("vcpu=1")
    assert "did you mean window_ns.p50" in refused("window.p50<1ms")
    assert "--list shows" in refused("zzzzzzzz=1")
    assert "vcpus is a number, not 'two'" in refused("vcpus=two")
    assert "order is a word: < says nothing" in refused("order<block-first")
    assert "is no condition; write KEY=VALUE" in refused("vcpus")
    assert "is not a size" in refused("block-size=big")


@given(st.text(max_size=20))
def test_any_condition_is_met_or_refused(text: str) -> None:
    try:
        found = chosen(text)
    except UsageError as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert len(found) <= len(ROWS)


def test_a_pivot_aggregates_what_is_not_told_apart() -> None:
    figure = "window_ns.p50"
    for name, aggregate in AGGREGATES.items():
        found = pivot(ROWS, ["vcpus"], ["order"], [figure], name)
        assert found.rows == (("1",), ("4",), ("2",))
        assert found.columns == (("unmap-first",), ("block-first",))
        assert found.runs == 2
        for (vcpus,) in found.rows:
            for (order,) in found.columns:
                values = [row.figures[figure] for row in chosen(f"vcpus={vcpus}", f"order={order}")]
                assert found.cells[(vcpus,), (order,), figure] == aggregate([value for value in values if value])


def test_nothing_measured_is_no_zero() -> None:
    empty = build(head_to_head(np.random.default_rng(1), rebuilds=0))
    found = pivot(list(rows_of(empty)), ["order"], [], ["window_ns.p50", "rebuilds"])
    assert list(found.cells.values()) == [0, 0]
    lines = pivot_tables(found).splitlines()
    assert [line.split() for line in lines[3:]] == [["unmap-first", "-", "0"], ["block-first", "-", "0"]]
    assert pivot_csv(found).splitlines()[1] == "unmap-first,,0"


def test_csv_has_plain_numbers() -> None:
    text = pivot_csv(pivot(ROWS, ["vcpus", "repeat"], ["order"], ["window_ns.p50", "accesses_per_s"]))
    records = list(csv.DictReader(io.StringIO(text)))
    assert len(records) == 12
    (row,) = chosen("vcpus=4", "repeat=2", "order=block-first")
    (record,) = (
        each for each in records if (each["vcpus"], each["repeat"], each["order"]) == ("4", "2", "block-first")
    )
    assert float(record["window_ns.p50"]) == row.figures["window_ns.p50"]
    assert float(record["accesses_per_s"]) == row.figures["accesses_per_s"]


def test_figures_look_as_in_the_runs_own_tables() -> None:
    for path, value, text in (
        ("window_ns.p50", 1450.0, "1.45 us"),
        ("rebuilds_hit_share", 0.548, "54.8%"),
        ("accesses_per_s", 3.9e8, "390 M"),
        ("rebuilds", 12.0, "12"),
        ("cleaned_bytes", 1 << 30, "1.00 GiB"),
        ("ratios.window.ratio", 0.016, "0.016"),
        ("window_ns.p50", None, "-"),
    ):
        assert figure_text(path, value) == text


def test_a_sweep_in_a_table() -> None:
    text = sweep_table(TRIALS, ("vcpus",), 6)
    assert text.startswith("CORRECT: 6 of 6 runs done (6 correct)\n")
    for figure in COLUMNS:
        assert f"\n{figure}: " in text
    assert "Each figure is the median of up to 2 runs." in text
    assert max(map(len, text.splitlines())) <= WIDTH


def test_figures_of_different_machines_are_said_to_be() -> None:
    other = trial(3, 7, 0, host={"cpu_model": "Kunpeng 920", "cores": 96, "kernel": "6.1"})
    text = " ".join(sweep_table([*TRIALS, other], ("vcpus",), 7).split())
    assert "Not all of one machine: 6 runs on 8 cores; 1 run on Kunpeng 920, 96 cores, Linux 6.1." in text
    assert "one machine" not in sweep_table(TRIALS, ("vcpus",), 6)


def test_trouble_is_listed_and_left_out_of_the_figures() -> None:
    violations = [{"kind": "bbm", "count": 12, "evidence": []}]
    failure = {"process": "vcpu 0", "what": "died", "how": "killed by SIGKILL"}
    bad = trial(3, 7, 0, verdict="violations", exit_code=1, violations=violations)
    broken = trial(4, 8, 0, verdict="broken", exit_code=4, complete=False, failure=failure)
    failed = TrialResult("5-0", 5, {"vcpus": 9}, 0, "", None, {"exit_code": 3, "message": "too small; enlarge it"})
    text = sweep_table([*TRIALS, bad, broken, failed], ("vcpus",), 9)
    assert text.startswith("VIOLATIONS: 7 of 9 runs done (1 broken, 6 correct, 1 failed, 1 violations)\n")
    assert "  vcpus=7 (run 1): bbm 12\n" in text
    assert "  vcpus=8 (run 1): vcpu 0, died, killed by SIGKILL\n" in text
    assert "  vcpus=9 (run 1): too small; enlarge it" in text
    first_table = text.split("\n\n")[2]
    assert [line.split()[0] for line in first_table.splitlines()[2:]] == ["1", "4", "2", "7"]
    assert sweep_table([broken], ("vcpus",), 1).startswith("INCOMPLETE: 0 of 1 run done (1 broken)")


def test_a_result_has_everything_the_schema_says() -> None:
    whole = document(1, 0)
    validated(Document, whole, "", "")
    validated(Document, build(page_table_test(np.random.default_rng(1))), "", "")
    for key, value in (("orders", 3), ("orders", [{}]), ("verdict", None), ("config", []), ("elapsed_ns", True)):
        with pytest.raises(UsageError, match=key):
            validated(Document, {**whole, key: value}, "", "")
    whole["orders"][0]["window_ns"]["p50"] = "1"
    with pytest.raises(UsageError, match=r"orders\[\]\.window_ns\.p50 is missing or wrong"):
        validated(Document, whole, "", "")
