"""``stress sweep`` and ``stress show``: what they run, keep, print and exit with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from commands import Command, FakeExecutor, command_line, process, refused
from live import PATIENCE_S, live_run, wait_until
from rich.console import Console
from rich.live import Live

from stress import interrupt
from stress.cli.sweep_progress import Screen
from stress.config import RunConfig, load_sweep, plan_sweep
from stress.errors import MachineError, StressError
from stress.results.data import RunData, Violation
from stress.results.trials import read_sweep
from stress.sweeps.estimate import expected_s, left_s
from stress.sweeps.execution import Observer, carry_out
from stress.sweeps.local import run_here

SMOKE = Path(__file__).parents[2] / "configs" / "sweeps" / "smoke.toml"
FOUR = """
[plan]
repeats = 2
[run]
duration = "1s"
[sweep]
order = ["unmap-first", "block-first"]
vcpus = [1, 2]
"""


@dataclass
class Executor(FakeExecutor):
    """Something happens in some of its runs, by their number from 1."""

    trouble: dict[int, Callable[[RunData], RunData]] = field(default_factory=dict)

    def __call__(self, config: RunConfig, *others: Any, **named: Any) -> RunData:
        data = super().__call__(config, *others, **named)
        trouble = self.trouble.get(len(self.configs))
        return trouble(data) if trouble else data


@pytest.fixture
def executor(monkeypatch: pytest.MonkeyPatch) -> Executor:
    fake = Executor()
    monkeypatch.setattr("stress.live.execute", fake, raising=False)
    return fake


@pytest.fixture
def stress(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """The command in a directory of its own, with a sweep of four points."""
    (tmp_path / "four.toml").write_text(FOUR)
    monkeypatch.chdir(tmp_path)
    return command_line(capsys)


def wrong(data: RunData) -> RunData:
    return data.model_copy(update={"exit_code": 1, "violations": [Violation("bbm", 3, [])]})


def broken(data: RunData) -> RunData:
    failure = {"process": "vcpu 0", "what": "died", "how": "SIGKILL"}
    return data.model_copy(update={"exit_code": 4, "complete": False, "failure": failure})


def too_small(data: RunData) -> RunData:
    raise MachineError("/dev/shm is too small", "enlarge it")


def interrupted(data: RunData) -> RunData:
    interrupt.requested.set()
    return data.model_copy(update={"exit_code": 130, "complete": False})


def test_a_sweep_runs_every_point_in_its_order_and_keeps_it(stress: Command, executor: Executor) -> None:
    code, out, err = stress("sweep", "four.toml")
    assert (code, out.splitlines()[0]) == (0, "CORRECT: 8 of 8 runs done (8 correct)")
    trials = list(load_sweep(Path("four.toml")).trials())
    assert executor.configs == [trial.point.config for trial in trials]
    found = read_sweep(Path("four.jsonl"))
    assert [each.id for each in found.trials] == [trial.id for trial in trials]
    assert all(each.done for each in found.trials)
    lines = [line for line in err.splitlines() if "compiling" not in line]
    assert len(lines) == 8
    assert lines[0].startswith(f"stress: 1/8 {trials[0]} (run 1): correct, window ")
    assert lines[0].endswith(" left")
    assert stress("show", "four.jsonl") == (0, out, "")


def test_a_dry_run_lists_and_runs_nothing(stress: Command, executor: Executor) -> None:
    code, out, err = stress("sweep", "four.toml", "--dry-run", "--repeats", "3", "--duration", "2s")
    assert (code, err, executor.configs) == (0, "", [])
    assert [line.split() for line in out.splitlines()[2:6]] == [
        [str(number), order, vcpus]
        for number, (order, vcpus) in enumerate(((o, v) for o in ("unmap-first", "block-first") for v in "12"), 1)
    ]
    assert out.splitlines()[-1] == "4 points, 3 runs each, in random order (seed 1): about 0:00:36"
    assert not Path("four.jsonl").exists()


def test_ctrl_c_drops_the_run_under_way_and_resume_does_the_rest_once(stress: Command, executor: Executor) -> None:
    executor.trouble = {4: interrupted}
    code, out, err = stress("sweep", "four.toml")
    assert code == 130
    assert out.startswith("INCOMPLETE: 3 of 8 runs done (3 correct)")
    assert err.splitlines()[-1] == "stress: 5 of 8 runs are left; continue with --resume"
    assert len(read_sweep(Path("four.jsonl")).trials) == 3
    code, out, err = stress("sweep", "four.toml", "--resume")
    assert (code, out.splitlines()[0]) == (0, "CORRECT: 8 of 8 runs done (8 correct)")
    assert err.splitlines()[0] == "stress: 3 of 8 runs are done already"
    expected = [trial.point.config for trial in load_sweep(Path("four.toml")).trials()]
    assert executor.configs == [*expected[:4], *expected[3:]]
    assert len({each.id for each in read_sweep(Path("four.jsonl")).trials}) == 8
    assert len(Path("four.jsonl").read_text().splitlines()) == 9


@pytest.mark.parametrize(
    ("trouble", "code", "words"),
    [
        (wrong, 1, "bbm 3"),
        (broken, 4, "vcpu 0, died, SIGKILL"),
        (too_small, 3, "/dev/shm is too small; enlarge it"),
    ],
)
def test_a_sweep_goes_on_after_trouble_and_its_worst_is_its_exit_code(
    stress: Command, executor: Executor, trouble: Callable[[RunData], RunData], code: int, words: str
) -> None:
    executor.trouble = {2: trouble}
    actual, out, err = stress("sweep", "four.toml")
    assert (actual, len(executor.configs)) == (code, 8)
    assert words in out
    assert words in err
    executor.trouble = {}
    again, _, _ = stress("sweep", "four.toml", "--resume")
    # What an order did wrong is a result; what broke is not, and ran again.
    assert (again, len(executor.configs)) == ((1, 8) if code == 1 else (0, 9))


@pytest.mark.parametrize("other", [broken, too_small, interrupted])
def test_a_violation_outweighs_whatever_else_befell_a_sweep(
    stress: Command, executor: Executor, other: Callable[[RunData], RunData]
) -> None:
    executor.trouble = {1: wrong, 2: other}
    assert stress("sweep", "four.toml")[0] == 1
    executor.trouble = {}
    assert stress("sweep", "four.toml", "--resume")[0] == 1


def test_a_file_that_exists_and_a_config_that_makes_no_sense_are_refused(stress: Command, executor: Executor) -> None:
    Path("four.jsonl").write_text("mine\n")
    assert "four.jsonl exists already; continue it with --resume" in refused(stress("sweep", "four.toml"))
    assert "no result of stress sweep" in refused(stress("sweep", "four.toml", "--resume"))
    assert Path("four.jsonl").read_text() == "mine\n"
    Path("bad.toml").write_text("[sweep]\nvcpus = [1, 2, 0]\norder = 3\n[plan]\nseed = -1\n")
    line = refused(stress("sweep", "bad.toml"))
    assert line.startswith("stress: 3 problems: plan.seed: must be at least 0, not -1 | sweep.order: must be a list")
    assert "sweep.vcpus[2]: must be at least 1, not 0" in line
    assert "cannot read none.toml" in refused(stress("sweep", "none.toml"))
    assert "--duration: is swept" not in refused(stress("sweep", "four.toml", "--duration", "x", "--dry-run"))
    assert "for stress sweep; here the only table is [run]" in refused(stress("run", "--config", "four.toml"))
    assert executor.configs == []


def test_without_the_extra_a_cluster_is_refused(stress: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    line = refused(stress("sweep", "four.toml", "--scheduler", "tcp://127.0.0.1:1"))
    assert "install it: pip install 'stress[distributed]'" in line
    assert not Path("four.jsonl").exists()


def test_show_makes_tables_of_ones_own(stress: Command, executor: Executor) -> None:
    stress("sweep", "four.toml")
    show = ("show", "four.jsonl")
    code, out, _ = stress(*show, "--filter", "order=block-first", "--values", "window_ns.p99", "--columns", "repeat")
    assert code == 0
    assert out.startswith("window_ns.p99: invalid window")
    assert [line.split()[0] for line in out.splitlines()[2:]] == ["vcpus", "-----", "1", "2"]
    code, out, _ = stress(*show, "--csv", "--rows", "order,vcpus,repeat", "--values", "rebuilds,accesses_per_s")
    assert out.splitlines()[0] == "order,vcpus,repeat,rebuilds,accesses_per_s"
    assert len(out.splitlines()) == 9
    code, out, _ = stress(*show, "--list")
    assert "vcpus           1, 2" in out
    assert "window_ns.p50" in out
    assert "did you mean window_ns.p50" in refused(stress(*show, "--values", "window.p50"))
    assert "there is no key 'vcpu'" in refused(stress(*show, "--rows", "vcpu"))
    assert "nothing in four.jsonl is left to show" in refused(stress(*show, "--filter", "vcpus=9"))


def test_show_prints_what_the_run_printed(stress: Command, executor: Executor) -> None:
    for command in (("run",), ("compare",)):
        code, out, _ = stress(*command, "--output", "result.json")
        assert stress("show", "result.json") == (code, out, "")
    code, out, _ = stress("show", "result.json", "--values", "ratios.window.ratio", "--rows", "order", "--csv")
    assert out.splitlines()[0] == "order,ratios.window.ratio"
    document = json.loads(Path("result.json").read_text())
    del document["orders"][0]["window_ns"]
    Path("result.json").write_text(json.dumps(document))
    assert "no whole result, orders[].window_ns is missing" in refused(stress("show", "result.json"))
    assert "no such file" in refused(stress("show", "none.json"))


def test_a_cut_off_sweep_is_shown_as_far_as_it_goes(stress: Command, executor: Executor) -> None:
    stress("sweep", "four.toml")
    path = Path("four.jsonl")
    path.write_bytes(path.read_bytes()[:-10])
    code, out, err = stress("show", "four.jsonl")
    assert (code, err) == (0, "stress: the last line of four.jsonl is cut off, and left out\n")
    assert out.startswith("INCOMPLETE: 7 of 8 runs done")


def test_time_left_follows_what_the_first_runs_took() -> None:
    plan = plan_sweep({"run": {"duration": "3s"}, "point": [{"vcpus": 1}, {"rebuilds": 100, "dwell": "5ms"}]})
    trials = list(plan.trials())
    assert expected_s(trials) == pytest.approx(4 + 2)
    staged = plan_sweep({"point": [{"scenario": "kvm-page-table-test"}]})
    assert expected_s(staged.trials()) > 1
    long, short = sorted(trials, key=lambda trial: trial.point.index)
    assert left_s([], trials, 0) == expected_s(trials)
    assert left_s([long], [short], elapsed_s=8) == pytest.approx(4)


def test_the_display_on_a_terminal(tmp_path: Path, executor: Executor) -> None:
    console = Console(force_terminal=True, width=100, record=True)
    plan = plan_sweep({"sweep": {"vcpus": [1, 2]}})
    with Live(console=console, auto_refresh=False) as live:
        carry_out(plan, tmp_path / "x.jsonl", run_here, Screen(live), resume=False)
    text = console.export_text()
    assert "2/2 vcpus=" in text
    assert "violations 0" in text
    assert "0/2 runs" in text


def test_errors_of_ours_are_kept_and_others_are_not_hidden(tmp_path: Path, executor: Executor) -> None:
    executor.raises = ZeroDivisionError()
    plan = plan_sweep({"sweep": {"vcpus": [1, 2]}})
    with pytest.raises(ZeroDivisionError):
        carry_out(plan, tmp_path / "x.jsonl", run_here, Observer(), resume=False)
    executor.raises = StressError("no")
    outcome = carry_out(plan, tmp_path / "x.jsonl", run_here, Observer(), resume=True)
    assert (outcome.left, outcome.exit_code) == (2, 4)


@pytest.mark.parametrize("path", sorted(SMOKE.parent.glob("*.toml")), ids=lambda path: path.stem)
def test_shipped_sweeps_dry_run(stress: Command, path: Path) -> None:
    code, out, err = stress("sweep", str(path), "--dry-run")
    assert (code, err) == (0, "")
    assert "in random order" in out


def test_bad_usage_is_answered_without_loading_what_measures() -> None:
    code = "import sys; from stress.cli.main import invoke; invoke(['sweep', 'none.toml']); print(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not {"numba", "numpy", "distributed"} & set(out.split())
    assert process("sweep", "--help", capture_output=True).returncode == 0


def test_a_real_sweep_is_interrupted_and_resumed(tmp_path: Path) -> None:
    path = tmp_path / "smoke.jsonl"
    command = ("sweep", str(SMOKE), "--duration", "300ms", "--output", str(path))
    with live_run(*command) as run:
        wait_until(lambda: path.exists() and path.read_bytes().count(b"\n") >= 2, PATIENCE_S, "the first result")
        os.killpg(run.pid, signal.SIGINT)  # as a terminal does
        code, out, err, _ = run.finish()
    assert code == 130
    assert "Traceback" not in out + err
    done = read_sweep(path).done
    assert 1 <= len(done) < 4
    with live_run(*command, "--resume") as run:
        code, out, err, _ = run.finish()
    assert code == 0, err
    assert out.startswith("CORRECT: 4 of 4 runs done")
    found = read_sweep(path)
    assert [each.id for each in found.trials] == [
        trial.id for trial in load_sweep(SMOKE, {"duration": "300ms"}).trials()
    ]
    assert path.read_bytes().count(b"\n") == 5
    assert all(order["rebuilds"] for each in found.trials if each.document for order in each.document["orders"])
