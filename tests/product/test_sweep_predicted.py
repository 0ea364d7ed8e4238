"""Predicted points of a sweep beside live ones: told apart by a key, never in one figure."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import Command, FakeExecutor, command_line

from stress import api
from stress.config import ConfigError, plan_sweep
from stress.errors import UsageError
from stress.executors import PREDICT
from stress.results.trials import read_sweep

pytestmark = pytest.mark.timeout(900)  # the event loop may have to be compiled first

BOTH = """
[plan]
repeats = 2
[run]
platform = "kunpeng920"
scenario = "rebuild"
block-size = "2M"
rebuilds = 3
fwb = true
[sweep]
executor = ["live", "predict"]
order = ["unmap-first", "block-first"]
"""


@pytest.fixture
def stress(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.setattr("stress.live.execute", FakeExecutor(), raising=False)
    return command_line(capsys)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "both.toml").write_text(BOTH)
    return tmp_path / "both.toml"


def test_a_sweep_holds_live_and_predicted_points(stress: Command, file: Path) -> None:
    output = file.with_suffix(".jsonl")
    code, out, err = stress("sweep", str(file), "--output", str(output))
    assert code == 0, err
    assert "CORRECT: 6 of 6 runs done (4 correct, 2 predicted)" in out, "what is predicted would be the same again"
    assert "executor  unmap-first  block-first" in out
    executors = {
        trial.values["executor"]: trial.document["executor"] for trial in read_sweep(output).trials if trial.document
    }
    assert executors == {"live": "live", "predict": "predict"}
    assert stress("sweep", str(file), "--output", str(output), "--resume")[0] == 0
    assert len(output.read_text().splitlines()) == 7


def test_no_figure_mixes_them(stress: Command, file: Path) -> None:
    output = file.with_suffix(".jsonl")
    stress("sweep", str(file), "--output", str(output))
    code, out, _ = stress("show", str(output), "--rows", "platform", "--values", "window_ns.p50", "--csv")
    assert code == 0
    assert [line.split(",")[:3] for line in out.splitlines()] == [
        ["platform", "executor", "order"],
        *(
            ["kunpeng920", executor, order]
            for executor in ("live", "predict")
            for order in ("unmap-first", "block-first")
        ),
    ]
    code, out, _ = stress("show", str(output), "--filter", "executor=predict", "--rows", "order", "--csv")
    assert code == 0
    assert out.splitlines()[0].startswith("order,window_ns.p50"), "one executor alone needs no column"


def test_a_sweep_that_is_all_predicted_says_so(stress: Command, file: Path) -> None:
    file.write_text(BOTH.replace('["live", "predict"]', '["predict"]'))
    code, out, _ = stress("sweep", str(file), "--output", str(file.with_suffix(".jsonl")))
    assert code == 0
    assert out.startswith("PREDICTED, checked by nobody: 2 of 2 runs done (2 predicted)")


def test_what_cannot_be_predicted_is_refused_before_anything_runs(stress: Command, file: Path) -> None:
    file.write_text(BOTH.replace('platform = "kunpeng920"', 'platform = "native"'))
    output = file.with_suffix(".jsonl")
    code, out, err = stress("sweep", str(file), "--output", str(output))
    assert (code, out) == (2, "")
    assert "executor=predict, order=unmap-first: platform native models no costs" in err
    assert not output.exists()


def test_cores_are_for_predictions() -> None:
    """A live run has the cores that it has: it is refused before anything runs, by itself too."""
    cores = {"cores": [1, 2], "vcpus": [2]}
    points = plan_sweep({"run": {"executor": "predict"}, "sweep": cores}).points
    assert [point.config.cores for point in points] == [1, 2]
    with pytest.raises(ConfigError, match=r"sweep.cores\[1\]: a live run has this machine's cores; leave it out"):
        plan_sweep({"sweep": cores})
    with pytest.raises(UsageError, match="cores: a live run has this machine's cores"):
        api.run("block-first", cores=2)


def test_an_executor_that_there_is_not() -> None:
    with pytest.raises(ConfigError, match=r"sweep.executor\[1\]: 'guess'; use live or predict"):
        plan_sweep({"sweep": {"executor": ["live", "guess"]}})
    with pytest.raises(ConfigError, match=r"run.executor: 3; use live or predict"):
        plan_sweep({"run": {"executor": 3}, "sweep": {"vcpus": [1]}})


def test_points_differ_by_their_executor() -> None:
    live, predicted = plan_sweep({"sweep": {"executor": ["live", "predict"], "vcpus": [1]}}).points
    assert live.config == predicted.config
    assert live.identity != predicted.identity
    assert "executor" not in predicted.options


def test_the_api_predicts() -> None:
    result = api.predict(
        "unmap-first", "clean-first", platform="kunpeng920", backing="hugetlb-2m", memory="8M", vcpus=2
    )
    assert (result.verdict, result.executor) == ("predicted", PREDICT)
    assert result.orders["clean-first"].window_ns.p50 == 1_000, "the TLBI alone"
    cycles = api.predict("block-first", platform="kunpeng920", scenario="rebuild", block_size="2M", rebuilds=2)
    assert cycles.orders["block-first"].rebuilds == 2
    with pytest.raises(UsageError, match="models no costs"):
        api.predict("block-first")
