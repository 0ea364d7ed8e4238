"""Configurations that come with the program, and the one rule by which a text names one of them or a file.

A text with a slash, or that ends in ``.toml``, is a path. Anything else is the name of a file that comes with the
program, whatever files there are in the current directory.
"""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import Final

from stress.errors import UsageError
from stress.guess import did_you_mean

_PACKAGE: Final = Path(__file__).resolve().parent
#: Packed beside the modules in a wheel, beside the package in a checkout.
_PLACES: Final = (_PACKAGE / "configs", _PACKAGE.parent / "configs")


class Kind(StrEnum):
    """The kind of a file that comes with the program; its value is the word for it in messages."""

    CONFIG = "config"  # of a run
    SWEEP = "sweep"
    PLATFORM = "platform"
    SUITE = "suite"


_DIRECTORIES: Final = {Kind.CONFIG: ".", Kind.SWEEP: "sweeps", Kind.PLATFORM: "platforms", Kind.SUITE: "suites"}


def names(kind: Kind) -> tuple[str, ...]:
    """Names of the files of one kind, sorted."""
    return tuple(sorted(path.stem for path in _directory(kind).glob("*.toml")))


def find(kind: Kind, text: str) -> Path:
    """The file that ``text`` names; a path is not checked.

    Raises `UsageError` for an unknown name, and for a missing file whose name alone would do.
    """
    known = names(kind)
    if "/" in text or text.endswith(".toml"):
        path = Path(text)
        if path.stem in known and not os.path.lexists(text.partition("\0")[0]):
            raise UsageError(
                f"there is no file {text[:200]}", f"the {kind} that comes with stress is named {path.stem}"
            )
        return path
    if text not in known:
        hint = did_you_mean(text, known, f"use one of {', '.join(known)}, or a TOML file's path")
        raise UsageError(f"unknown {kind} {text[:60]!r}", hint)
    return _directory(kind) / f"{text}.toml"


def _directory(kind: Kind) -> Path:
    root = next((place for place in _PLACES if place.is_dir()), _PLACES[0])
    return root / _DIRECTORIES[kind]
