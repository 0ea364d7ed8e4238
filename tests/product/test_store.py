"""Result files: all or nothing, and clear words when they cannot be written or read."""

from __future__ import annotations

import errno
import json
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic import head_to_head, run_data, version_1

from stress import interrupt
from stress.errors import ExitCode, Interrupted, RunBroken, UsageError
from stress.results.document import build
from stress.results.schema import SCHEMA_VERSION
from stress.results.store import check_writable, read, write
from stress.results.tables import compare_table, run_table

DOCUMENT = build(run_data([])) | {"started_at": "Größe"}

as_user = pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")


def test_what_is_written_is_read(tmp_path: Path) -> None:
    document = build(head_to_head(np.random.default_rng(1), rebuilds=20))
    path = tmp_path / "result.json"
    check_writable(path)
    assert list(tmp_path.iterdir()) == []
    write(path, document)
    assert read(path) == document
    assert list(tmp_path.iterdir()) == [path]


def test_permissions_are_those_of_any_new_file(tmp_path: Path) -> None:
    write(tmp_path / "result.json", DOCUMENT)
    (tmp_path / "other").touch()
    assert (tmp_path / "result.json").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_a_failed_write_keeps_the_old_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "result.json"
    write(path, DOCUMENT)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunBroken, match="no space left on device; make room"):
        write(path, {**DOCUMENT, "started_at": "new"})
    assert read(path) == DOCUMENT
    assert list(tmp_path.iterdir()) == [path]


def test_a_document_that_is_not_json_touches_no_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write(tmp_path / "result.json", {"value": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_a_full_device_is_one_clear_line() -> None:
    device = Path("/dev/full")
    with pytest.raises(RunBroken, match="cannot write /dev/full: no space left on device"):
        write(device, DOCUMENT)
    assert device.is_char_device()


def test_a_special_file_is_written_to_and_not_replaced() -> None:
    check_writable(Path("/dev/null"))
    write(Path("/dev/null"), DOCUMENT)
    assert Path("/dev/null").is_char_device()


@pytest.mark.timeout(60)
def test_a_pipe_is_written_to_once_somebody_reads_it(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=write, args=(pipe, DOCUMENT))
    writer.start()
    content = pipe.read_text()
    writer.join()
    assert json.loads(content) == DOCUMENT


@pytest.mark.timeout(60)
def test_waiting_for_a_reader_can_be_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setattr(interrupt, "requested", threading.Event())
    threading.Timer(0.3, interrupt.requested.set).start()
    with pytest.raises(Interrupted, match="nobody read"):
        write(tmp_path / "pipe", DOCUMENT)


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    target, link = tmp_path / "target.json", tmp_path / "link.json"
    link.symlink_to(target)
    check_writable(link)
    assert not target.exists()
    write(link, DOCUMENT)
    assert link.is_symlink()
    assert read(target) == DOCUMENT


def test_unwritable_places_are_refused_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for path, message in (
        (tmp_path / "missing" / "result.json", "no directory"),
        (tmp_path, "is a directory"),
        (tmp_path / "file" / "result.json", "not a directory"),
        (tmp_path / ("x" * 300), "name too long"),
        (loop, "symlink loop|symbolic links"),
        (tmp_path / "nul\0", "null"),
    ):
        with pytest.raises(UsageError, match=message) as caught:
            check_writable(path)
        assert caught.value.exit_code == ExitCode.USAGE
        assert caught.value.remedy
        assert "\n" not in str(caught.value)
    assert {path.name for path in tmp_path.iterdir()} == {"file", "loop"}


@as_user
def test_permissions_are_respected(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.touch(mode=0o444)
    with pytest.raises(UsageError, match="read-only"):
        check_writable(path)
    tmp_path.chmod(0o555)
    with pytest.raises(UsageError, match="permission denied"):
        check_writable(tmp_path / "new.json")
    tmp_path.chmod(0o755)


def test_newer_schemas_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text(json.dumps({"schema_version": SCHEMA_VERSION + 1}))
    with pytest.raises(UsageError, match=f"schema version {SCHEMA_VERSION + 1}.*up to {SCHEMA_VERSION}"):
        read(path)


@pytest.mark.parametrize("rebuilds", [0, 20])
def test_version_1_is_read_in_the_shape_of_today(tmp_path: Path, rebuilds: int) -> None:
    new = build(head_to_head(np.random.default_rng(1), rebuilds=rebuilds))
    path = tmp_path / "result.json"
    write(path, version_1(new))
    old = read(path)
    assert old["schema_version"] == 1
    for table in (run_table, compare_table):
        assert table(old) == table(new)
    for order in new["orders"]:  # what version 1 did not count is absent, everything else the same
        for key in ("cycles", "lost_races", "mappings", "faults_by_level", "window_histogram", "stall_histogram"):
            del order[key]
    del new["timeline"]
    assert old == {**new, "schema_version": 1}


@pytest.mark.parametrize("orders", [None, [[]], [{}], [{"faults": 3, "per_vcpu": [], "rebuilds": 1}]])
def test_half_a_document_of_version_1_is_refused(tmp_path: Path, orders: object) -> None:
    path = tmp_path / "result.json"
    path.write_text(json.dumps({"schema_version": 1, "orders": orders}))
    with pytest.raises(UsageError, match="no whole result of schema version 1"):
        read(path)


def test_a_truncated_file_is_one_clear_line(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    write(path, DOCUMENT)
    whole = path.read_bytes()
    for size in range(len(whole.rstrip())):
        path.write_bytes(whole[:size])
        with pytest.raises(UsageError, match="not JSON, or cut off, at line"):
            read(path)


@pytest.mark.parametrize(
    "content",
    [b"[]", b"{}", b"null", b'{"schema_version": true}', b'{"schema_version": "1"}', b"\xff", b"[" * 10**5],
)
def test_what_is_no_result_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "result.json"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"cannot read .*(schema_version|not JSON)"):
        read(path)


def test_missing_files_and_directories(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        read(tmp_path / "missing")
    with pytest.raises(UsageError, match="is a directory"):
        read(tmp_path)


@given(st.binary(max_size=200))
def test_no_bytes_cause_a_traceback(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.json"
    path.write_bytes(content)
    with pytest.raises(UsageError):
        read(path)
