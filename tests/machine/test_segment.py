"""The segment's life: created private and whole, attached by name, removed by its creator, refused when too large."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from multiprocessing import shared_memory
from pathlib import Path
from typing import Any

import pytest
from machines import assert_sound, small_machine

from stress.arch.geometry import GIB, KIB, MIB
from stress.errors import ExitCode, MachineError
from stress.shm import segment
from stress.shm.layout import segment_bytes
from stress.shm.segment import Segment
from stress.shm.stale import PREFIX
from stress.shm.words import MAGIC

GEO = small_machine(blocks=1).geo
SHM = Path("/dev/shm")


def own_segments() -> list[str]:
    return sorted(path.name for path in SHM.glob(f"{PREFIX}{os.getpid()}-*"))


def test_created_attached_and_removed() -> None:
    assert own_segments() == []
    created = Segment.create(GEO, 1)
    try:
        assert own_segments() == [created.name]
        status = (SHM / created.name).stat()
        assert stat.S_IMODE(status.st_mode) == 0o600
        assert status.st_size >= created.size >= segment_bytes(GEO, 1)
        assert status.st_blocks * 512 >= segment_bytes(GEO, 1), "reserved, so that no store is a SIGBUS"
        assert_sound(created.machine)
        attached = Segment.attach(created.name, GEO, 1)
        created.machine.cells[3] = 42
        assert attached.machine.cells[3] == 42
        attached.remove()
        assert own_segments() == [created.name], "only the creator unlinks"
    finally:
        created.remove()
    assert own_segments() == []
    created.remove()  # again: nothing to do
    assert created.machine.cells[3] == 42, "the views live on"


def test_two_segments_of_one_process_have_different_names() -> None:
    one, two = Segment.create(GEO, 1), Segment.create(GEO, 1)
    try:
        assert one.name != two.name
        assert own_segments() == sorted([one.name, two.name])
    finally:
        one.remove()
        two.remove()
    assert own_segments() == []


def test_something_else_is_not_attached() -> None:
    memory = shared_memory.SharedMemory(f"{PREFIX}{os.getpid()}-other", create=True, size=segment_bytes(GEO, 1))
    try:
        assert memory.buf is not None
        memory.buf[:8] = (MAGIC + 1).to_bytes(8, "little")
        with pytest.raises(MachineError, match="not a segment of this version"):
            Segment.attach(memory.name, GEO, 1)
    finally:
        memory.close()
        memory.unlink()


def test_too_large_for_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment, "_free_bytes", lambda: segment_bytes(GEO, 1) - 1)
    with pytest.raises(MachineError, match=r"needs .* /dev/shm has .* free; use fewer blocks") as raised:
        Segment.create(GEO, 1)
    assert raised.value.exit_code is ExitCode.MACHINE
    assert own_segments() == []


def test_too_large_for_any_machine() -> None:
    geo = small_machine(4 * KIB, 2 * MIB).geo._replace(table_pages=1 << 40)
    with pytest.raises(MachineError, match="use fewer blocks"):
        Segment.create(geo, 1)
    assert own_segments() == []


@pytest.mark.parametrize(
    ("number", "words"), [(errno.ENOSPC, "use fewer blocks"), (errno.EIO, "cannot reserve .* Input/output error")]
)
def test_a_failed_reservation_leaves_nothing(monkeypatch: pytest.MonkeyPatch, number: int, words: str) -> None:
    reserved: list[int] = []

    def fail(fd: int, offset: int, size: int) -> None:
        reserved.append(size)
        assert len(own_segments()) == 1, "it existed when the reservation failed"
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "posix_fallocate", fail)
    with pytest.raises(MachineError, match=words):
        Segment.create(GEO, 1)
    assert reserved == [segment_bytes(GEO, 1)]
    assert own_segments() == []


@pytest.mark.parametrize("step", ["carve", "initialise"])
def test_running_out_of_memory_leaves_nothing(monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def fail(*arguments: Any) -> None:
        assert len(own_segments()) == 1
        raise MemoryError

    monkeypatch.setattr(segment, step, fail)
    with pytest.raises(MemoryError):
        Segment.create(GEO, 1)
    assert own_segments() == []


@pytest.mark.thorough
def test_a_process_that_attaches_leaves_the_segment_alone() -> None:
    """Python's resource tracker would take it for its own, and remove it with the process."""
    created = Segment.create(GEO, 1)
    code = (
        "from test_segment import GEO, Segment\n"
        f"assert Segment.attach({created.name!r}, GEO, 1).name == {created.name!r}\n"
        "from multiprocessing.resource_tracker import _resource_tracker as tracker\n"
        "assert tracker._fd is None, 'it was started'\n"
    )
    try:
        here = Path(__file__).parent
        path = f"{here.parent}:{here}:{os.environ.get('PYTHONPATH', '')}"
        subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": path}, check=True)
        assert own_segments() == [created.name]
    finally:
        created.remove()


def test_shared_memory_that_cannot_be_created(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(segment, "_Memory", fail)
    with pytest.raises(MachineError, match="cannot create shared memory: Permission denied"):
        Segment.create(GEO, 1)


def test_no_dev_shm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(segment, "SHM", tmp_path / "missing")
    with pytest.raises(MachineError, match="there is no /dev/shm"):
        Segment.create(GEO, 1)


def test_room_is_asked_of_dev_shm() -> None:
    status = os.statvfs(SHM)
    assert abs(segment._free_bytes() - status.f_bavail * status.f_frsize) < GIB
