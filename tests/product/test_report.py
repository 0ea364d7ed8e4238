"""What a report is made of: its sources, its specifications, and files that are no results."""

from __future__ import annotations

import copy
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import Command, command_line, process, refused
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pages import HOSTILE, documents, write_counterexamples, write_run, write_sweep

from stress.errors import UsageError
from stress.report import axes
from stress.report.counterexample_section import counterexample_section
from stress.report.page import render
from stress.report.run_section import Section, run_section
from stress.report.scaling import magnitude, measured
from stress.report.sweep_section import sweep_section
from stress.results.schema import SCHEMA_VERSION
from stress.results.stored import Stored, stored
from stress.results.trials import SweepFile, TrialResult
from stress.results.upgrade import upgraded

DOCUMENTS = documents()


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    return command_line(capsys)


def section(name: str, most_marks: int = 200) -> Section:
    return run_section(f"{name}.json", upgraded(copy.deepcopy(DOCUMENTS[name])), most_marks)


def values(spec: Any, field: str) -> Iterator[Any]:
    """Every value of a field in a specification's data."""
    for part in [spec, *spec.get("layer", ())]:
        for row in part.get("data", {}).get("values", ()):
            if field in row:
                yield row[field]


def titles(found: Section) -> dict[str, int]:
    return {figure.title: len(figure.plots) for figure in found.figures}


# -- sources -----------------------------------------------------------------------------


def test_a_sweep_is_told_from_a_run(tmp_path: Path) -> None:
    run = stored(write_run(tmp_path / "run.json", DOCUMENTS["compared"]))
    assert run == Stored("run.json", document=DOCUMENTS["compared"])
    sweep = stored(write_sweep(tmp_path / "sweep.jsonl")).sweep
    assert sweep
    points = measured(sweep)
    assert [point.values for point in points[::2][:2]] == [
        {"vcpus": 1, "granule": "4K"},
        {"vcpus": 1, "granule": "64K"},
    ]
    assert [point.values for point in points[::2]] == [point.values for point in points[1::2]]
    assert len(points) == 12


def test_trials_without_a_result_are_counted(tmp_path: Path) -> None:
    path = write_sweep(tmp_path / "sweep.jsonl", repeats=1)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]))
    sweep = stored(path).sweep
    assert sweep
    facts = dict(sweep_section("sweep.jsonl", sweep).facts)
    assert (facts["measurements"], facts["without a result"]) == ("5", "1")


def test_a_counterexample_is_told_and_the_line_that_breaks_the_rule_is_marked(tmp_path: Path) -> None:
    source = stored(write_counterexamples(tmp_path / "kept.json"))
    assert source.counterexamples
    found = counterexample_section(source.name, source.counterexamples)
    met, leak = found.lanes
    assert list(met.broken) == [False, False, True]
    assert met.rules == ["tlb-conflict: I_HYQMB"]
    assert "an audit at the end does" in leak.note
    assert found.findings == ["To play them again: stress verify --replay kept.json"]
    page = render([source])
    assert page.count('<tr class="broken">') == 1
    assert page.count('class="lane acts"') == 3


def test_a_counterexample_is_printed_again(tmp_path: Path) -> None:
    printed = stored(write_counterexamples(tmp_path / "kept.json")).table("simple")
    assert "invalidate,install,unmap: VIOLATION: tlb-conflict\nrebuild, 1 vCPU\n" in printed
    assert ">>> tlb-conflict" in printed


def test_a_counterexample_without_a_timeline_is_refused(tmp_path: Path) -> None:
    path = write_counterexamples(tmp_path / "kept.json")
    kept = json.loads(path.read_text())
    del kept[1]["timeline"]
    path.write_text(json.dumps(kept))
    with pytest.raises(UsageError, match=r"no whole counterexample, 1\.timeline is missing"):
        stored(path)
    kept[0]["timeline"]["rows"][1].pop()
    path.write_text(json.dumps(kept[:1]))
    with pytest.raises(UsageError, match=r"no whole counterexample, 0\.timeline is missing or wrong"):
        stored(path)
    path.write_text(json.dumps([{**kept[0], "version": 99}]))
    with pytest.raises(UsageError, match="another version than 1"):
        stored(path)


# -- what is drawn, and what is said where nothing can be --------------------------------


def test_a_comparison_has_every_plot() -> None:
    found = section("compared")
    assert list(titles(found).values()) == [1, 1, 4, 1, 1, 1]
    assert found.verdict == "correct"
    assert "block-first: median invalid window 0.03" in found.findings[0]
    assert dict(found.facts)["rebuilds"] == "600"


def test_an_old_result_says_why_a_plot_is_missing() -> None:
    found = section("old")
    without = {figure.title for figure in found.figures if "earlier stress" in figure.note}
    assert without == {"Invalid window", "Stalls by class of fault", "Throughput over time", "Invalid window over time"}
    assert {title for title, plots in titles(found).items() if plots} == {
        "Ratios over unmap-first",
        "Where a rebuild's time goes",
    }
    assert next(figure.table for figure in found.figures if figure.title == "Invalid window")


def test_an_order_that_never_breaks_the_entry_is_said_and_not_drawn() -> None:
    document = copy.deepcopy(DOCUMENTS["compared"])
    order = document["orders"][1]
    order["window_histogram"] = {"lower_ns": [0], "upper_ns": [1], "count": [200]}
    order["window_ns"] |= dict.fromkeys(("p50", "p90", "p99", "max"), 0)
    figure = next(each for each in run_section("x", document, 200).figures if each.title == "Invalid window")
    assert "block-first: 100% of rebuilds never made the entry invalid" in figure.note
    assert min(values(figure.plots[0], "ns")) > 0


def test_a_distribution_rises_from_nothing_to_all_and_meets_its_quantiles() -> None:
    figure = next(each for each in section("compared").figures if each.title == "Invalid window")
    for order, layer in zip(DOCUMENTS["compared"]["orders"], figure.plots[0]["layer"], strict=False):
        line = [(row["ns"], row["share"]) for row in layer["data"]["values"]]
        assert line == sorted(line)
        assert (line[0][1], line[-1][1]) == (0, 1)
        assert line[-1][0] == order["window_ns"]["max"]
        assert min(share for ns, share in line if ns >= 1.13 * order["window_ns"]["p50"]) >= 0.5


def test_the_line_below_a_bar_is_the_window() -> None:
    figure = section("compared").figures[-1]
    lines = {row["order"]: row for row in figure.plots[0]["layer"][-1]["data"]["values"]}
    for order in DOCUMENTS["compared"]["orders"]:
        inside = order["steps"][order["steps"].index("invalidate") : order["steps"].index("install") + 1]
        length = sum(order["step_ns"][step]["mean"] for step in inside)
        assert lines[order["order"]]["to"] - lines[order["order"]]["from"] == pytest.approx(length)


def test_marks_are_thinned_out() -> None:
    for most in (200, 20):
        figure = next(each for each in section("compared", most).figures if "window over" in each.title)
        assert len(list(values(figure.plots[0], "at"))) == 3 * most


def test_many_files_make_a_bounded_page() -> None:
    run = Stored("x.json", document=DOCUMENTS["compared"])
    one, many = (len(render([run] * count)) for count in (1, 30))
    assert one < 1_200_000
    assert many - one < 29 * 120_000


def test_scaling_has_a_line_per_order_and_other_key(tmp_path: Path) -> None:
    sweep = stored(write_sweep(tmp_path / "sweep.jsonl")).sweep
    assert sweep
    found = sweep_section("sweep.jsonl", sweep)
    assert titles(found) == {"Scaling with vcpus": 6, "Scaling with granule": 6}
    window = found.figures[0].plots[0]
    assert set(values(window, "series")) == {
        f"{order}, granule {granule}" for order in ("unmap-first", "block-first") for granule in ("4K", "64K")
    }
    assert set(values(window, "rank")) == {1.0, 2.0, 4.0}
    assert all(low <= high for low, high in zip(values(window, "low"), values(window, "high"), strict=True))
    table = dict(found.tables)["Results: medians over repeats"]
    assert [row[:4] for row in table.rows[:3]] == [
        ("1", "4K", "unmap-first", "2"),
        ("1", "4K", "block-first", "2"),
        ("1", "64K", "unmap-first", "2"),
    ]


def test_where_only_orders_were_swept_they_stand_side_by_side() -> None:
    document = DOCUMENTS["compared"]
    trials = tuple(TrialResult(f"{n}", 0, {"order": "x"}, n, "", document) for n in range(2))
    found = sweep_section("s", SweepFile({"trials": 2}, trials, 0, False))
    assert titles(found) == {"Orders side by side": 6}
    assert set(values(found.figures[0].plots[0], "x")) == {order["order"] for order in document["orders"]}
    assert titles(sweep_section("s", SweepFile({"trials": 3}, (), 0, False))) == {"Orders side by side": 0}


@pytest.mark.parametrize(
    ("value", "expected"),
    [(3, 3), (0.5, 0.5), ("64K", 65536), ("5ms", 5e6), ("zipf", None), (True, None), (["a"], None), (None, None)],
)
def test_swept_values_are_put_in_their_sequence(value: object, expected: float | None) -> None:
    assert magnitude(value) == expected


@given(st.floats(1e-3, 1e12), st.floats(1.5, 1e9))
def test_a_logarithmic_axis_has_a_few_round_ticks_within(low: float, factor: float) -> None:
    scale, ticks = axes.log_scale([low, low * factor])
    first, last = scale["domain"]
    assert first < low <= low * factor < last
    assert 2 <= len(ticks) <= 14
    assert all(first <= tick <= last for tick in ticks)
    assert all(float(f"{tick:.1e}") == tick for tick in ticks)


# -- nothing breaks out ------------------------------------------------------------------


def test_a_page_holds_one_end_per_script() -> None:
    page = render([Stored(HOSTILE, document=DOCUMENTS["wrong"])], HOSTILE)
    assert page.count("</script") == page.count("<script") == 3
    assert "http-equiv" in page
    embedded = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert embedded
    assert len(json.loads(embedded[1])["plots"]) == page.count('class="plot"')
    outside = page.split("<script", 1)[0]
    assert "<img" not in outside
    assert not re.search(r"""(src|href)=["'](?!#|data:,)""", outside)


def _spoil(document: Any, choose: Callable[[list[Any]], Any], junk: Any) -> None:
    """Put ``junk`` somewhere into the document."""
    while True:
        keys = list(document) if isinstance(document, dict) else list(range(len(document)))
        key = choose(keys)
        if isinstance(document[key], dict | list) and document[key] and choose([True, True, True, False]):
            document = document[key]
        else:
            document[key] = junk
            return


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.data())
def test_a_spoilt_document_gives_a_page_or_one_line(data: st.DataObject) -> None:
    document = copy.deepcopy(DOCUMENTS[data.draw(st.sampled_from(sorted(DOCUMENTS)))])
    junk = st.one_of(
        st.none(), st.integers(), st.floats(), st.text(max_size=4), st.just([]), st.just({}), st.just([{}])
    )
    _spoil(document, lambda options: data.draw(st.sampled_from(options)), data.draw(junk))
    try:
        page = render([Stored("x.json", document=document)])
    except UsageError as error:
        assert str(error).startswith("cannot report on x.json: ")
    else:
        assert page.encode().startswith(b"<!doctype html>")


# -- the command -------------------------------------------------------------------------


def test_the_command_writes_a_page(command: Command, tmp_path: Path) -> None:
    run, out = write_run(tmp_path / "run.json", DOCUMENTS["compared"]), tmp_path / "out.html"
    code, text, err = command("report", str(run), "-o", str(out), "--title", "A <b>title</b>")
    assert (code, err) == (0, "")
    assert text.startswith(f"{out}: 1 result, ")
    assert "<title>A &lt;b&gt;title&lt;/b&gt;</title>" in out.read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.html", "run.json"]


def test_without_a_title_the_page_says_what_was_measured(tmp_path: Path) -> None:
    page = render([Stored("run.json", document=DOCUMENTS["compared"])])
    assert "<h1>unmap-first against block-first against clean-first, scenario rebuild</h1>" in page


def test_bad_usage_is_one_line(command: Command, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run.json", DOCUMENTS["old"])
    before = run.read_bytes()
    assert "no such file" in refused(command("report", str(tmp_path / "none.json")))
    assert "one of the results" in refused(command("report", str(run), "-o", str(run)))
    assert "no directory" in refused(command("report", str(run), "-o", str(tmp_path / "no" / "out.html")))
    assert "Missing argument" in refused(command("report"))
    newer = write_run(tmp_path / "newer.json", {"schema_version": SCHEMA_VERSION + 1})
    assert f"schema version {SCHEMA_VERSION + 1}" in refused(command("report", str(run), str(newer)))
    half = write_run(tmp_path / "half.json", {"schema_version": SCHEMA_VERSION})
    out = tmp_path / "out.html"
    out.write_text("what was there")
    assert "no whole result" in refused(command("report", str(half), "-o", str(out)))
    assert out.read_text() == "what was there"
    assert run.read_bytes() == before


def test_bad_usage_loads_no_vega(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPROFILEIMPORTTIME": "1"}
    found = process("report", "nowhere.json", cwd=tmp_path, capture_output=True, env=environment)
    assert found.returncode == 2
    assert "stress.results.stored" in found.stderr  # what it had to import, and when, is listed at all
    assert not re.search(r"\b(vl_convert|jinja2|numba)\b", found.stderr)
