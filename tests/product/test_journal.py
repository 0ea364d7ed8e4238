"""The file of a sweep: appended whole lines, one writer, continued after any trouble, nothing written lost."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import head_to_head, version_1

from stress import Result, SweepResult, load
from stress.config import SweepPlan, plan_sweep
from stress.errors import ExitCode, RunBroken, UsageError
from stress.results.document import build
from stress.results.schema import SCHEMA_VERSION
from stress.results.stored import stored
from stress.results.sweep_table import reason, sweep_table
from stress.results.trials import SWEEP_SCHEMA, TrialResult, read_sweep
from stress.sweeps.journal import opened

TABLES: dict[str, Any] = {"run": {"duration": "1s"}, "sweep": {"vcpus": [1, 2, 3]}, "plan": {"repeats": 2}}
PLAN = plan_sweep(TABLES)
DOCUMENT = build(head_to_head(np.random.default_rng(1), rebuilds=20))

as_user = pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")


def results(**changes: Any) -> list[TrialResult]:
    """A result for each trial of `PLAN`."""
    return [
        TrialResult(trial.id, trial.point.index, trial.point.values, trial.repeat, "", {**DOCUMENT, **changes})
        for trial in PLAN.trials()
    ]


def write(path: Path, found: list[TrialResult], plan: SweepPlan = PLAN, *, resume: bool = False) -> None:
    with opened(path, plan, resume=resume) as journal:
        for each in found:
            journal.append(each)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with all results but the last two."""
    write(tmp_path / "sweep.jsonl", results()[:4])
    return tmp_path / "sweep.jsonl"


def test_what_is_appended_is_read(path: Path) -> None:
    found = read_sweep(path)
    assert list(found.trials) == results()[:4]
    assert (found.header["points"], found.header["repeats"], found.header["trials"]) == (3, 2, 6)
    assert found.swept == ("vcpus",)
    assert not found.cut_off
    assert len(path.read_text().splitlines()) == 5


def test_an_existing_file_is_only_continued_when_asked(path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(UsageError, match=r"exists already; continue it with --resume"):
        write(path, [])
    with opened(path, PLAN, resume=True) as journal:
        assert journal.done == {each.id for each in results()[:4]}
    assert path.read_bytes() == before


def test_resuming_nothing_is_a_beginning(tmp_path: Path) -> None:
    write(tmp_path / "new.jsonl", results(), resume=True)
    assert len(read_sweep(tmp_path / "new.jsonl").done) == 6


def test_cut_off_anywhere_it_loses_that_line_alone(path: Path) -> None:
    content = path.read_bytes()
    ends = [index + 1 for index, byte in enumerate(content) if byte == ord("\n")]
    for size in {0, 1, ends[0] - 1, *ends, ends[0] + 1, ends[3] + 1, ends[3] + 5000, ends[4] - 1}:
        path.write_bytes(content[:size])
        with opened(path, PLAN, resume=True) as journal:
            lines = sum(end <= size for end in ends)
            assert len(journal.before) == max(0, lines - 1)
            assert journal.cut_off == (size not in ends and size > ends[0])
            journal.append(results()[5])
        assert read_sweep(path).trials[-1].id == results()[5].id
        assert not read_sweep(path).cut_off


def test_damage_in_the_midst_is_named_by_its_line(path: Path) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    for damaged in (b"{]\n", b"7\n", b"\n", b'{"trial": 1}\n', b'{"trial": "a"}\n', lines[2][:-30] + b"\n"):
        path.write_bytes(b"".join([*lines[:2], damaged, *lines[3:]]))
        before = path.read_bytes()
        for resume in (False, True):
            with pytest.raises(UsageError, match=r"line 3 is damaged|exists already"):
                write(path, [], resume=resume)
        assert path.read_bytes() == before


def test_another_sweep_is_told_apart_by_what_differs(path: Path) -> None:
    other = plan_sweep({**TABLES, "sweep": {"vcpus": [1, 2]}, "run": {"duration": "2s"}})
    with pytest.raises(UsageError) as caught:
        write(path, [], other, resume=True)
    assert 'run.duration was "1s" and is "2s"; sweep.vcpus was [1, 2, 3] and is [1, 2]' in str(caught.value)
    # The order of execution is no part of what is measured.
    write(path, [], plan_sweep({**TABLES, "plan": {"repeats": 2, "seed": 9}}), resume=True)


def test_what_is_not_done_runs_again_and_its_new_line_holds(tmp_path: Path) -> None:
    path = tmp_path / "sweep.jsonl"
    failure = {"what": "died"}
    ended = {
        "correct": results()[0],
        "violations": results(verdict="violations", exit_code=1)[1],
        "leaked": results(verdict="violations", exit_code=1, complete=False, failure=failure)[2],
        "broken": results(verdict="broken", exit_code=4, complete=False, failure=failure)[3],
        "interrupted": results(verdict="violations", exit_code=1, complete=False)[4],
    }
    last = results()[5]
    failed = TrialResult(last.id, last.point, last.values, last.repeat, "", None, {"exit_code": 3, "message": "small"})
    write(path, [*ended.values(), failed])
    with opened(path, PLAN, resume=True) as journal:
        assert journal.done == {ended[name].id for name in ("correct", "violations", "leaked")}
        assert [each.exit_code for each in journal.before] == [0, 1, 1, 4, 1, 3]
        journal.append(results()[5])
    found = read_sweep(path)
    assert len(found.trials) == 6
    assert found.trials[-1].document is not None
    assert found.trials[-1].id in found.done


def test_a_trial_that_tested_nothing_runs_again(tmp_path: Path) -> None:
    path = tmp_path / "sweep.jsonl"
    idle = results(verdict="nothing-tested", exit_code=4, untested=["no rebuild by block-first"])[0]
    write(path, [idle])
    found = read_sweep(path)
    assert (found.done, idle.exit_code, reason(idle)) == (frozenset(), 4, "no rebuild by block-first")
    assert sweep_table(found.trials, (), 1).startswith("INCOMPLETE: 0 of 1 run done (1 nothing-tested)")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("what", ["result", "sweep"])
def test_a_result_is_loaded_from_a_pipe(what: str, tmp_path: Path) -> None:
    file, pipe = tmp_path / "file", tmp_path / "pipe"
    os.mkfifo(pipe)
    result = results()[0]
    if what == "result":
        assert result.document is not None
        file.write_text(json.dumps(result.document))
    else:
        write(file, [result])
    writer = threading.Thread(target=pipe.write_bytes, args=(file.read_bytes(),))
    writer.start()
    found = load(pipe)
    writer.join()
    assert isinstance(found, Result if what == "result" else SweepResult)
    assert str(found) == str(load(file))


def test_two_sweeps_never_write_one_file(path: Path) -> None:
    code = f"""
import sys
from pathlib import Path
from stress.config import plan_sweep
from stress.sweeps.journal import opened
with opened(Path({str(path)!r}), plan_sweep({TABLES!r}), resume=True):
    print("open", flush=True)
    sys.stdin.read()
"""
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"open\n"
        for resume in (True, False):
            with pytest.raises(UsageError, match=r"another sweep is writing to .*sweep.jsonl; wait for it"):
                write(path, [], resume=resume)
        other.kill()
    write(path, results()[4:], resume=True)
    assert len(read_sweep(path).done) == 6


@contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    """The kernel refuses to write beyond; a real failure of a real write, half-way through a line."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


def test_a_failed_write_leaves_the_file_as_it_was(path: Path) -> None:
    before = path.read_bytes()
    with opened(path, PLAN, resume=True) as journal:
        with no_file_larger_than(len(before) + 100), pytest.raises(RunBroken, match=r"make room.*--resume") as caught:
            journal.append(results()[4])
        assert caught.value.exit_code == ExitCode.BROKEN
        assert path.read_bytes() == before
        journal.append(results()[4])
    assert list(read_sweep(path).trials) == results()[:5]


def test_unwritable_places_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    for place, message in (
        (tmp_path / "missing" / "x.jsonl", "no such file"),
        (tmp_path, "is a directory"),
        (tmp_path / "file" / "x", "not a directory"),
        (tmp_path / "pipe", "no regular file"),
        (Path("/dev/full"), "no regular file"),
        (Path("/sys/sweep.jsonl"), "permission denied|read-only|not permitted"),  # not even for root
        (tmp_path / "nul\0", "null"),
    ):
        with pytest.raises(UsageError, match=message) as caught:
            write(place, [])
        assert caught.value.remedy


@as_user
def test_read_only_places_are_refused(path: Path) -> None:
    path.chmod(0o444)
    with pytest.raises(UsageError, match="permission denied"):
        write(path, [], resume=True)
    path.parent.chmod(0o555)
    with pytest.raises(UsageError, match="permission denied"):
        write(path.parent / "new.jsonl", [])
    path.parent.chmod(0o755)


def test_schemas_older_and_newer(path: Path) -> None:
    header, first, *others = path.read_text().splitlines()
    newer = json.loads(header) | {"sweep_schema": SWEEP_SCHEMA + 1}
    path.write_text("\n".join([json.dumps(newer), first, ""]))
    with pytest.raises(UsageError, match=f"sweep schema version {SWEEP_SCHEMA + 1}.*up to {SWEEP_SCHEMA}; read it"):
        read_sweep(path)
    line = json.loads(first)
    line["document"]["schema_version"] = SCHEMA_VERSION + 1
    path.write_text("\n".join([header, json.dumps(line), *others, ""]))
    with pytest.raises(UsageError, match=f"line 2 has schema version {SCHEMA_VERSION + 1}"):
        read_sweep(path)
    line["document"] = version_1(DOCUMENT)
    path.write_text("\n".join([header, json.dumps(line), *others, ""]))
    assert len(stored(path).rows) == 8


@settings(max_examples=50)
@given(st.binary(max_size=60), st.integers(0, 400), st.booleans())
def test_no_bytes_cause_a_traceback(
    tmp_path_factory: pytest.TempPathFactory, bytes_in: bytes, at: int, after_header: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.jsonl"
    path.unlink(missing_ok=True)
    write(path, results()[:1])
    content = path.read_bytes()
    at += content.index(b"\n") if after_header else 0
    path.write_bytes(content[:at] + bytes_in + content[at + len(bytes_in) :])
    try:
        found = stored(path)
    except UsageError as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert found.table("simple")


def test_a_sweep_that_ran_nothing_may_begin_anew(tmp_path: Path) -> None:
    write(tmp_path / "sweep.jsonl", [])
    other = plan_sweep({**TABLES, "plan": {"repeats": 1}})
    with pytest.raises(UsageError, match="is of another sweep"):
        write(tmp_path / "sweep.jsonl", [], other, resume=True)
    write(tmp_path / "sweep.jsonl", [], other)
    assert read_sweep(tmp_path / "sweep.jsonl").header["trials"] == 3
    write(tmp_path / "sweep.jsonl", results()[:1])
    with pytest.raises(UsageError, match="exists already"):
        write(tmp_path / "sweep.jsonl", [])


def test_a_file_removed_meanwhile_is_no_success(path: Path) -> None:
    with opened(path, PLAN, resume=True) as journal:
        path.unlink()
        with pytest.raises(RunBroken, match=r"sweep\.jsonl was removed or replaced"):
            journal.append(results()[4])


@pytest.mark.parametrize("swept", [[1], [{"a": 1}]])
def test_swept_keys_that_are_none_are_damage(path: Path, swept: list[Any]) -> None:
    first, rest = path.read_text().split("\n", 1)
    path.write_text(json.dumps({**json.loads(first), "swept": swept}) + "\n" + rest)
    with pytest.raises(UsageError, match=r"line 1 is damaged; name a sweep"):
        read_sweep(path)


@pytest.mark.parametrize("number", ["1" + "0" * 400, "NaN", "1e999"])
def test_numbers_that_no_run_measures_are_damage(path: Path, number: str) -> None:
    first, line = path.read_text().split("\n")[:2]
    changed = json.loads(line)
    changed["document"]["orders"][0]["accesses_per_s"] = json.loads(number)
    path.write_text(f"{first}\n{json.dumps(changed)}\n")
    with pytest.raises(UsageError, match=r"line 2: it is no whole result, orders\[\]\.accesses_per_s"):
        stored(path)
