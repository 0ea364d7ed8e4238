"""`stress clean` and whom it spares: a segment is stale when its creator is dead, whatever its pid says."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from commands import Command, command_line, refused
from machines import small_machine

from stress.errors import ExitCode, MachineError
from stress.shm import segment, stale
from stress.shm.segment import Segment
from stress.shm.stale import PREFIX, SHM, remove_stale, stale_segments

CREATE = """
import time
from machines import small_machine
from stress.shm.segment import Segment
kept = Segment.create(small_machine(blocks=1).geo, 1)
print(kept.name, flush=True)
time.sleep(600)
"""


def dead_pid() -> int:
    """Id of a process that has ended and been waited for."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


@pytest.fixture
def creator() -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A process that has created a segment, and the segment."""
    process = subprocess.Popen(
        [sys.executable, "-c", CREATE],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {"PYTHONPATH": f"{Path(__file__).parents[1]}:{os.environ.get('PYTHONPATH', '')}"},
    )
    assert process.stdout is not None
    path = SHM / process.stdout.readline().strip()
    yield process, path
    kill(process)
    process.stdout.close()
    path.unlink(missing_ok=True)


def kill(process: subprocess.Popen[str]) -> None:
    """End a process and all it started, so that nothing of it tidies up."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture
def shm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A stand-in for /dev/shm."""
    monkeypatch.setattr(stale, "SHM", tmp_path)
    return tmp_path


@pytest.fixture
def stress(capsys: pytest.CaptureFixture[str]) -> Command:
    return command_line(capsys)


def names() -> list[str]:
    return [each.name for each in stale_segments()]


# With real segments.


def test_a_segment_outlives_a_killed_creator_until_it_is_cleaned(
    creator: tuple[subprocess.Popen[str], Path], stress: Command
) -> None:
    process, path = creator
    assert path.name not in names()
    kill(process)
    (found,) = (each for each in stale_segments() if each.name == path.name)
    assert (found.creator, found.ours) == (process.pid, True)
    assert found.bytes >= path.stat().st_size
    code, out, _ = stress("clean", "--dry-run")
    assert code == 0
    assert f"would remove {path.name} (" in out
    assert path.exists()
    code, out, _ = stress("clean")
    assert code == 0
    assert re.search(rf"^removed {path.name} \(\d.* MiB, of process {process.pid}\)$", out, re.M)
    assert not path.exists()


def test_a_pid_that_was_given_away_keeps_no_dead_segment(creator: tuple[subprocess.Popen[str], Path]) -> None:
    process, path = creator
    kill(process)
    reused = path.rename(SHM / f"{PREFIX}{os.getpid()}-reused")
    try:
        assert reused.name in names()
    finally:
        reused.unlink()


def test_a_live_creator_is_spared_where_its_pid_is_unknown(creator: tuple[subprocess.Popen[str], Path]) -> None:
    """As that of a container with pids of its own is."""
    _, path = creator
    foreign = path.rename(SHM / f"{PREFIX}{dead_pid()}-foreign")
    try:
        assert foreign.name not in names()
    finally:
        foreign.unlink()


def test_a_removed_segment_leaves_no_open_file() -> None:
    """Nor a mapping without views: either would keep all of its memory."""

    def held() -> int:
        files = [os.readlink(each) for each in Path("/proc/self/fd").iterdir() if each.is_symlink()]
        return sum(PREFIX in each for each in [*files, *Path("/proc/self/maps").read_text().splitlines()])

    before = held()
    created = Segment.create(small_machine(blocks=1).geo, 1)
    assert created.name not in names()
    assert held() > before
    created.remove()
    del created
    assert held() == before


def test_where_the_kernel_has_no_leases_pids_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> bytes:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr("stress.shm.lease.fcntl.fcntl", refuse)
    created = Segment.create(small_machine(blocks=1).geo, 1)
    try:
        assert created.name not in names()
        foreign = (SHM / created.name).rename(SHM / f"{PREFIX}{dead_pid()}-dead")
        assert foreign.name in names()
        foreign.rename(SHM / created.name)
    finally:
        created.remove()
    assert not (SHM / created.name).exists()


# With files that only look like it.


def test_without_a_lease_the_pid_decides(shm: Path) -> None:
    dead = dead_pid()
    left = [f"{PREFIX}{dead}-0a", f"{PREFIX}{dead}-0b"]
    others = [
        *(f"{PREFIX}{os.getpid()}-0c", f"{PREFIX}1-0d", f"{PREFIX}ng-{dead}", f"other-{dead}-0e", f"{dead}"),
        *(f"{PREFIX}{dead}", f"{PREFIX}{dead}-", f"{PREFIX}{'9' * 30}-0f"),
    ]
    for name in left + others:
        (shm / name).touch()
    assert names() == left
    assert [each.name for each in remove_stale()] == left
    assert sorted(path.name for path in shm.iterdir()) == sorted(others)
    assert remove_stale() == []


def test_another_users_live_process_counts_as_alive(shm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(pid: int, number: int) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    (shm / f"{PREFIX}{dead_pid()}-0a").touch()
    monkeypatch.setattr(os, "kill", forbidden)
    assert stale_segments() == []


def test_another_users_segment_is_left_to_its_owner(
    shm: Path, monkeypatch: pytest.MonkeyPatch, stress: Command
) -> None:
    theirs = shm / f"{PREFIX}{dead_pid()}-0a"
    theirs.touch()
    monkeypatch.setattr(os, "geteuid", lambda: theirs.stat().st_uid + 1)
    assert stress("clean") == (0, f"left {theirs.name} to its owner\n", "")
    assert theirs.exists()


def test_one_that_vanishes_meanwhile(shm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = shm / f"{PREFIX}{dead_pid()}-0a"
    gone.touch()
    found = stale_segments()
    gone.unlink()
    monkeypatch.setattr(stale, "stale_segments", lambda: found)
    assert remove_stale() == []


def test_one_that_cannot_be_removed(shm: Path, monkeypatch: pytest.MonkeyPatch, stress: Command) -> None:
    directory = shm / f"{PREFIX}{dead_pid()}-0a"
    directory.touch()
    found = stale_segments()
    directory.unlink()
    directory.mkdir()  # unlink refuses it, even for root
    monkeypatch.setattr(stale, "stale_segments", lambda: found)
    with pytest.raises(MachineError, match=r"cannot remove .* \(Is a directory\)"):
        remove_stale()
    assert "cannot remove" in refused(stress("clean"), ExitCode.MACHINE)


@pytest.mark.parametrize("kind", ["directory", "pipe", "link"])
def test_what_is_no_regular_file_is_no_segment(
    kind: str, shm: Path, tmp_path_factory: pytest.TempPathFactory, stress: Command
) -> None:
    path = shm / f"{PREFIX}{dead_pid()}-0a"
    target = tmp_path_factory.mktemp("elsewhere") / "file"
    target.write_text("mine")
    make: dict[str, Callable[[Path], object]] = {
        "directory": Path.mkdir,
        "pipe": os.mkfifo,
        "link": lambda path: path.symlink_to(target),
    }
    make[kind](path)
    stale_one = shm / f"{PREFIX}{dead_pid()}-0b"
    stale_one.touch()
    code, out, err = stress("clean")
    assert (code, err) == (0, "")
    assert out.startswith(f"removed {stale_one.name} (")
    assert len(out.splitlines()) == 1
    assert os.path.lexists(path)
    assert target.read_text() == "mine"


def test_names_that_a_terminal_would_act_on_are_spelt_out(shm: Path, stress: Command) -> None:
    name = f"{PREFIX}{dead_pid()}-\x1b]0;title\a\nremoved everything"
    (shm / name).touch()
    code, out, _ = stress("clean")
    assert code == 0
    assert out.startswith(f"removed {PREFIX}")
    assert out.count("\n") == 1
    assert "\\x1b]0;title\\x07 removed everything" in out
    assert not (shm / name).exists()


def test_nothing_to_remove(shm: Path, stress: Command) -> None:
    assert stress("clean") == (0, "nothing to remove\n", "")


def test_a_segment_that_cannot_be_leased_is_not_created(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(segment, "Lease", refuse)
    with pytest.raises(MachineError, match="No locks available"):
        Segment.create(small_machine(blocks=1).geo, 1)
    assert not list(SHM.glob(f"{PREFIX}{os.getpid()}-*"))
