"""The command line: what each command passes on, prints and exits with. The executor is played by a fake."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from synthetic import order_data, run_data

from stress import __version__
from stress.cli.main import invoke
from stress.cli.progress import display, fraction_done, headline
from stress.config import RunConfig, key_of
from stress.errors import ExitCode, MachineError, RunBroken, StressError, UsageError
from stress.orders import NAMED_ORDERS, STEPS
from stress.results.data import RunData

CONFIGS = Path(__file__).parent.parent / "configs"


@dataclass
class FakeProgress:
    """The fields of ``stress.run.Progress``, so that the display is tested without compiling kernels."""

    elapsed_ns: int = 2_500_000_000
    duration_ns: int | None = 10_000_000_000
    rebuilds: int = 40
    rebuilds_target: int | None = 50
    accesses_per_s: float = 3.9e8
    window_p50_ns: float = 31_234.0
    faults: dict[str, int] = field(default_factory=lambda: {"window": 12, "spurious": 3})
    violations: int = 0
    phase: str = "rebuilding"


@dataclass
class FakeExecutor:
    """Stands in for ``stress.run.execute``: remembers what it was asked, gives made-up measurements."""

    complete: bool = True
    exit_code: int = 0
    raises: BaseException | None = None
    before_return: Callable[[], object] = lambda: None
    configs: list[RunConfig] = field(default_factory=list)

    def __call__(self, config: RunConfig, progress: Any = None, note: Any = None) -> RunData:
        self.configs.append(config)
        if note is not None:
            note("compiling kernels")
        if progress is not None:
            progress(FakeProgress())
        if self.raises:
            raise self.raises
        self.before_return()
        rng = np.random.default_rng(config.seed)
        orders = [order_data(rng, order, rebuilds=30) for order in config.parsed_orders]
        return run_data(
            orders,
            complete=self.complete,
            exit_code=self.exit_code,
            config=config.to_json(),
            seed=config.seed,
        )


@pytest.fixture
def executor(monkeypatch: pytest.MonkeyPatch) -> FakeExecutor:
    fake = FakeExecutor()
    monkeypatch.setattr("stress.run.execute", fake, raising=False)
    return fake


Outcome = tuple[int, str, str]


@pytest.fixture
def stress(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    def command(*arguments: str) -> Outcome:
        code = invoke(arguments)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return command


def refused(outcome: Outcome, code: ExitCode = ExitCode.USAGE) -> str:
    """The one line that a refused command prints, on standard error alone."""
    actual, out, err = outcome
    assert (actual, out) == (code, "")
    (line,) = err.splitlines()
    assert line.startswith("stress: ")
    return line


def process(*arguments: str, **keywords: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "stress", *arguments], text=True, timeout=60, check=False, **keywords)


# -- help and lists ---------------------------------------------------------------------------


def test_help_names_every_command(stress: Callable[..., Outcome]) -> None:
    code, out, err = stress("--help")
    assert (code, err) == (0, "")
    assert all(re.search(rf"^  {name}  ", out, re.M) for name in ("run", "compare", "orders", "clean"))


def test_no_command_is_a_usage_error_with_help(stress: Callable[..., Outcome]) -> None:
    code, out, err = stress()
    assert (code, out) == (2, "")
    assert "Commands:" in err


def test_version(stress: Callable[..., Outcome]) -> None:
    assert stress("--version") == (0, f"stress, version {__version__}\n", "")


@pytest.mark.parametrize("command", ["run", "compare"])
def test_every_key_is_an_option_with_its_description(stress: Callable[..., Outcome], command: str) -> None:
    code, out, _ = stress(command, "--help")
    assert code == 0
    words = " ".join(out.split())
    for name, info in RunConfig.model_fields.items():
        if name != "orders":
            assert f"--{key_of(name)} " in words
            assert info.description
            assert info.description in words
    assert "--duration DURATION" in words
    assert "[default: 10s]" in words
    assert "[default: 1G]" in words


def test_orders_lists_names_and_steps(stress: Callable[..., Outcome]) -> None:
    code, out, err = stress("orders")
    assert (code, err) == (0, "")
    assert all(name in out and ",".join(order.steps) in out for name, order in NAMED_ORDERS.items())
    assert all(step.description in out for step in STEPS)
    assert max(map(len, out.splitlines())) <= 110


def test_orders_in_another_format(stress: Callable[..., Outcome]) -> None:
    _, out, _ = stress("orders", "--format", "tsv")
    cells = [line.split("\t") for line in out.splitlines() if line.startswith("block-first")]
    assert [cell.strip() for cell in cells[0]] == [
        "block-first",
        ",".join(NAMED_ORDERS["block-first"].steps),
        NAMED_ORDERS["block-first"].provenance,
        NAMED_ORDERS["block-first"].description,
    ]


def test_listing_orders_does_not_load_the_compiler() -> None:
    code = "import sys; from stress.cli.main import invoke; invoke(['orders']); sys.exit('numba' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, timeout=60, check=True)


# -- run and compare --------------------------------------------------------------------------


def test_run_passes_every_option_on(stress: Callable[..., Outcome], executor: FakeExecutor) -> None:
    line = """
        run --order=clean-first --vcpus 3 --blocks 5 --block-size 2M --granule 4K --populated 0.5
        --duration 500ms --rebuilds 9 --dwell 1ms --pattern strided --stride 5 --write-fraction 0.75
        --seed 7 --no-fwb --no-guest-caches --pin --fail-fast --zipf-exponent 1.5 --ipa-bits 36
        --audit-interval 250ms --watchdog 3s
    """
    code, out, err = stress(*line.split())
    assert code == 0
    assert executor.configs[0].to_json() == {
        "orders": ["clean-first"],
        "vcpus": 3,
        "granule_bytes": 4096,
        "ipa_bits": 36,
        "block_size_bytes": 2 << 20,
        "blocks": 5,
        "populated": 0.5,
        "rebuilds": 9,
        "duration_ns": 500_000_000,
        "dwell_ns": 1_000_000,
        "pattern": "strided",
        "stride_pages": 5,
        "zipf_exponent": 1.5,
        "write_fraction": 0.75,
        "seed": 7,
        "fwb": False,
        "guest_caches": False,
        "pin": True,
        "fail_fast": True,
        "audit_interval_ns": 250_000_000,
        "watchdog_ns": 3_000_000_000,
    }
    assert out.startswith("CORRECT")
    assert "clean-first" in out
    # Not a terminal: a plain line at the start, the executor's notes, no escape code.
    assert err.splitlines() == [f"stress: {headline(executor.configs[0])}", "stress: compiling kernels"]
    assert "\x1b" not in out + err


def test_no_environment_brings_escape_codes_into_a_file(
    stress: Callable[..., Outcome], executor: FakeExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "CLICOLOR_FORCE"):
        monkeypatch.setenv(name, "1")
    _, out, err = stress("run")
    assert out
    assert "\x1b" not in out + err


def test_run_without_options_uses_the_defaults(stress: Callable[..., Outcome], executor: FakeExecutor) -> None:
    assert stress("run")[0] == 0
    assert executor.configs == [RunConfig()]


def test_json_is_the_document_alone(stress: Callable[..., Outcome], executor: FakeExecutor) -> None:
    _, out, _ = stress("run", "--json", "--seed", "5")
    document = json.loads(out)
    assert document["complete"] is True
    assert document["seed"] == document["config"]["seed"] == 5
    assert [each["order"] for each in document["orders"]] == ["block-first"]


def test_output_holds_what_json_prints(stress: Callable[..., Outcome], executor: FakeExecutor, tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    _, out, _ = stress("run", "--json", "--output", str(path))
    assert json.loads(path.read_text()) == json.loads(out)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("code", [ExitCode.CHECK_FAILED, ExitCode.BROKEN, ExitCode.INTERRUPTED])
def test_a_run_cut_short_still_shows_its_table_and_exits_as_it_says(
    stress: Callable[..., Outcome], executor: FakeExecutor, tmp_path: Path, code: ExitCode
) -> None:
    executor.complete, executor.exit_code = False, code
    path = tmp_path / "partial.json"
    actual, out, _ = stress("run", "--output", str(path))
    assert actual == code
    assert "block-first" in out
    assert json.loads(path.read_text())["complete"] is False


@pytest.mark.parametrize(("run_code", "code"), [(0, ExitCode.BROKEN), (1, ExitCode.CHECK_FAILED)])
def test_a_result_that_cannot_be_kept_is_shown(
    stress: Callable[..., Outcome], executor: FakeExecutor, tmp_path: Path, run_code: int, code: ExitCode
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
    stress: Callable[..., Outcome], executor: FakeExecutor, error: StressError, code: int
) -> None:
    executor.raises = error
    actual, out, err = stress("run")
    assert (actual, out) == (code, "")
    assert err.splitlines()[-1] == f"stress: {error.message}; {error.remedy}"


def test_ctrl_c_outside_of_a_run_is_130(stress: Callable[..., Outcome], executor: FakeExecutor) -> None:
    executor.raises = KeyboardInterrupt()
    actual, out, err = stress("run")
    assert (actual, out) == (130, "")
    assert err.splitlines()[-1] == "stress: interrupted"


def test_a_bug_is_one_line_too(
    stress: Callable[..., Outcome], executor: FakeExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor.raises = ZeroDivisionError("division by zero")
    actual, _, err = stress("run")
    assert actual == 4
    assert "internal error: ZeroDivisionError: division by zero" in err.splitlines()[-1]
    monkeypatch.setenv("STRESS_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        stress("run")


def test_compare_takes_its_orders_from_arguments_file_or_default(
    stress: Callable[..., Outcome], executor: FakeExecutor
) -> None:
    file = str(CONFIGS / "no-fwb.toml")
    for arguments in (
        (),
        ("clean-first", "tlbi,install"),
        ("--config", file),
        ("--config", file, "install", "block-first"),
    ):
        code, out, _ = stress("compare", *arguments)
        assert code == 0
        assert all(name in out for name in executor.configs[-1].orders)
    assert [config.orders for config in executor.configs] == [
        ("unmap-first", "block-first"),
        ("clean-first", "tlbi,install"),
        ("unmap-first", "block-first", "clean-first"),
        ("install", "block-first"),
    ]
    assert executor.configs[2].fwb is False


def test_options_override_the_file(stress: Callable[..., Outcome], executor: FakeExecutor) -> None:
    assert stress("run", "--config", str(CONFIGS / "smoke.toml"), "--blocks", "9", "--fwb")[0] == 0
    (config,) = executor.configs
    assert (config.blocks, config.block_size, config.fwb) == (9, 2 << 20, True)


# -- bad input --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("frobnicate", "No such command 'frobnicate'"),
        ("run --frobnicate", "No such option"),
        ("run extra", "unexpected extra argument"),
        ("run --order", "requires an argument"),
        ("run --order=firstly", "--order: unknown order 'firstly'; use one of unmap-first"),
        ("run --order=invalidate,flush,install", "unknown step 'flush'"),
        ("run --order=tlbi", "without 'install'"),
        ("run --order=install,install", "appears twice"),
        ("run --order=", "the order is empty"),
        ("run --vcpus 0", "--vcpus: must be at least 1, not 0"),
        ("run --vcpus x", "'--vcpus': 'x' is not a valid integer"),
        ("run --populated 1.5", "--populated: must be at most 1.0"),
        ("run --write-fraction -1", "--write-fraction: must be at least 0.0"),
        ("run --block-size 3000", "--block-size: 3000 bytes do not divide into 4K pages; use 1G or 2M"),
        ("run --granule 64K --block-size 2M", "KVM has no 2M block with the 64K granule.*use 512M"),
        ("run --blocks 99999", "do not fit above 1G in 40 bits of IPA; use at most 1023"),
        ("run --duration 5", "'5' is not a duration; write a duration as"),
        ("run --vcpus 0 --blocks 0", r"2 problems: --vcpus: .* \| --blocks: "),
        ("run --config nowhere.toml", "cannot read nowhere.toml"),
        ("run --format pretty-please", "'--format'"),
        ("run --output nowhere/result.json", "nowhere"),
        ("run --output .", "directory"),
        ("compare block-first", "there is only block-first to compare; name two or more"),
        ("compare block-first nonsense", r"orders\[1\]: unknown order 'nonsense'"),
        ("compare block-first block-first", "orders: block-first is there twice"),
        ("clean extra", "unexpected extra argument"),
    ],
)
def test_bad_input_is_one_line_and_starts_nothing(
    stress: Callable[..., Outcome], executor: FakeExecutor, line: str, words: str
) -> None:
    assert re.search(words, refused(stress(*line.split(" "))))
    assert executor.configs == []


def test_run_refuses_a_file_with_several_orders(stress: Callable[..., Outcome], executor: FakeExecutor) -> None:
    file = str(CONFIGS / "thread.toml")
    assert "names 2 orders; use stress compare" in refused(stress("run", "--config", file))
    assert stress("run", "--config", file, "--order", "block-first")[0] == 0
    assert [config.orders for config in executor.configs] == [("block-first",)]


def test_errors_quote_no_escape_codes(stress: Callable[..., Outcome]) -> None:
    line = refused(stress("run", "--order", "\x1b[31mred\nline"))
    assert "\x1b" not in line


# -- clean ------------------------------------------------------------------------------------


def test_clean_says_what_it_removed(stress: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stress.shm.segment.remove_stale", lambda: ["stress-1-aa", "stress-2-bb"])
    assert stress("clean") == (0, "removed stress-1-aa\nremoved stress-2-bb\n", "")
    monkeypatch.setattr("stress.shm.segment.remove_stale", list)
    assert stress("clean") == (0, "nothing to remove\n", "")


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
    assert done.stderr == "stress: cannot write to standard output: No space left on device; redirect it elsewhere\n"


# -- progress ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "fraction"),
    [
        ({}, 0.8),
        ({"rebuilds_target": None}, 0.25),
        ({"duration_ns": None, "rebuilds_target": None}, 0.0),
        ({"elapsed_ns": 11_000_000_000}, 1.0),
    ],
)
def test_the_nearer_limit_says_how_far_the_run_is(changes: dict[str, Any], fraction: float) -> None:
    progress: Any = FakeProgress(**changes)
    assert fraction_done(progress) == fraction


def test_headline() -> None:
    config = RunConfig(orders=("unmap-first", "block-first"), vcpus=1, rebuilds=7)
    assert headline(config) == "unmap-first against block-first, 1 vCPU, 4 blocks of 1G (4K granule), 7 rebuilds"
    config = RunConfig(vcpus=2, blocks=1, rebuilds=7, duration_ns=10**9)
    assert headline(config) == "block-first, 2 vCPUs, 1 block of 1G (4K granule), 1s or 7 rebuilds"


def shown(violations: int) -> str:
    """What a terminal is sent for one progress report and one note."""
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=100, color_system=None, _environ={})
    with display(RunConfig(vcpus=1), console) as (progress, note):
        assert progress is not None
        note("compiling [bold] kernels")
        report: Any = FakeProgress(violations=violations)
        progress(report)
    return stream.getvalue()


def test_a_terminal_sees_the_figures() -> None:
    text = shown(0)
    for words in (
        "block-first, 1 vCPU",
        "compiling [bold] kernels",
        "31.2 us",
        "390 M/s",
        "window 12",
        "violations 0",
    ):
        assert words in text
    assert "violations 3" in shown(3)


def test_a_dumb_terminal_gets_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, _environ={"TERM": "dumb"})
    with display(RunConfig(vcpus=1), console) as (progress, note):
        assert progress is None
        note("compiling kernels")
    assert capsys.readouterr().err.splitlines()[1:] == ["stress: compiling kernels"]
