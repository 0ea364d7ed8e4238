"""One host measures one thing of a user at a time, and no other user can stand in the way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from stress.errors import ExitCode, Interrupted, MachineError
from stress.sweeps.trial import request
from stress.sweeps.turn import turn

HOLDER = """
import time
from stress.sweeps.turn import turn
with turn(lambda: False):
    print("mine", flush=True)
    time.sleep(600)
"""


def never() -> bool:
    return False


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary directory, and no runtime directory."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    return tmp_path


@pytest.fixture
def own(temporary: Path) -> Path:
    """The user's directory in it, which is not there yet."""
    return temporary / f"stress-{os.geteuid()}"


def test_two_of_a_user_take_turns_and_a_dead_one_gives_its_turn_away(own: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLDER], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"mine\n"
        with pytest.raises(Interrupted, match="while another run was measured"), turn(lambda: True):
            raise AssertionError("two at a time")
        asked = threading.Event()
        killer = threading.Thread(target=lambda: (asked.wait(), other.kill()))  # type: ignore[func-returns-value]
        killer.start()

        def waiting() -> bool:
            asked.set()
            return False

        with turn(waiting):
            assert asked.is_set(), "it had to wait"
        killer.join()
    assert own.stat().st_mode & 0o777 == 0o700


OTHERS: dict[str, Callable[[Path], object]] = {
    "a pipe": os.mkfifo,
    "a file": Path.touch,
    "a link to a directory of ours": lambda path: path.symlink_to(_private(path.parent / "elsewhere")),
    "a directory that others may write to": lambda path: _private(path).chmod(0o777),
}


def _private(directory: Path) -> Path:
    directory.mkdir(mode=0o700)
    return directory


@pytest.mark.parametrize("what", OTHERS)
def test_what_others_put_in_place_of_the_directory_is_not_used(
    what: str, own: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    OTHERS[what](own)
    with pytest.raises(MachineError, match=f"no directory is this user's alone: {own}"), turn(never):
        raise AssertionError("used it")
    runtime = tmp_path_factory.mktemp("runtime")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    with turn(never):
        assert (runtime / own.name / "measuring.lock").is_file()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives directories away")
def test_a_directory_of_another_user_is_not_used(own: Path) -> None:
    own.mkdir(mode=0o700)
    os.chown(own, 12345, 12345)
    with pytest.raises(MachineError, match="no directory is this user's alone"), turn(never):
        raise AssertionError("used it")


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (os.mkfifo, "it is no regular file"),
        (lambda path: path.symlink_to("elsewhere"), "Too many levels"),
        (Path.mkdir, "Is a directory"),
    ],
    ids=["pipe", "link", "directory"],
)
def test_only_a_regular_file_is_the_lock(make: Callable[[Path], object], what: str, own: Path) -> None:
    make(_private(own) / "measuring.lock")
    with pytest.raises(MachineError, match=what), turn(never):
        raise AssertionError("locked it")
    assert not (own / "elsewhere").exists()


def test_a_pipe_in_the_temporary_directory_blocks_no_measuring_process(own: Path) -> None:
    """Whatever its name: `mkfifo` there kept a Dask worker's process for ever, SIGTERM included."""
    os.mkfifo(own)
    os.mkfifo(own.with_name("stress-measuring.lock"))
    command = [sys.executable, "-m", "stress.sweeps.trial"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as measuring:
        assert measuring.stdin is not None
        assert measuring.stdout is not None
        measuring.stdin.write(request({"vcpus": 1}))
        measuring.stdin.flush()  # and it stays open: somebody waits
        found = json.loads(measuring.stdout.readline())
    assert found["error"]["exit_code"] == ExitCode.MACHINE
    assert "no directory is this user's alone" in found["error"]["message"]
