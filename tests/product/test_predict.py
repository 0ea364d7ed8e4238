"""``stress predict`` as its user meets it: the selftest's lines, the same document, published figures, refusals."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from commands import Command, command_line
from predicted import counted

from stress import interrupt, load
from stress.config import from_sources
from stress.errors import Interrupted
from stress.predict import native, predict
from stress.results.document import build
from stress.results.result import Result
from stress.results.schema import RESULT_KEYS

pytestmark = pytest.mark.timeout(900)  # the event loop may have to be compiled first

KUNPENG = {"scenario": "kvm-page-table-test", "platform": "kunpeng920", "backing": "hugetlb-1g", "memory": "20G"}
SELFTEST = ("predict", "--platform", "kunpeng920", "-s", "anonymous_hugetlb_2mb", "-b", "16M", "-v", "2")


@pytest.fixture
def stress(capsys: pytest.CaptureFixture[str]) -> Command:
    return command_line(capsys)


def stage_s(name: str, **options: Any) -> float:
    """Seconds of a stage on the machine of the RFC of 2021."""
    data = predict(from_sources(None, KUNPENG | options))
    (found,) = (stage.duration_ns for stage in data.stages if stage.name == f"KVM_{name}_MAPPINGS")
    return found / 1e9


@pytest.mark.parametrize(
    ("stage", "options", "published_s", "within"),
    [
        # What the profile is fitted on:
        ("ADJUST", {"vcpus": 1, "orders": ["block-first"], "fwb": True}, 0.2436, 0.01),
        ("CREATE", {"vcpus": 20, "orders": ["unmap-first"]}, 3.702, 0.01),
        # And what it is not:
        ("ADJUST", {"vcpus": 1, "orders": ["unmap-first"]}, 2.824, 0.02),
        ("ADJUST", {"vcpus": 20, "orders": ["unmap-first"]}, 2.877, 0.02),
        ("ADJUST", {"vcpus": 20, "orders": ["unmap-first"], "cmo": "per-fault"}, 52.03, 0.02),
        ("CREATE", {"vcpus": 20, "orders": ["unmap-first"], "cmo": "per-fault"}, 52.83, 0.02),
        ("ADJUST", {"vcpus": 20, "orders": ["block-first"], "fwb": True}, 0.2965, 0.10),
    ],
)
def test_the_rfcs_table_is_predicted(stage: str, options: dict[str, Any], published_s: float, within: float) -> None:
    assert stage_s(stage, **options) == pytest.approx(published_s, rel=within)


def test_forty_vcpus_are_played_in_few_events() -> None:
    data = predict(from_sources(None, KUNPENG | {"vcpus": 40}))
    assert counted(data.stages[1])["population"] + counted(data.stages[1])["spurious"] > 100_000_000
    assert data.extra["events_played"] < 100_000


def test_what_the_selftest_prints_is_printed_for_each_order(stress: Command) -> None:
    code, out, err = stress(*SELFTEST, "unmap-first", "clean-first")
    assert code == 0, err
    for order in ("unmap-first", "clean-first"):
        assert f"Under {order}:\nTesting guest mode: PA-bits:40,  VA-bits:48,  4K pages\n" in out
    assert len(re.findall(r"KVM_ADJUST_MAPPINGS: total execution time: \d+\.\d{9}s", out)) == 2
    assert "PREDICTED for kunpeng920, checked by nobody: 16 rebuilds" in out
    assert "Ratios are over unmap-first; a prediction has no noise" in out
    assert "(no interval)" not in out
    assert "guessed-costs: kunpeng920: tlbi-ns, " in out


def test_one_order_gets_the_tables_of_a_run(stress: Command) -> None:
    code, out, _ = stress(*SELFTEST, "block-first")
    assert code == 0
    assert "Where a rebuild's time goes" in out


def test_the_document_is_that_of_a_run(stress: Command, tmp_path: Path) -> None:
    file = tmp_path / "predicted.json"
    code, out, _ = stress(*SELFTEST, "unmap-first", "clean-first", "--json", "--output", str(file))
    assert code == 0
    document = json.loads(out)
    assert document == json.loads(file.read_text())
    assert (document["executor"], document["verdict"], document["complete"]) == ("predict", "predicted", True)
    result = load(file)
    assert isinstance(result, Result)
    assert result.verdict == "predicted"
    assert result.orders["clean-first"].window_ns.p50 == 1_000, "the TLBI alone"
    assert result.orders["unmap-first"].rebuilds == 8
    assert stress("show", str(file))[0] == 0
    assert stress("report", str(file), "-o", str(tmp_path / "page.html"))[0] == 0
    assert "executor" in {key.path for key in RESULT_KEYS}


def test_the_same_seed_predicts_the_same() -> None:
    config = from_sources(None, KUNPENG | {"vcpus": 3, "memory": "64M", "backing": "hugetlb-2m"})
    one, other = (build(predict(config)) for _ in range(2))
    for document in (one, other):
        for key in ("started_at", "extra", "host"):
            del document[key]
    assert one == other


def test_dirty_log_perf_prints_the_selftests_lines(stress: Command) -> None:
    options = ("--scenario", "dirty-log-perf", "-s", "anonymous_thp", "-b", "16M", "-i", "3", "--locking", "shared")
    code, out, err = stress("predict", "block-first", "--platform", "kunpeng920", "-v", "4", *options)
    assert code == 0, err
    assert re.search(r"^Populate memory time: \d+\.\d{9}s$", out, re.MULTILINE)
    assert re.search(r"^Iteration 3 dirty memory time: \d+\.\d{9}s$", out, re.MULTILINE)
    assert "Clear dirty log over 3 iterations took" in out


def test_thp_prints_the_tables_of_a_run(stress: Command) -> None:
    line = "predict clean-unlocked --platform kunpeng920 --scenario thp --blocks 2 --rebuilds 4 --json"
    code, out, err = stress(*line.split(" "))
    assert code == 0, err
    document = json.loads(out)
    assert (document["scenario"], document["verdict"], document["orders"][0]["cycles"]) == ("thp", "predicted", 4)


@pytest.mark.parametrize(
    ("line", "missing"),
    [
        ("unmap-first block-first --scenario thp --blocks 2 --rebuilds 4", "so it compares nothing"),
        ("-s anonymous -b 2M", "no rebuild by unmap-first; no rebuild by block-first"),
    ],
)
def test_a_comparison_that_compares_nothing_is_none(stress: Command, line: str, missing: str) -> None:
    code, out, _ = stress("predict", "--platform", "kunpeng920", *line.split(" "))
    assert code == 4
    assert "NOTHING TESTED for kunpeng920" in out
    assert missing in " ".join(out.split())


def test_thp_has_one_order_if_nothing_is_said(stress: Command) -> None:
    line = "predict --platform kunpeng920 --scenario thp --blocks 2 --rebuilds 4 --json"
    code, out, err = stress(*line.split(" "))
    assert code == 0, err
    assert [each["order"] for each in json.loads(out)["orders"]] == ["unmap-first"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("predict", "platform native models no costs, so everything would take no time; name one that does"),
        (
            "predict --platform kunpeng920 --scenario dirty-log-perf --memslots 2 -f 2",
            "a write fraction between 0 and 1 and several memslots",
        ),
        ("predict --platform kunpeng920 --memslots 2", "several memslots"),
        ("predict nt --platform kunpeng920", "nt needs FEAT_BBM level 1, and the platform has 0"),
        ("predict --platform kunpeng", "did you mean kunpeng920"),
        ("predict unmapfirst --platform kunpeng920", "unknown order"),
        ("predict --platform kunpeng920 --duration 1s", "No such option"),
        ("predict --platform kunpeng920 --output /nowhere/x.json", "/nowhere"),
    ],
)
def test_what_cannot_be_predicted_is_one_line(stress: Command, line: str, words: str) -> None:
    code, out, err = stress(*line.split(" "))
    assert code in (2, 3, 4)
    assert out == ""
    assert len(err.splitlines()) == 1
    assert words in err


def test_an_order_that_leaves_the_entry_invalid_cannot_be_predicted(stress: Command) -> None:
    order = ("tlbi,install,unmap,invalidate", "--bbm-level", "2", "--locking", "shared")
    code, out, err = stress(*SELFTEST, *order)
    assert (code, out) == (2, "")
    assert "the order leaves an entry invalid, and vCPUs would wait for ever; predict orders" in err


def test_what_is_compiled_is_played_without_numba() -> None:
    """Numba takes longer to load than such a prediction to make."""
    predict(from_sources(None, KUNPENG | {"memory": "1G"}))  # compiled, if it was not
    script = (
        "import sys; from stress.cli.main import main\n"
        f"sys.argv = {['stress', *SELFTEST]!r}\n"
        "try: main()\n"
        "except SystemExit as end: assert end.code in (0, None), end.code\n"
        "assert 'stress.predict' in sys.modules\n"
        "print([name for name in sys.modules if name.startswith('numba') or name == 'stress.predict.play'])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_code_that_a_crash_cut_off_is_compiled_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """LLVM would not survive it."""
    file = tmp_path / "predict.o"
    whole = native.framed(b"code")
    compilers = []

    def compile_anew(programs: Sequence[str], interrupted: threading.Event) -> bool:
        compilers.append(programs)
        file.write_bytes(whole)
        return True

    monkeypatch.setattr(native, "run_compilers", compile_anew)
    assert native._code(file) == native._code(file) == b"code"
    for cut in (b"", b"\x7fELF", whole[:-1]):
        file.write_bytes(cut)
        assert native._code(file) == b"code"
    assert len(compilers) == 4


@pytest.mark.timeout(100)
def test_ctrl_c_ends_the_compilation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupt, "requested", threading.Event())
    threading.Timer(0.3, interrupt.requested.set).start()
    with pytest.raises(Interrupted, match="event loop"):
        native._code(tmp_path / "predict.o")
    assert not list(tmp_path.iterdir())
