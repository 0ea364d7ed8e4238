"""Starved: standard output that takes nothing, limits too low for a run, no /proc. One line each, before a run."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import process, refused

from stress.errors import ExitCode
from stress.limits import starvation

RUN = ("run", "--vcpus", "1", "--block-size", "2M", "--rebuilds", "3")


@pytest.mark.parametrize(
    "arguments", [("--help",), ("--version",), ("run", "--help"), ("orders",), ("clean", "--dry-run"), ("doctor",), RUN]
)
def test_full_standard_output(arguments: tuple[str, ...]) -> None:
    with Path("/dev/full").open("w") as full:
        done = process(*arguments, stdout=full, stderr=subprocess.PIPE)
    line = refused((done.returncode, "", done.stderr), ExitCode.BROKEN)
    assert "cannot write to standard output: No space left on device" in line


@pytest.mark.parametrize("arguments", [("--help",), ("orders",), RUN])
def test_closed_standard_output(arguments: tuple[str, ...]) -> None:
    done = process(*arguments, stderr=subprocess.PIPE, preexec_fn=lambda: os.close(1))
    assert "cannot write to standard output" in refused((done.returncode, "", done.stderr), ExitCode.BROKEN)


def test_standard_output_that_cannot_be_written_to() -> None:
    with Path(os.devnull).open() as null:
        done = process(*RUN, stdout=null, stderr=subprocess.PIPE)
    assert "for reading only" in refused((done.returncode, "", done.stderr), ExitCode.BROKEN)


def test_a_reader_that_has_left_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    for arguments in (("--help",), ("orders",)):
        done = process(*arguments, stdout=writer, stderr=subprocess.PIPE)
        assert (done.returncode, done.stderr) == (0, "")
    os.close(writer)


def test_closed_descriptors_are_not_given_to_anything_else(tmp_path: Path) -> None:
    """With standard error closed, what is opened first would get its number, and every line written to it."""
    code = (
        "import os; [os.close(each) for each in (0, 2)]\n"
        "import sys; sys.argv = ['stress', 'orders']\n"
        "from stress.__main__ import main\n"
        "try: main()\n"
        "finally: print(*(os.readlink(f'/proc/self/fd/{each}') for each in (0, 2)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == "/dev/null /dev/null"


def limited(which: int, limit: int) -> Callable[[], None]:
    def limit_it() -> None:
        resource.setrlimit(which, (limit, limit))

    return limit_it


@pytest.mark.parametrize(
    ("which", "limit", "remedy"),
    [
        (resource.RLIMIT_NOFILE, 10, "ulimit -n"),
        (resource.RLIMIT_AS, 300_000 << 10, "ulimit -v"),
        (resource.RLIMIT_STACK, 256 << 10, "ulimit -s"),
    ],
    ids=["files", "memory", "stack"],
)
@pytest.mark.parametrize("command", ["run", "sweep"])
def test_a_limit_too_low_for_a_run_is_named(which: int, limit: int, remedy: str, command: str) -> None:
    done = process(command, capture_output=True, preexec_fn=limited(which, limit))
    assert remedy in refused((done.returncode, done.stdout, done.stderr), ExitCode.MACHINE)


@pytest.mark.parametrize("kib", [30_000, 50_000, 100_000, 200_000])
def test_commands_without_a_run_do_or_name_the_limit(kib: int) -> None:
    """Whatever does not load for lack of memory: never a traceback, never an internal error."""
    code = "import resource; from stress.__main__ import main\n"
    code += f"resource.setrlimit(resource.RLIMIT_AS, ({kib << 10}, {kib << 10}))\nmain()"
    done = subprocess.run(
        [sys.executable, "-c", code, "show", os.devnull], capture_output=True, text=True, check=False, timeout=100
    )
    line = refused((done.returncode, done.stdout, done.stderr), ExitCode(done.returncode))
    assert "/dev/null" in line if done.returncode == ExitCode.USAGE else "ulimit -v" in line


def test_no_proc() -> None:
    unshare = shutil.which("unshare")
    hide = 'mount -t tmpfs none /proc && exec "$@"'
    wrapped = (unshare or "unshare", "-rm", "sh", "-c", hide, "sh")
    if unshare is None or subprocess.run([*wrapped, "true"], capture_output=True, check=False).returncode:
        pytest.skip("namespaces are not allowed here")
    command = [*wrapped, sys.executable, "-m", "stress", *RUN]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    line = refused((done.returncode, done.stdout, done.stderr), ExitCode.MACHINE)
    assert line == "stress: there is no /proc; mount it: mount -t proc proc /proc"


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (OSError(errno.EMFILE, os.strerror(errno.EMFILE)), "ulimit -n"),
        (ImportError("x.so: cannot open shared object file: Too many open files"), "ulimit -n"),
        (MemoryError(), "out of memory"),
        (OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)), "out of memory"),
        (RuntimeError("can't start new thread"), "threads"),
        (caused(OSError("no libllvmlite.so"), OSError("failed to map segment from shared object")), "out of memory"),
        (FileNotFoundError(errno.ENOENT, "", "/proc/meminfo"), "no /proc"),
    ],
)
def test_what_libraries_raise_for_lack_of_something(error: Exception, what: str) -> None:
    assert what in str(starvation(error))


@pytest.mark.parametrize("error", [ValueError("x"), FileNotFoundError(errno.ENOENT, "", "/etc/none"), KeyError("y")])
def test_what_has_another_reason_is_not_put_down_to_a_limit(error: Exception) -> None:
    assert starvation(error) is None
