"""The commands: what they run, print and exit with. The executor is played by a fake."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from commands import Command, FakeExecutor, command_line, process

from stress import __version__
from stress.bugs import BUGS, Need
from stress.config import RunConfig
from stress.errors import ExitCode, MachineError, RunBroken, StressError, UsageError
from stress.orders import NAMED_ORDERS, STEPS
from stress.platforms import load, names

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture
def executor(monkeypatch: pytest.MonkeyPatch) -> FakeExecutor:
    return FakeExecutor.installed(monkeypatch)


@pytest.fixture
def stress(capsys: pytest.CaptureFixture[str]) -> Command:
    return command_line(capsys)


# -- help and lists ---------------------------------------------------------------------------


def test_help_names_every_command(stress: Command) -> None:
    code, out, err = stress("--help")
    assert (code, err) == (0, "")
    assert all(
        re.search(rf"^  {name}  ", out, re.M) for name in ("run", "compare", "orders", "platforms", "bugs", "clean")
    )


def test_no_command_is_a_usage_error_with_help(stress: Command) -> None:
    code, out, err = stress()
    assert (code, out) == (2, "")
    assert "Commands:" in err


def test_version(stress: Command) -> None:
    assert stress("--version") == (0, f"stress, version {__version__}\n", "")


def test_orders_lists_names_and_steps(stress: Command) -> None:
    code, out, err = stress("orders")
    assert (code, err) == (0, "")
    assert all(name in out and ",".join(order.steps) in out for name, order in NAMED_ORDERS.items())
    assert all(step.facts.does in out for step in STEPS)
    assert max(map(len, out.splitlines())) <= 110


def rows(text: str) -> list[list[str]]:
    """The cells of a tab-separated table."""
    return [[cell.strip() for cell in line.split("\t")] for line in text.splitlines()]


def test_orders_in_another_format(stress: Command) -> None:
    _, out, _ = stress("orders", "--format", "tsv")
    order = NAMED_ORDERS["nt"]
    assert [row for row in rows(out) if row[0] == "nt"] == [
        ["nt", ",".join(order.steps), "FEAT_BBM level 1"],
        ["nt", order.description, order.provenance],
    ]


def test_orders_says_what_an_order_needs_of_the_cpu(stress: Command) -> None:
    _, out, _ = stress("orders")
    needs = {line.split()[0]: line.split()[-1] for line in out.splitlines() if "FEAT_BBM level" in line}
    assert needs.keys() >= {"nt", "bbml2"}
    assert re.search(r"^bbml2 .*  FEAT_BBM level 2$", out, re.M)
    assert re.search(r"^block-first +\S+$", out, re.M)  # nothing


def test_bugs_lists_what_can_be_injected(stress: Command) -> None:
    code, out, err = stress("bugs", "--format", "tsv")
    assert (code, err) == (0, "")
    table = {row[0]: row[1:] for row in rows(out)}
    for name, bug in BUGS.items():
        assert table[name] == [bug.effect, bug.source, ", ".join(bug.kinds)]
    _, out, _ = stress("bugs")
    assert max(map(len, out.splitlines())) <= 110


def test_the_command_that_bugs_recommends_injects_one(stress: Command, executor: FakeExecutor) -> None:
    _, out, _ = stress("bugs")
    program, *arguments = out.splitlines()[-2].rpartition(": ")[2].split()
    assert (program, arguments[0]) == ("stress", "run")
    live = [name for name, bug in BUGS.items() if Need.EVERY_FAULT not in bug.needs]
    for name in live:
        assert stress(*(name if word == "NAME" else word for word in arguments))[0] == 0
    assert [config.inject for config in executor.configs] == live
    assert all(not config.fail_fast and config.duration_ns == 3_000_000_000 for config in executor.configs)


def test_platforms_lists_costs_and_sources(stress: Command) -> None:
    code, out, err = stress("platforms", "--format", "tsv")
    assert (code, err) == (0, "")
    assert [row[0] for row in rows(out)[1:]] == list(names())
    for row in rows(out)[1:]:
        profile = load(row[0])
        assert row[1] == profile.description
        assert row[2] == (", ".join(f"{each.key} {each.value}" for each in profile.figures if each.spun) or "none")
        assert ("FWB" in row[3]) is profile.fwb
        assert row[4] == profile.source
    _, out, _ = stress("platforms")
    assert max(map(len, out.splitlines())) <= 110


def test_one_platform_is_listed_figure_by_figure(stress: Command) -> None:
    code, out, err = stress("platforms", "kunpeng920", "--format", "tsv")
    assert (code, err) == (0, "")
    _, listed = out.split("\n\n")
    profile = load("kunpeng920")
    assert [(row[0], row[4], row[5]) for row in rows(listed)[1:]] == [
        (figure.key, figure.origin, figure.source) for figure in profile.figures
    ]
    assert {row[0] for row in rows(listed)[1:] if row[3] == "yes"} >= {"clean-bytes-per-s", "unmap-ns", "exit-ns"}
    _, out, _ = stress("platforms", "kunpeng920")
    assert max(map(len, out.splitlines())) <= 110
    _, out, _ = stress("platforms", "native")
    assert out.endswith("It models no costs.\n")


@pytest.mark.parametrize("command", ["orders", "bugs", "platforms"])
def test_listing_does_not_load_the_compiler(command: str) -> None:
    code = f"import sys; from stress.cli.main import invoke; invoke(['{command}']); sys.exit('numba' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, timeout=60, check=True)


# -- run and compare --------------------------------------------------------------------------


def test_no_environment_brings_escape_codes_into_a_file(
    stress: Command, executor: FakeExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "CLICOLOR_FORCE"):
        monkeypatch.setenv(name, "1")
    _, out, err = stress("run")
    assert out
    assert "\x1b" not in out + err


def test_run_without_options_uses_the_defaults(stress: Command, executor: FakeExecutor) -> None:
    assert stress("run")[0] == 0
    assert executor.configs == [RunConfig()]


def test_json_is_the_document_alone(stress: Command, executor: FakeExecutor) -> None:
    _, out, _ = stress("run", "--json", "--seed", "5")
    document = json.loads(out)
    assert document["complete"] is True
    assert document["seed"] == document["config"]["seed"] == 5
    assert [each["order"] for each in document["orders"]] == ["block-first"]


def test_output_holds_what_json_prints(stress: Command, executor: FakeExecutor, tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    _, out, _ = stress("run", "--json", "--output", str(path))
    assert json.loads(path.read_text()) == json.loads(out)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("code", [ExitCode.CHECK_FAILED, ExitCode.BROKEN, ExitCode.INTERRUPTED])
def test_a_run_cut_short_still_shows_its_table_and_exits_as_it_says(
    stress: Command, executor: FakeExecutor, tmp_path: Path, code: ExitCode
) -> None:
    executor.complete, executor.exit_code = False, code
    path = tmp_path / "partial.json"
    actual, out, _ = stress("run", "--output", str(path))
    assert actual == code
    assert "block-first" in out
    assert json.loads(path.read_text())["complete"] is False


@pytest.mark.parametrize(("run_code", "code"), [(0, ExitCode.BROKEN), (1, ExitCode.CHECK_FAILED)])
def test_a_result_that_cannot_be_kept_is_shown(
    stress: Command, executor: FakeExecutor, tmp_path: Path, run_code: int, code: ExitCode
) -> None:
    directory = tmp_path / "gone"
    directory.mkdir()
    executor.exit_code, executor.before_return = run_code, directory.rmdir
    actual, out, err = stress("run", "--output", str(directory / "result.json"))
    assert actual == code
    assert "block-first" in out
    assert "cannot write" in err.splitlines()[-1]


@pytest.mark.parametrize(
    ("error", "code"),
    [(MachineError("no room", "make some"), 3), (RunBroken("died", "look"), 4), (UsageError("no", "yes"), 2)],
)
def test_errors_of_the_executor_become_exit_codes(
    stress: Command, executor: FakeExecutor, error: StressError, code: int
) -> None:
    executor.raises = error
    actual, out, err = stress("run")
    assert (actual, out) == (code, "")
    assert err.splitlines()[-1] == f"stress: {error.message}; {error.remedy}"


def test_ctrl_c_outside_of_a_run_is_130(stress: Command, executor: FakeExecutor) -> None:
    executor.raises = KeyboardInterrupt()
    actual, out, err = stress("run")
    assert (actual, out) == (130, "")
    assert err.splitlines()[-1] == "stress: interrupted"


def test_a_bug_is_one_line_too(stress: Command, executor: FakeExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    executor.raises = ZeroDivisionError("division by zero")
    actual, _, err = stress("run")
    assert actual == 4
    assert "internal error: ZeroDivisionError: division by zero" in err.splitlines()[-1]
    monkeypatch.setenv("STRESS_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        stress("run")


def test_compare_takes_its_orders_from_arguments_file_or_default(stress: Command, executor: FakeExecutor) -> None:
    file = str(CONFIGS / "no-fwb.toml")
    for arguments in (
        (),
        ("clean-first", "tlbi,install"),
        ("--config", file),
        ("--config", file, "install", "block-first"),
        ("install", "--order=block-first"),
        ("--order", "block-first", "--order", "install"),
    ):
        code, out, _ = stress("compare", *arguments)
        assert code == 0
        assert all(name in out for name in executor.configs[-1].orders)
    assert [config.orders for config in executor.configs] == [
        ("unmap-first", "block-first"),
        ("clean-first", "tlbi,install"),
        ("unmap-first", "block-first", "clean-first"),
        ("install", "block-first"),
        ("install", "block-first"),
        ("block-first", "install"),
    ]
    assert executor.configs[2].fwb is False


# -- standard output that goes away -----------------------------------------------------------


def test_a_closed_pipe_is_fine() -> None:
    reader = subprocess.Popen(["true"], stdin=subprocess.PIPE)
    reader.wait()
    assert reader.stdin is not None
    done = process("orders", stdout=reader.stdin, stderr=subprocess.PIPE)
    reader.stdin.close()
    assert (done.returncode, done.stderr) == (0, "")


def test_a_full_disk_is_one_line() -> None:
    with Path("/dev/full").open("w") as full:
        done = process("orders", stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == ExitCode.BROKEN
    (line,) = done.stderr.splitlines()
    assert line.startswith("stress: cannot write to standard output: No space left on device; redirect it elsewhere")
