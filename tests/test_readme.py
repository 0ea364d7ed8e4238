"""Every command in the README works as it stands; only its duration is cut short."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from live import live_run

from stress.orders import NAMED_ORDERS, parse_order

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
COMMANDS = sorted(
    set(re.findall(r"^    \$ stress (.+)$", README, re.MULTILINE)) | set(re.findall(r"`stress ([a-z][^`]*)`", README))
)


def is_wrong(arguments: list[str]) -> bool:
    """Whether the command tries an order, or injects a bug, that the oracle must catch."""
    if "--inject" in arguments:
        return True
    lists = [argument.removeprefix("--order=") for argument in arguments if argument.startswith("--order=")]
    right = {order.steps for order in NAMED_ORDERS.values()}
    return any(parse_order(text).steps not in right for text in lists)


def test_there_are_commands() -> None:
    assert len(COMMANDS) >= 8
    assert {command.split()[0] for command in COMMANDS} >= {"run", "compare", "orders", "clean"}


@pytest.mark.parametrize("command", COMMANDS)
def test_command(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    arguments = shlex.split(command)
    if arguments[0] in ("run", "compare") and "--help" not in arguments:
        arguments += ["--duration", "2s" if "--inject" in arguments else "300ms"]
    with live_run(*arguments) as run:
        code, out, err, _ = run.finish(60)
    assert code == (1 if is_wrong(arguments) else 0), err
    assert "Traceback" not in err
    if arguments[0] != "clean":
        assert out


def test_files_it_links_to_exist() -> None:
    targets = re.findall(r"\]\((?!http)([^)#]+)", README)
    assert targets
    for target in targets:
        assert (ROOT / target).exists(), target


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"`?make ([a-z]+)", README)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
