"""Shell completion: the words offered, for each shell's way to say where the cursor is, and a real bash."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stress.bugs import BUGS
from stress.cli.completion import ARGUMENTS, VALUES
from stress.cli.main import cli
from stress.config import Scenario
from stress.orders import NAMED_ORDERS
from stress.shipped import Kind, names

BIN = Path(sys.executable).parent


def offered(*words: str, shell: str = "bash") -> tuple[list[str], set[str]]:
    """What is offered for the last word, and the modules that were imported for it."""
    asked = {"_STRESS_COMPLETE": f"{shell}_complete", "COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)}
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "stress"],
        env=os.environ | asked,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    modules = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "stress.cli.completion" in modules
    lines = done.stdout.splitlines()
    values = lines[1::3] if shell == "zsh" else [line[6:] for line in lines if line.startswith("plain,")]
    return values, modules


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("run", "--order", ""), list(NAMED_ORDERS)),
        (("run", "-v", "2", "--order", "bl"), ["block-first", "block-first-deferred"]),
        (("run", "--order", "=", "bl"), ["block-first", "block-first-deferred"]),
        (("run", "--order", "="), list(NAMED_ORDERS)),
        (("run", "--order", "tlbi,cl"), ["tlbi,clean", "tlbi,clean-unmapped", "tlbi,clear-nt"]),
        (("run", "--order", "tlbi,tlbi"), ["tlbi,tlbi-ipa"]),
        (("run", "--split-order", "b"), ["build-first", "break-first", "build"]),
        (("run", "--inject", ""), list(BUGS)),
        (("run", "--platform", ""), list(names(Kind.PLATFORM))),
        (("run", "--config", "th"), ["thp", "thread"]),
        (("compare", "nt", "clean-u"), ["clean-unmapped-first", "clean-unlocked", "clean-unmapped"]),
        (("sweep", "t"), ["thread"]),
        (("bench", "--suite", ""), ["bench"]),
        (("comp",), ["compare"]),
    ],
)
def test_names_are_offered_without_the_configuration(words: tuple[str, ...], expected: list[str]) -> None:
    values, modules = offered("stress", *words)
    assert values == expected
    assert not {"pydantic", "numpy", "stress.config"} & modules


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("run", "--scenario", ""), list(Scenario)),
        (("compare", "nt", "--scenario", "=", "m"), ["migration"]),
        (("run", "--patt"), ["--pattern"]),
        (("compare", "-v", "2", "nt", "unmap-f"), ["unmap-first"]),
    ],
)
def test_click_offers_the_rest(words: tuple[str, ...], expected: list[str]) -> None:
    values, modules = offered("stress", *words)
    assert values == expected
    assert "stress.live.server" not in modules  # nothing runs yet: no forkserver is started


def test_zsh_and_fish_replace_the_whole_word() -> None:
    assert offered("stress", "run", "--order=block-first-", shell="zsh")[0] == ["--order=block-first-deferred"]
    asked = {"_STRESS_COMPLETE": "fish_complete", "COMP_WORDS": "stress run ", "COMP_CWORD": "--order=nt"}
    done = subprocess.run(
        [sys.executable, "-m", "stress"], env=os.environ | asked, capture_output=True, text=True, timeout=60, check=True
    )
    assert "--order=nt" in done.stdout


def test_what_is_completed_quickly_is_what_the_commands_have() -> None:
    """The words are looked at before the commands: each option named there is one, and offers the same."""
    context = cli.make_context("stress", [], resilient_parsing=True)
    found = {}
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None
        for parameter in command.params:
            for option in {*parameter.opts} & {*VALUES}:
                found[option] = [item.value for item in parameter.shell_complete(context, "")]
            if parameter.param_type_name == "argument" and name in ARGUMENTS:
                found[name] = [item.value for item in parameter.shell_complete(context, "")]
    assert found == {name: [item.value for item in complete("")] for name, complete in (VALUES | ARGUMENTS).items()}


@pytest.mark.parametrize(
    ("line", "completed"),
    [
        ("stress run --order=block-first-", "stress run --order=block-first-deferred "),
        ("stress run --order invalidate,tlbi,ins", "stress run --order invalidate,tlbi,install"),
        ("stress run --inject no-b", "stress run --inject no-break "),
        ("stress run --platform ku", "stress run --platform kunpeng920 "),
        ("stress sweep orde", "stress sweep orders "),
        ("stress run --config ./mine.t", "stress run --config ./mine.toml "),
        ("stress com", "stress compare "),
    ],
)
def test_a_real_bash(line: str, completed: str, tmp_path: Path) -> None:
    """Readline completes the line at Tab, and at Enter a function prints what became of it."""
    (tmp_path / "mine.toml").write_text("")
    (tmp_path / "rc").write_text(
        f'PATH="{BIN}:$PATH"\nPS1=\neval "$(_STRESS_COMPLETE=bash_source stress)"\n'
        # In place of running the line: print it.
        "print_line() { printf 'LINE<%s>\\n' \"$READLINE_LINE\"; exit; }\nbind -x '\"\\C-g\": print_line'\necho READY\n"
    )
    code = f"""
import os, pty, select, sys
pid, fd = pty.fork()
if pid == 0:
    os.chdir({str(tmp_path)!r})
    os.environ["TERM"] = "dumb"
    os.execvp("bash", ["bash", "--noprofile", "--rcfile", "rc", "-i"])
text = ""
sent = False
while "LINE<" not in text or ">" not in text.rpartition("LINE<")[2]:
    try:
        text += os.read(fd, 4096).decode()
    except OSError:
        break
    if not sent and "READY\\r\\n" in text:
        os.write(fd, ({line!r} + "\\t\\x07").encode())
        sent = True
os.waitpid(pid, 0)
print(text.rpartition("LINE<")[2].partition(">")[0], end="|")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == f"{completed}|"
