"""Where compiled kernels are kept between runs: one directory for all that Numba's own cache depends on.

Numba takes a kernel from its cache only for the same interpreter, the same Numba, and the same file at the same place
with the same time of change. Were two installations to share a directory, the mark that says "complete" would hold for
one, and the other would compile without a word.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent.parent
_COMPILED = ("arch", "shm", "kernels")
# Data that compiled code takes its constants from.
_CONSTANTS = ("bugs.py", "orders.py", "splits.py")
# What Numba's code depends on besides: these settings, and what /proc/cpuinfo says of the CPU.
_SETTINGS = ("NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES")
_CPU = ("model name", "cpu family", "model", "flags", "CPU implementer", "CPU part", "Features")
_COMPLETE = "complete"
_VERSIONS_KEPT = 8


def _cpu() -> tuple[str, ...]:
    """The lines of /proc/cpuinfo that tell the first processor from others; none where the file cannot be read."""
    try:
        with open("/proc/cpuinfo") as file:
            first = file.read(8192).partition("\n\n")[0]
    except OSError:
        return ()
    return tuple(line for line in first.splitlines() if line.partition(":")[0].strip() in _CPU)


@lru_cache(maxsize=1)
def _sources_hash() -> str:
    compiler = (sys.implementation.cache_tag, sys.flags.optimize, version("numba"), _cpu())
    settings = [os.environ.get(name, "") for name in _SETTINGS]
    digest = hashlib.sha256(f"{compiler} {settings} {_PACKAGE}".encode())
    files = [_PACKAGE / name for name in _CONSTANTS]
    for part in _COMPILED:
        files += sorted((_PACKAGE / part).glob("*.py"))
    for path in files:
        digest.update(f"{path.name} {path.stat().st_mtime_ns} ".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _base() -> Path:
    if configured := os.environ.get("NUMBA_CACHE_DIR"):
        return Path(configured)
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path("~/.cache").expanduser()) / "stress"


@lru_cache(maxsize=1)
def cache_directory() -> Path:
    """Directory for this version's kernels, created; in the temporary directory if there is no other."""
    name = f"kernels-{_sources_hash()}"
    for base in (_base(), Path(tempfile.gettempdir()) / f"stress-cache-{os.getuid()}"):
        directory = base / name
        try:
            base.mkdir(mode=0o700, parents=True, exist_ok=True)
            directory.mkdir(mode=0o700, exist_ok=True)
        except OSError:
            continue
        if os.access(directory, os.W_OK) and _is_ours(base) and _is_ours(directory):
            os.utime(directory)  # it is in use
            return directory
    return Path(tempfile.mkdtemp(prefix="stress-cache-"))


def is_where_asked() -> bool:
    """Whether kernels are kept in the user's cache directory, not in a temporary one that took its place."""
    return cache_directory().parent == _base()


def _is_ours(directory: Path) -> bool:
    """Whether nobody but this user can have put code into the directory: cached kernels are unpickled."""
    status = directory.stat()
    return status.st_uid == os.getuid() and not status.st_mode & 0o022


def is_complete() -> bool:
    """Whether every kernel of this version has been compiled and kept."""
    return (cache_directory() / _COMPLETE).exists()


def mark_complete() -> None:
    """Note that every kernel has been compiled and kept; drops those of all versions but the few last used."""
    (cache_directory() / _COMPLETE).touch()
    versions = sorted(cache_directory().parent.glob("kernels-*"), key=lambda path: path.stat().st_mtime, reverse=True)
    for old in versions[_VERSIONS_KEPT:]:
        shutil.rmtree(old, ignore_errors=True)
