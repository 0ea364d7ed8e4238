"""Where compiled kernels are kept: one directory per version of the sources, and always some directory."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numba
import pytest

import stress.shm.jit  # noqa: F401 - sets numba.config.CACHE_DIR
from stress.shm import cache


@pytest.fixture(autouse=True)
def forget(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Answers are remembered for the life of a process; forget them before and after each test."""
    for name in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    forget_all()
    yield
    forget_all()


def forget_all() -> None:
    cache._sources_hash.cache_clear()
    cache.cache_directory.cache_clear()


def test_home_then_xdg_then_numbas_own_setting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache.cache_directory().parent == tmp_path / "home" / ".cache" / "stress"
    assert cache.cache_directory().is_dir()
    forget_all()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.cache_directory().parent == tmp_path / "xdg" / "stress"
    forget_all()
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "numba"))
    assert cache.cache_directory().parent == tmp_path / "numba"


def test_no_usable_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))  # no directory can be made below a file
    directory = cache.cache_directory()
    assert directory.is_dir()
    assert directory.is_relative_to(tmp_path / "temporary")


def test_nothing_usable_but_a_fresh_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    directory = cache.cache_directory()
    assert directory.is_dir()
    assert directory.parent == tmp_path / "temporary"


def copy_package(to: Path) -> Path:
    package = to / "stress"
    shutil.copytree(cache._PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    return package


def hash_of(package: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    forget_all()
    monkeypatch.setattr(cache, "_PACKAGE", package)
    return cache.cache_directory().name


def test_every_compiled_source_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    elsewhere = hash_of(cache._PACKAGE, monkeypatch)
    package = copy_package(tmp_path)
    seen = {elsewhere, hash_of(package, monkeypatch)}
    assert len(seen) == 2, "where it lies counts: Numba asks"
    os.utime(package / "kernels" / "walk.py", ns=(0, 0))
    seen.add(hash_of(package, monkeypatch))
    assert len(seen) == 3, "so does when a file was changed"
    for source in ("arch/descriptors.py", "shm/layout.py", "kernels/walk.py", "orders.py", "bugs.py"):
        with (package / source).open("a") as file:
            file.write("# changed\n")
        seen.add(hash_of(package, monkeypatch))
    assert len(seen) == 8
    (package / "kernels" / "new.py").touch()
    assert hash_of(package, monkeypatch) not in seen
    before = hash_of(package, monkeypatch)
    (package / "cli" / "main.py").write_text("")
    assert hash_of(package, monkeypatch) == before, "what is not compiled does not count"


def test_what_is_not_hashed_gives_compiled_code_no_constants() -> None:
    # A function that kernels import, to call it from Python, is no constant; data modules are hashed.
    imported = set()
    for part in cache._COMPILED:
        for path in (cache._PACKAGE / part).glob("*.py"):
            imported |= set(re.findall(r"^from stress\.(\w+)[\w.]* import", path.read_text(), re.MULTILINE))
    assert imported - {*cache._COMPILED, "errors", "units"} == {Path(name).stem for name in cache._CONSTANTS}


def key_of_a_process(**changes: str) -> str:
    code = "from stress.shm import cache; print(cache.cache_directory().name)"
    environment = os.environ | changes
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True
    ).stdout


def test_what_numbas_own_key_has_counts() -> None:
    keys = [key_of_a_process(), key_of_a_process(PYTHONOPTIMIZE="2"), key_of_a_process(NUMBA_CPU_NAME="generic")]
    assert len(set(keys)) == 3
    assert key_of_a_process() == keys[0]


def test_complete_once_marked() -> None:
    assert not cache.is_complete()
    cache.mark_complete()
    assert cache.is_complete()


def test_the_versions_kept_are_those_last_used() -> None:
    """Also the oldest one: kernels that a process loads must not go while others are compiled."""
    base = cache.cache_directory().parent
    cache.mark_complete()
    others = [base / f"kernels-{number}" for number in range(cache._VERSIONS_KEPT)]
    for age, directory in enumerate([cache.cache_directory(), *others]):
        directory.mkdir(exist_ok=True)
        os.utime(directory, (age, age))
    cache.cache_directory.cache_clear()
    assert cache.cache_directory().parent == base
    cache.mark_complete()
    assert cache.cache_directory().exists()
    assert [directory.exists() for directory in others] == [False, *[True] * (cache._VERSIONS_KEPT - 1)]


def test_numba_uses_it() -> None:
    configured: str = vars(numba)["config"].CACHE_DIR
    name = Path(configured).name
    assert name == cache.cache_directory().name, "set at import, for the sources as they are"


#: A kernel and an entry point that calls it; tells of which machine code was made and which take Python's arguments
#: apart, and what came out.
PROGRAM = """
import sys
from numba import types
from numba.core import codegen
from stress.shm.filling import fill_only

made, wrapped = [], []
hook = codegen.CPUCodeLibrary._object_compiled_hook

def note(cls, module, code):
    made.append(module.name)
    hook(module, code)

codegen.CPUCodeLibrary._object_compiled_hook = classmethod(note)
add = codegen.CPUCodeLibrary.add_ir_module

def note_wrapper(self, module):
    if module.name == "wrapper":
        wrapped.append(self.name)
    add(self, module)

codegen.CPUCodeLibrary.add_ir_module = note_wrapper
if sys.argv[1] == "fill":
    fill_only()
from stress.shm.jit import entry, kernel

@kernel
def inner(n):
    return n * n

@entry
def outer(n):
    return inner(n) + 1

outer.compile((types.int64,))
ours = [name for name in made if name in ("inner", "outer")]
print(ours, wrapped, "numba.np.arrayobj" in sys.modules, outer(6) if sys.argv[1] == "call" else "")
"""


def test_what_fills_the_cache_makes_machine_code_of_entry_points_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """And who loads one from there does not have Numba load all that could be compiled."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "numba"))

    def run(how: str) -> str:
        command = [sys.executable, str(program), how]
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=90)
        return str(done.stdout).strip()

    assert run("fill") == "['outer'] ['outer'] True"
    assert run("call") == "[] [] False 37"
    shutil.rmtree(tmp_path / "numba")
    assert run("call") == "['inner', 'outer'] ['inner', 'outer'] True 37", "as it would be otherwise"
