"""``stress bench`` from the command line: a step of a real machine slows down; and whatever keeps it from a verdict."""

from __future__ import annotations

import json
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
from commands import Command, command_line, refused
from live import PATIENCE_S, launch_of, wait_until
from suites import BASELINE_LAUNCHES, MACHINE, made_up, suite_in

from benchmarks import unmap
from stress import interrupt
from stress.bench import measure
from stress.bench.suite import KernelCase
from stress.errors import ExitCode, MachineError


@pytest.fixture
def stress(capsys: pytest.CaptureFixture[str]) -> Command:
    return command_line(capsys)


@pytest.mark.timeout(300)
def test_one_step_that_became_slower_is_found_and_named(tmp_path: Path, stress: Command) -> None:
    """Real processes and a real slow-down, spun where the step is done; and nothing else changed."""
    common = ("bench", "--suite", str(suite_in(tmp_path)))
    baseline, output = tmp_path / "baseline.json", tmp_path / "bench.json"
    code, out, err = stress(*common, "--save-baseline", str(baseline))
    assert (code, out.split(":")[0]) == (ExitCode.OK, "MEASURED")
    assert f"0 of {BASELINE_LAUNCHES} launches" in err
    (tmp_path / "machine.toml").write_text(MACHINE.format(rate="2.5e10"))
    code, out, err = stress(*common, "--baseline", str(baseline), "--output", str(output))
    assert code == ExitCode.CHECK_FAILED, out + err
    assert out.startswith("REGRESSION: ")
    unwrapped = " ".join(out.split())
    document = json.loads(output.read_text())
    worse = {
        each["figure"]["name"]: each["worse_by"] for each in document["figures"] if each["verdict"] == "regression"
    }
    assert {"no-fwb: clean of clean-first", "no-fwb: clean of block-first"} <= worse.keys()
    for name, by in worse.items():
        assert 0.1 < by < 10, name
        assert f"REGRESSION {name}: " in unwrapped
        assert f"worse by {100 * by:.1f}% (limit 10%" in unwrapped


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    return made_up(monkeypatch)


@pytest.fixture
def saved(tmp_path: Path, stress: Command, measured: dict[str, Any]) -> tuple[str, ...]:
    """The arguments of a comparison with a baseline."""
    common = ("bench", "--suite", str(suite_in(tmp_path)))
    code, _, _ = stress(*common, "--save-baseline", str(tmp_path / "baseline.json"))
    assert code == ExitCode.OK
    return (*common, "--baseline", str(tmp_path / "baseline.json"))


def test_the_same_again_is_no_regression(stress: Command, saved: tuple[str, ...], measured: dict[str, Any]) -> None:
    code, out, _ = stress(*saved)
    assert (code, out.split(":")[0]) == (ExitCode.OK, "NO REGRESSION")
    code, out, _ = stress(*saved, "--json")
    assert {each["verdict"] for each in json.loads(out)["figures"]} == {"same"}
    measured["samples"]["no-fwb: window of block-first"] = [1.0]
    code, out, _ = stress(*saved, "--format", "github")
    assert code == ExitCode.OK
    assert "improvement" in out


def test_what_seems_worse_but_scatters_is_no_pass(
    stress: Command, saved: tuple[str, ...], measured: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    ratios = iter([2.0, 3.5, 3.5, 3.5])

    def launch(*arguments: Any, **keywords: Any) -> str:
        measured["samples"]["no-fwb: window of block-first"] = [next(ratios)]
        return json.dumps(measured)

    monkeypatch.setattr(measure, "_process", launch)
    code, out, _ = stress(*saved)
    assert code == ExitCode.BROKEN
    assert out.startswith("UNDECIDED: 1 of 3 figures")
    assert "too few samples" in out


def test_without_a_baseline_nothing_is_judged(stress: Command, tmp_path: Path, measured: dict[str, Any]) -> None:
    code, out, _ = stress("bench", "--suite", str(suite_in(tmp_path)), "--launches", "2")
    assert code == ExitCode.OK
    assert "2 launches" in out
    assert "Nothing was compared" in out


def test_a_launch_that_is_not_whole_and_correct_gives_no_verdict(
    stress: Command, saved: tuple[str, ...], measured: dict[str, Any]
) -> None:
    measured["violations"] = ["not-at-poc"]
    code, out, err = stress(*saved)
    assert (code, out) == (ExitCode.CHECK_FAILED, "")
    assert "case no-fwb: the oracle found not-at-poc" in err
    measured |= {"violations": [], "complete": False, "failure": {"what": "died"}}
    code, out, err = stress(*saved)
    assert (code, out) == (ExitCode.BROKEN, "")
    measured |= {"complete": True, "samples": {"no-fwb: another": [1.0]}}
    code, out, err = stress(*saved)
    assert (code, out) == (ExitCode.BROKEN, "")
    assert "only one side has no-fwb: another, no-fwb: clean of" in err


def test_too_few_launches_are_refused_before_anything_is_measured(
    stress: Command, saved: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "_process", lambda *arguments, **keywords: pytest.fail("it was measured"))
    line = refused(stress(*saved, "--launches", "2"), ExitCode.BROKEN)
    assert "2 launches against 5 cannot show" in line


def test_a_baseline_that_does_not_fit_is_refused(
    stress: Command, saved: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "_process", lambda *arguments, **keywords: pytest.fail("it was measured"))
    assert "no such file" in refused(stress(*saved, "--baseline", str(tmp_path / "none.json")))
    suite_in(tmp_path, duration="1s")
    assert "another suite" in refused(stress(*saved))
    suite_in(tmp_path)
    baseline = tmp_path / "baseline.json"
    baseline.write_text(baseline.read_text().replace('"cpu_model": "', '"cpu_model": "not '))
    assert "another machine" in refused(stress(*saved))
    baseline.write_text(baseline.read_text()[:-40])
    assert "cut off" in refused(stress(*saved))


def test_bad_usage(stress: Command, tmp_path: Path) -> None:
    both = ("--baseline", "a", "--save-baseline", "b")
    assert "exclude each other" in refused(stress("bench", *both))
    assert "leave out --only" in refused(stress("bench", "--only", "2m", "--save-baseline", "a"))
    assert "no case 'x'" in refused(stress("bench", "--only", "x"))
    assert "no directory" in refused(stress("bench", "--save-baseline", str(tmp_path / "none" / "baseline.json")))
    suite = suite_in(tmp_path, block="bloc", vcpus="cpus")
    line = refused(stress("bench", "--suite", str(suite)))
    assert "order-case[0].run.vcpus: missing" in line
    assert "order-case[0].run.blocs: unknown key" in line


def test_a_case_that_goes_wrong_in_its_process(stress: Command, tmp_path: Path) -> None:
    """The real process is told to stop."""
    suite = suite_in(tmp_path, duration="20s")

    def stop() -> None:
        wait_until(lambda: launch_of(os.getpid()), PATIENCE_S, "the first launch")
        interrupt.requested.set()

    stopper = threading.Thread(target=stop)
    stopper.start()
    try:
        code, out, err = stress("bench", "--suite", str(suite))
    finally:
        stopper.join()
        interrupt.requested.clear()
    assert (code, out) == (ExitCode.INTERRUPTED, "")
    assert "nothing was compared" in err


def test_a_kernel_case_is_measured_in_a_process_of_its_own() -> None:
    case = KernelCase(name="faults", group="fault", rounds=3, threshold=0.1)
    if shutil.which("gcc") is None:
        with pytest.raises(MachineError, match=r"case faults: .* gcc"):
            measure._kernel_case(case)
        return
    samples = measure._kernel_case(case)
    assert "faults: faults, pages mapped" in samples
    assert all(len(ratios) == 3 and min(ratios) > 0 for ratios in samples.values())


@pytest.mark.skipif(not shutil.which("gcc"), reason="compares compiled code with C")
def test_the_unmap_contest_is_of_the_same_work() -> None:
    """It compares what both leave behind, first."""
    [figure] = unmap.figures(1)
    assert figure.ratio > 0


def test_kernel_cases_need_a_checkout(stress: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "_CHECKOUT", tmp_path)
    assert "run stress bench from a checkout" in refused(stress("bench", "--only", "unmap"), ExitCode.MACHINE)


def test_output_never_replaces_what_is_read_or_saved(stress: Command, saved: tuple[str, ...], tmp_path: Path) -> None:
    baseline = tmp_path / "baseline.json"
    before = baseline.read_bytes()
    assert "would replace" in refused(stress(*saved, "--output", str(tmp_path / "." / "baseline.json")))
    assert baseline.read_bytes() == before
    new = str(tmp_path / "new.json")
    assert "would replace" in refused(stress(*saved[:3], "--save-baseline", new, "--output", new))


def test_a_full_disk_hides_no_verdict(stress: Command, saved: tuple[str, ...], measured: dict[str, Any]) -> None:
    code, out, err = stress(*saved, "--output", "/dev/full")
    assert (code, out.split(":")[0]) == (ExitCode.BROKEN, "NO REGRESSION")
    assert "no space left" in err
    code, out, err = stress(*saved[:3], "--save-baseline", "/dev/full")
    assert (code, out.split(":")[0]) == (ExitCode.BROKEN, "MEASURED")
    assert "saved" not in err
    measured["samples"]["no-fwb: window of block-first"] = [9.0]
    code, out, err = stress(*saved, "--output", "/dev/full")
    assert (code, out.split(":")[0]) == (ExitCode.CHECK_FAILED, "REGRESSION")
    assert "no space left" in err
