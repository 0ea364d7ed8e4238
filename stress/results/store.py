"""Result files: checked before the run, written whole or not at all, refused if they cannot be read."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import secrets
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeVar

from pydantic import ValidationError

from stress import interrupt
from stress.errors import Interrupted, RunBroken, UsageError, why
from stress.reading import read_bytes
from stress.results.parts import defects
from stress.results.schema import SCHEMA_VERSION, Document
from stress.results.upgrade import upgraded

_OUTPUT: Final = "--output"
_TICK_S: Final = 0.1
AGAIN: Final = "the file is damaged or no result of stress; run again with --output"


D = TypeVar("D", bound=Document)


def _elsewhere(option: str) -> str:
    return f"choose another path with {option}"


def check_writable(path: Path, option: str = _OUTPUT) -> None:
    """Raise `UsageError` unless ``path``, which ``option`` named, can be written. Leaves nothing behind."""
    target = _target(path, option)
    if _is_special(target):
        if not os.access(target, os.W_OK):
            raise UsageError(f"cannot write {path}: permission denied", _elsewhere(option))
        return
    if target.is_file() and not os.access(target, os.W_OK):
        raise UsageError(f"cannot write {path}: the file is read-only", f"make it writable or {_elsewhere(option)}")
    try:
        descriptor, temporary = _create(target.parent)
    except FileNotFoundError as error:
        remedy = f"create the directory first, or {_elsewhere(option)}"
        raise UsageError(f"cannot write {path}: no directory {target.parent}", remedy) from error
    except OSError as error:
        raise UsageError(f"cannot write {path}: {why(error)}", _elsewhere(option)) from error
    os.close(descriptor)
    temporary.unlink(missing_ok=True)


def write(path: Path, document: dict[str, Any]) -> None:
    """Write ``document`` so that ``path`` holds either all of it or what it held before.

    A special file (``/dev/null``, a pipe) is written to directly. Raises `StressError`.
    """
    write_text(path, f"{encode(document)}\n")


def write_text(path: Path, text: str) -> None:
    """Write any text as `write` does a document."""
    with replacing(path) as file:
        file.write(text.encode(errors="backslashreplace"))


@contextlib.contextmanager
def replacing(path: Path, option: str = _OUTPUT) -> Iterator[BinaryIO]:
    """A file to write to, which becomes ``path`` once the block is through; else ``path`` is what it was before.

    A special file is written to directly. Raises `StressError`, which names the ``option`` that named the path.
    """
    target = _target(path, option)
    try:
        with _open_special(target, path) if _is_special(target) else _replacing(target) as file:
            yield file
    except OSError as error:
        remedy = f"make room or {_elsewhere(option)}, and run again"
        raise RunBroken(f"cannot write {path}: {why(error)}", remedy) from error


def read(path: Path) -> dict[str, Any]:
    """The document in ``path``, in the shape of the present schema (`upgraded`).

    `UsageError` if it is missing, cut off, no result, or of a newer schema.
    """
    try:
        content = read_bytes(path)
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error
    return checked(loaded(content, path), str(path), AGAIN)


def unreadable(path: Path, error: Exception) -> UsageError:
    """The error of a file that cannot be read."""
    if isinstance(error, FileNotFoundError):
        return UsageError(f"cannot read {path}: no such file", "write one with --output")
    return UsageError(f"cannot read {path}: {why(error)}", "name a readable result file")


def loaded(content: bytes, path: Path) -> Any:
    """The JSON value that ``path`` contained; `UsageError` if it is none."""
    try:
        return json.loads(content)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno} column {error.colno}"
        raise UsageError(f"cannot read {path}: not JSON, or cut off, at {where}", AGAIN) from error
    except (UnicodeDecodeError, RecursionError, ValueError) as error:
        raise UsageError(f"cannot read {path}: not JSON", AGAIN) from error


def checked(document: Any, where: str, remedy: str) -> dict[str, Any]:
    """The whole document that was read from ``where``, in the present schema's shape; `UsageError` if it is none."""
    version = document.get("schema_version") if isinstance(document, dict) else None
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise UsageError(f"cannot read {where}: it has no schema_version", remedy)
    if version > SCHEMA_VERSION:
        message = f"{where} has schema version {version}, this stress reads versions up to {SCHEMA_VERSION}"
        raise UsageError(message, "read it with the newer stress that wrote it")
    try:
        found = upgraded(dict(document))
    except (KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"cannot read {where}: it is no whole result of schema version {version}", remedy) from error
    validated(Document, found, where, remedy)
    return found


def validated(kind: type[D], document: Any, where: str, remedy: str) -> D:
    """The document as ``kind``. `UsageError` names a key that it lacks, or that is wrong."""
    try:
        return kind.model_validate(document, context={"version": document["schema_version"]})
    except ValidationError as error:
        found = defects(Document, error)[0]
        raise UsageError(f"cannot read {where}: it is no whole result, {found} is missing or wrong", remedy) from None


def _target(path: Path, option: str) -> Path:
    """The file that a write to ``path`` changes: links are followed, so that a rename does not replace them."""
    try:
        target = path.resolve()
        if target.is_dir():
            raise UsageError(f"cannot write {path}: it is a directory", f"name a file in it with {option}")
    except (OSError, RuntimeError, ValueError) as error:
        raise UsageError(f"cannot write {str(path)!r}: {why(error)}", _elsewhere(option)) from error
    return target


def _is_special(target: Path) -> bool:
    try:
        return not stat.S_ISREG(target.stat().st_mode)
    except OSError:
        return False


def _open_special(target: Path, path: Path) -> BinaryIO:
    """A device or a pipe, open for writing; a pipe once somebody reads it. Raises `Interrupted` while it waits."""
    while True:
        try:
            descriptor = os.open(target, os.O_WRONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ENXIO or not target.is_fifo():
                raise
        else:
            os.set_blocking(descriptor, True)
            return os.fdopen(descriptor, "wb")
        if interrupt.requested.is_set():
            raise Interrupted(f"interrupted while nobody read {path}", "read the pipe, or name a file")
        time.sleep(_TICK_S)


def _create(directory: Path) -> tuple[int, Path]:
    """A new empty file in ``directory``, open for writing, with the permissions any new file gets."""
    temporary = directory / f".stress-{os.getpid()}-{secrets.token_hex(4)}.tmp"
    return os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666), temporary


@contextlib.contextmanager
def _replacing(target: Path) -> Iterator[BinaryIO]:
    descriptor, temporary = _create(target.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    # The rename itself must survive a power cut; not every file system lets a directory be synced.
    with contextlib.suppress(OSError):
        directory = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


# A string holds no raw line break, so that nothing within one looks like this.
_NUMBERS: Final = re.compile(r"\[\n\s+([-+.\deE,\snul]+?)\n\s*\]")


def encode(document: Any) -> str:
    """The text, without a line break at its end. Raises ValueError for NaN and infinities."""
    text = json.dumps(document, indent=2, allow_nan=False)
    return _NUMBERS.sub(lambda found: f"[{' '.join(found[1].split())}]", text)
