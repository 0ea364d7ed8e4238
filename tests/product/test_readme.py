"""Every command in the README works as it stands, in a directory with what those before it left; only shorter."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from live import live_run, run_json

from stress.orders import NAMED_ORDERS, parse_order

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
COMMANDS = sorted(
    set(re.findall(r"^    \$ stress (.+)$", README, re.MULTILINE)) | set(re.findall(r"`stress ([a-z][^`]*)`", README))
)


def is_wrong(arguments: list[str]) -> bool:
    """Whether the command tries an order, or injects a bug, that the oracle must catch."""
    if "--inject" in arguments:
        return True
    lists = [argument.removeprefix("--order=") for argument in arguments if argument.startswith("--order=")]
    if arguments[0] == "verify":
        lists += [argument for argument in arguments if "," in argument]
    right = {order.steps for order in NAMED_ORDERS.values()}
    return any(parse_order(text).steps not in right for text in lists)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the files that commands of the README read."""
    directory = tmp_path_factory.mktemp("readme")
    run_json("compare", "unmap-first", "block-first", "--duration", "300ms", "--output", str(directory / "result.json"))
    with live_run(
        "predict", "unmap-first", "--platform", "kunpeng920", "-s", "anonymous_hugetlb_1gb", "-v", "1"
    ) as run:
        (directory / "page-table.log").write_text(run.finish(600)[1])  # the event loop may have to be compiled
    eight = ("-s", "anonymous_thp", "-v", "8", "-b", "1G")
    with live_run("predict", "unmap-first", "--platform", "kunpeng920", "--scenario", "dirty-log-perf", *eight) as run:
        command = "$ ./dirty_log_perf_test -v 8 -s anonymous_thp -b 1G\n"
        (directory / "dirty-log.log").write_text(command + run.finish()[1])
    options = ("--duration", "300ms", "--repeats", "1", "--output", str(directory / "thread.jsonl"))
    with live_run("sweep", "thread", *options) as run:
        assert run.finish(250)[0] == 0  # six runs
    return directory


def shortened(arguments: list[str]) -> list[str]:
    """The same command, over sooner."""
    if "--help" in arguments or "--dry-run" in arguments:
        return arguments
    match arguments[0]:
        case "run" | "compare":
            # A published clean takes 130 ms: long enough for a rebuild by each order, or nothing was tested.
            slow = "--inject" in arguments or "--platform" in arguments
            return [*arguments, "--duration", "3s" if slow else "500ms"]
        case "search":  # four steps, of which two orders are right
            small = ("--steps", "invalidate,tlbi,install,unmap", "--fwb", "--proof-accesses", "1")
            return [*arguments, *small, *(("--confirm", "1s") if "--confirm" in arguments else ())]
        case "sweep":  # the fixture has run it; what its command line says must still be a sweep
            return [*arguments, "--duration", "300ms", "--output", "again.jsonl", "--dry-run"]
        case "calibrate" if "--live" in arguments:  # minutes, and a test of the soak
            return [*arguments, "--help"]
        case "bench":  # takes minutes: only that there are such options
            return [*arguments, "--help"]
    return arguments


def test_there_are_commands() -> None:
    assert len(COMMANDS) >= 8
    assert {command.split()[0] for command in COMMANDS} >= {
        "run", "compare", "verify", "sweep", "show", "bench", "report",
        "orders", "platforms", "bugs", "doctor", "clean",
    }  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_command(command: str, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(directory)
    arguments = shortened(shlex.split(command))
    with live_run(*arguments) as run:
        code, out, err, _ = run.finish()
    assert code == (1 if is_wrong(arguments) else 0), err
    assert "Traceback" not in err
    if arguments[0] != "clean":
        assert out


def evidence_in(text: str) -> str:
    """The first piece of a result's evidence in words, without what differs from run to run or with our sources.

    Of the pieces that follow there may be some: a vCPU walks into the freed table, too.
    """
    piece = re.search(r"found_by=rule.*?stored_at=\S+", text, re.DOTALL)
    assert piece
    return re.sub(r"(time_ns=|\.py:)\d+", r"\1", " ".join(piece[0].split()))


def test_its_evidence_is_what_a_run_prints() -> None:
    (command,) = (command for command in COMMANDS if command.startswith("run --order=invalidate,unmap,"))
    with live_run(*shlex.split(command)) as run:
        assert evidence_in(run.finish()[1]) == evidence_in(README)


def test_files_it_links_to_exist() -> None:
    targets = re.findall(r"(?:\]\(|src=\"|srcset=\")(?!http)([^)#\"]+)", README)
    assert targets
    for target in targets:
        assert (ROOT / target).exists(), target


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"(?:`|^    )make ([a-z]+)", README, re.MULTILINE)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
