"""``stress verify`` from the command line: verdicts, exit codes, the document, and counterexamples kept and played."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands import process

SMALL = ("--vcpus", "1", "--accesses", "1")


def test_two_orders_are_proved() -> None:
    done = process("verify", "block-first", "clean-first", *SMALL, "--jobs", "2", capture_output=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "block-first: PROVED" in done.stdout
    assert "clean-first: PROVED" in done.stdout
    assert "bounds     rebuild, 1 vCPU with 1 access each, 2 pages, 1 mapped, no FWB" in done.stdout
    assert "window faults" in done.stdout


def test_a_wrong_order_is_shown_and_played_again(tmp_path: Path) -> None:
    kept = tmp_path / "example.json"
    steps = "invalidate,clean,install,unmap"
    done = process("verify", steps, "--vcpus", "1", "--output", str(kept), capture_output=True)
    assert (done.returncode, done.stderr) == (1, "")
    assert f"{steps}: VIOLATION: bbm, table-use-after-free, tlb-conflict" in done.stdout
    assert "I_HYQMB" in done.stdout
    again = process("verify", "--replay", str(kept), capture_output=True)
    assert (again.returncode, again.stderr) == (1, "")
    assert "found again: bbm, table-use-after-free, tlb-conflict" in again.stdout
    assert ">>> tlb-conflict" in again.stdout


def test_the_document() -> None:
    done = process("verify", "clean-first", "invalidate,clean,install,unmap", *SMALL, "--json", capture_output=True)
    assert done.returncode == 1
    right, wrong = json.loads(done.stdout)["orders"]
    assert (right["order"], right["verdict"], right["kinds"]) == ("clean-first", "proved", [])
    assert right["steps"] == ["clean", "invalidate", "tlbi", "install", "unmap"]
    assert right["schedules"] > 10
    assert right["elapsed_ns"] > 0
    assert right["seen"]["window faults"] > 0
    assert right["bounds"]["vcpus"] == 1
    assert (wrong["verdict"], wrong["counterexample"]["order"]) == ("violation", wrong["order"])


def test_a_bug_brings_what_shows_it() -> None:
    done = process("verify", "--inject", "batch-first-tlbi-only", "--accesses", "1", "--json", capture_output=True)
    assert done.returncode == 1
    [wrong] = json.loads(done.stdout)["orders"]
    assert (wrong["order"], wrong["bounds"]["batch"], wrong["bounds"]["accesses"]) == ("block-first", 2, 1)


def test_no_time_proves_nothing() -> None:
    done = process("verify", "block-first", "--limit", "1ns", capture_output=True)
    assert done.returncode == 4
    assert "explored 1 schedules, proved nothing; try a longer --limit or " in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "give orders"),
        (("no-order",), "unknown order"),
        (("block-first", "--pages", "3"), "--pages 2, 4, 8 or 16"),
        (("clean-unlocked", "--yield-every", "1"), "leave --yield-every out"),
        (("block-first", "--granule", "8K"), "--granule 4K, 16K or 64K"),
        (("block-first", "--populated", "3"), "--populated 0 to 2"),
        (("bbml2", "--inject", "no-break"), "cannot act"),
        (("block-first", "--recover", "ioctl"), "use --scenario migration"),
        (("--replay", "/dev/null"), "cannot read /dev/null"),
        (("block-first", "--output", "/none/kept.json"), "choose another path with --output"),
        (("block-first", "--trace", "/none/kept.casemate"), "choose another path with --trace"),
    ],
)
def test_nonsense_is_refused(arguments: tuple[str, ...], words: str) -> None:
    done = process("verify", *arguments, capture_output=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
