"""Files that come with the program: found by name from any directory, in a checkout and in a wheel."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from stress.errors import UsageError
from stress.shipped import Kind, find, names

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("kind", Kind)
def test_every_name_is_a_file(kind: Kind) -> None:
    assert names(kind)
    for name in names(kind):
        assert find(kind, name).is_file()


def test_a_name_is_a_name_whatever_the_directory_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("thread", "thread.toml"):
        Path(name).write_text("")
    assert find(Kind.SWEEP, "thread").samefile(ROOT / "configs/sweeps/thread.toml")
    for path in ("thread.toml", "./thread", str(tmp_path / "thread")):
        assert find(Kind.SWEEP, path) == Path(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("tread", r"unknown sweep 'tread'; did you mean thread\?"),
        ("mine", r"unknown sweep 'mine'; use one of batch, .*, yield, or a TOML file's path"),
        ("", "unknown sweep ''"),
        ("configs/sweeps/thread.toml", "there is no file .*; the sweep that comes with stress is named thread"),
    ],
)
def test_what_is_not_there(text: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=words):
        find(Kind.SWEEP, text)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as a wheel installs it."""
    place = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", str(ROOT), "--no-deps", "--no-build-isolation", "--quiet"]
    subprocess.run([*build, "--no-index", "--wheel-dir", str(place)], check=True, timeout=100)
    (packed,) = place.glob("*.whl")
    with zipfile.ZipFile(packed) as archive:
        archive.extractall(place / "site")
    return place / "site"


def python(wheel: Path, directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Python with the wheel's package, run in ``directory``."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(wheel)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_a_wheel_knows_every_name_in_an_empty_directory(wheel: Path, tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text()
    commands = set(re.findall(r"stress ((?:sweep|bench|compare|run) [^`\n]*)", readme))
    wanted = [*(f"sweep {name} --dry-run" for name in names(Kind.SWEEP)), "platforms", "bench --help"]
    wanted += [f"{command} --dry-run" for command in commands if command.startswith("sweep ")]
    # A configuration is read before the block size is refused.
    wanted += [f"run --config {name} --block-size 3000" for name in names(Kind.CONFIG)]
    for command in wanted:
        done = python(wheel, tmp_path, "-m", "stress", *shlex.split(command))
        if "3000" in command:
            assert done.returncode == 2
            assert re.fullmatch(r"stress: .*--block-size: 3000 bytes .*\n", done.stderr), (command, done.stderr)
        else:
            assert (done.returncode, done.stderr) == (0, ""), command
    where = python(wheel, tmp_path, "-c", "import stress.shipped as s; print(s.find(s.Kind.SUITE, 'bench'))")
    assert Path(where.stdout.strip()).is_relative_to(wheel)
    assert not list(tmp_path.iterdir())
