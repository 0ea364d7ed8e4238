"""What ``stress bench`` keeps of launches, whatever ends it; and who may go on with them."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from commands import Command, command_line, refused
from live import PATIENCE_S, LiveRun, launch_of, live_run, wait_until
from suites import BASELINE_LAUNCHES, LAUNCHES, made_up, suite_in

from stress.bench import kept, measure
from stress.bench.baseline import read
from stress.errors import ExitCode
from stress.results import lines

Answer = dict[str, Any]

#: Beside other work a launch is repeated, each time twice as long, until it has cycles enough.
LONG_S = 4 * PATIENCE_S


@pytest.fixture
def stress(capsys: pytest.CaptureFixture[str]) -> Command:
    return command_line(capsys)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "bench.json"


@pytest.fixture
def common(tmp_path: Path, output: Path) -> tuple[str, ...]:
    return ("bench", "--suite", str(suite_in(tmp_path)), "--output", str(output))


def lines_of(output: Path) -> list[Answer]:
    """The launches kept for a file, without the header."""
    path = output.with_name(f"{output.name}.launches")
    return [json.loads(line) for line in path.read_bytes().splitlines()[1:]] if path.exists() else []


def samples_of(output: Path) -> dict[str, list[list[float]]]:
    found: dict[str, list[list[float]]] = json.loads(output.read_bytes())["samples"]
    return found


# -- with real processes -----------------------------------------------------------------


def ctrl_c(run: LiveRun) -> None:
    os.killpg(run.pid, signal.SIGINT)  # as a terminal does


def kill_a_launch(run: LiveRun) -> None:
    launch = wait_until(lambda: launch_of(run.pid), PATIENCE_S, "the next launch")
    launch.kill()


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("end", "code", "words"),
    [
        (ctrl_c, ExitCode.INTERRUPTED, "interrupted"),
        (kill_a_launch, ExitCode.BROKEN, "case no-fwb: killed by SIGKILL"),
    ],
)
def test_no_launch_that_ended_is_lost(
    end: Callable[[LiveRun], None], code: int, words: str, common: tuple[str, ...], output: Path
) -> None:
    with live_run(*common) as run:
        wait_until(lambda: lines_of(output), LONG_S, "the first launch")
        end(run)
        actual, out, err, _ = run.finish(LONG_S)
    done = len(lines_of(output))
    assert 1 <= done < LAUNCHES
    assert actual == code, out + err
    assert out.startswith(f"INCOMPLETE: {done} of {LAUNCHES} launches done")
    assert words in err
    assert f"{done} of {LAUNCHES} launches are kept in {output}.launches; continue with --resume" in err
    assert "Traceback" not in err
    partial = json.loads(output.read_bytes())
    assert (partial["complete"], words in partial["failure"], "figures" in partial) == (False, True, False)
    before = samples_of(output)
    assert {len(each) for each in before.values()} == {done}
    with live_run(*common, "--resume") as run:
        actual, out, err, _ = run.finish(LONG_S)
    assert (actual, out.split(":")[0]) == (ExitCode.OK, "MEASURED"), err
    assert f"{done} of {LAUNCHES} launches" in err
    whole = json.loads(output.read_bytes())
    assert (whole["complete"], whole["failure"]) == (True, None)
    after = samples_of(output)
    assert {figure: each[:done] for figure, each in after.items()} == before
    assert {len(each) for each in after.values()} == {LAUNCHES}
    assert not output.with_name("bench.json.launches").exists()


@pytest.mark.timeout(900)
def test_a_bench_that_was_killed_itself_goes_on(common: tuple[str, ...], output: Path) -> None:
    with live_run(*common) as run:
        wait_until(lambda: lines_of(output), LONG_S, "the first launch")
        run.process.kill()
        run.process.communicate()
    before = lines_of(output)
    assert before
    assert not output.exists()
    with live_run(*common, "--resume") as run:
        actual, out, err, _ = run.finish(LONG_S)
    assert (actual, out.split(":")[0]) == (ExitCode.OK, "MEASURED"), err
    for launch in before:
        for figure, ratios in launch["samples"].items():
            assert samples_of(output)[figure][launch["launch"]] == ratios


# -- who may go on -----------------------------------------------------------------------


@pytest.fixture
def half(stress: Command, common: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """The gate broken off after two launches; how many have been made since, and each with ratios of its own."""
    answer, made = made_up(monkeypatch), count()

    def launch(*arguments: Any, **keywords: Any) -> str:
        number = next(made)
        samples = {figure: [1.0 + number] for figure in answer["samples"]}
        return json.dumps(answer | {"samples": samples, "complete": number != 2, "failure": {"what": "died"}})

    monkeypatch.setattr(measure, "_process", launch)
    code, out, _ = stress(*common)
    assert (code, out.splitlines()[0].split(" (")[0]) == (ExitCode.BROKEN, "INCOMPLETE: 2 of 4 launches done")
    return lambda: next(made) - 3


def test_it_goes_on_where_it_stopped(
    half: Callable[[], int], stress: Command, common: tuple[str, ...], output: Path
) -> None:
    code, out, err = stress(*common, "--resume", "--json")
    assert (code, half()) == (ExitCode.OK, 2), err
    assert set(map(str, samples_of(output).values())) == {"[[1.0], [2.0], [4.0], [5.0]]"}
    assert any("2 of 4 launches are kept ones, the first of 20" in note for note in json.loads(out)["notes"])
    # Nothing is left to go on with: a new measurement, and it says so.
    code, out, err = stress(*common, "--resume")
    assert (code, half()) == (ExitCode.OK, 7), err  # one is counted by the question before
    assert "no launches were kept: all 4 are made" in err


def test_a_partial_result_is_no_baseline_and_not_judged(
    stress: Command, common: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer, baseline = made_up(monkeypatch), tmp_path / "baseline.json"
    saving = (*common[:3], "--save-baseline", str(baseline))
    ends = iter([True, False, True, True, True, True, True, False])
    monkeypatch.setattr(measure, "_process", lambda *_, **__: json.dumps(answer | {"complete": next(ends)}))
    assert stress(*saving)[0] == ExitCode.BROKEN
    assert not baseline.exists()
    assert stress(*saving, "--resume")[0] == ExitCode.OK
    assert read(baseline).launches == BASELINE_LAUNCHES
    code, out, _ = stress(*common, "--baseline", str(baseline))
    assert (code, out.split(":")[0]) == (ExitCode.BROKEN, "INCOMPLETE")
    assert "Nothing was compared, because launches are missing: case no-fwb: the run broke" in " ".join(out.split())
    assert "REGRESSION" not in out


def test_without_resume_it_is_not_overwritten(
    half: Callable[[], int], stress: Command, common: tuple[str, ...], output: Path
) -> None:
    before = lines_of(output)
    line = refused(stress(*common))
    assert "bench.json.launches exists already; continue it with --resume, or choose another file" in line
    assert (half(), lines_of(output)) == (0, before)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"suite": "duration"}, 'options was "'),
        ({"launches": "5"}, "launches was 4 and is 5"),
        ({"version": "0.0"}, 'version was "0.0" and is "'),
        ({"sources": "another"}, 'sources was "another" and is "'),
        ({"cores": 999}, "cores was 999 and is "),
        ({"numba": "0.1"}, 'numba was "0.1" and is "'),
    ],
)
def test_another_measurement_does_not_go_on_with_it(
    change: dict[str, Any],
    words: str,
    half: Callable[[], int],
    stress: Command,
    common: tuple[str, ...],
    output: Path,
    tmp_path: Path,
) -> None:
    """The suite and options are others, or the file is of another program or machine."""
    path = output.with_name("bench.json.launches")
    extra: tuple[str, ...] = ()
    if "suite" in change:
        suite_in(tmp_path, duration="500ms")
    elif "launches" in change:
        extra = ("--launches", "5")
    else:
        header, *rest = path.read_text().splitlines(keepends=True)
        changed = json.loads(header)
        changed["measured"] |= change
        path.write_text("".join([json.dumps(changed) + "\n", *rest]))
    before = path.read_bytes()
    line = refused(stress(*common, "--resume", *extra))
    assert "are of another measurement: " in line
    assert words in line
    assert line.endswith("remove it, and start anew")
    assert (half(), path.read_bytes()) == (0, before)


def test_the_identity_is_of_all_that_runs(
    half: Callable[[], int], stress: Command, common: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A platform by the same name with other costs, and an edited kernel, change what is measured."""
    platform = tmp_path / "machine.toml"
    platform.write_text(platform.read_text().replace("tlbi-ns = 50_000", "tlbi-ns = 60_000"))
    assert 'options was "' in refused(stress(*common, "--resume"))
    suite_in(tmp_path)
    shutil.copytree(kept.CHECKOUT / "stress", tmp_path / "stress", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(kept, "CHECKOUT", tmp_path)
    with (tmp_path / "stress/kernels/tlb.py").open("a") as file:
        file.write("# edited\n")
    line = refused(stress(*common, "--resume"))
    assert "another measurement: sources was" in line
    assert "options" not in line


def test_a_line_cut_off_is_made_again_and_a_damaged_one_named(
    half: Callable[[], int], stress: Command, common: tuple[str, ...], output: Path
) -> None:
    path = output.with_name("bench.json.launches")
    written = path.read_bytes().splitlines(keepends=True)
    for damaged in (
        b"{]\n",
        b"{}\n",
        written[1].replace(b"[1.0]", b"[-1.0]"),
        written[1].replace(b'"launch": 0', b'"x": 0'),
    ):
        path.write_bytes(written[0] + damaged + written[2])
        assert "bench.json.launches line 2 is damaged; remove it" in refused(stress(*common, "--resume"))
    path.write_bytes(b"notes of mine\n")
    assert "holds no launches of stress bench" in refused(stress(*common, "--resume"))
    assert path.read_bytes() == b"notes of mine\n"
    path.write_bytes(written[0] + written[1] + written[2][:-9])
    assert stress(*common, "--resume")[0] == ExitCode.OK
    assert half() == 3


def test_a_violation_keeps_what_was_measured_before(
    stress: Command, common: tuple[str, ...], output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = made_up(monkeypatch)
    found = iter([[], [], ["bbm"]])
    monkeypatch.setattr(measure, "_process", lambda *_, **__: json.dumps(answer | {"violations": next(found)}))
    code, out, _ = stress(*common, "--json")
    assert (code, json.loads(out)["complete"]) == (ExitCode.CHECK_FAILED, False)
    assert "case no-fwb: the oracle found bbm" in json.loads(out)["failure"]
    assert len(lines_of(output)) == 2


def test_where_nothing_can_be_kept(stress: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = made_up(monkeypatch)
    suite = ("bench", "--suite", str(suite_in(tmp_path)))
    assert "name it with --output" in refused(stress(*suite, "--resume"))
    assert stress(*suite, "--output", "/dev/null")[0] == ExitCode.OK
    assert not Path("/dev/null.launches").exists()
    ends = iter([True, False])
    monkeypatch.setattr(measure, "_process", lambda *_, **__: json.dumps(answer | {"complete": next(ends)}))
    code, out, err = stress(*suite)
    assert (code, out.splitlines()[0].split(" (")[0]) == (ExitCode.BROKEN, "INCOMPLETE: 1 of 4 launches done")
    assert "1 of 4 launches are lost; --output FILE keeps them" in err


def test_a_bench_without_a_launch_leaves_nothing(
    stress: Command, common: tuple[str, ...], output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = made_up(monkeypatch)
    answer["complete"] = False
    code, out, _ = stress(*common)
    assert (code, out) == (ExitCode.BROKEN, "")
    assert not list(output.parent.glob("bench.json*"))


def test_two_benches_never_keep_in_one_file(
    half: Callable[[], int], stress: Command, common: tuple[str, ...], output: Path
) -> None:
    path = output.with_name("bench.json.launches")
    with lines.opened(path, "bench"):
        assert f"another bench is writing to {path}" in refused(stress(*common, "--resume"))
