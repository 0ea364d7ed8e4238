"""Where compiled kernels are kept between runs: one directory per version of the sources."""

from __future__ import annotations

import hashlib
import os
import tempfile
from functools import lru_cache
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent.parent
_COMPILED = ("arch", "shm", "kernels")
_COMPLETE = "complete"


@lru_cache(maxsize=1)
def _sources_hash() -> str:
    digest = hashlib.sha256()
    files = [_PACKAGE / "orders.py"]
    for part in _COMPILED:
        files += sorted((_PACKAGE / part).glob("*.py"))
    for path in files:
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
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
            directory.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(directory, os.W_OK):
            return directory
    return Path(tempfile.mkdtemp(prefix="stress-cache-"))


def is_complete() -> bool:
    """Whether every kernel of this version has been compiled and kept."""
    return (cache_directory() / _COMPLETE).exists()


def mark_complete() -> None:
    """Note that every kernel has been compiled and kept."""
    (cache_directory() / _COMPLETE).touch()
