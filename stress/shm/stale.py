"""Segments that outlived their creator, after a SIGKILL of all of a run: found and removed.

A whole segment of this version is leased by its creator for as long as it lives (`stress.shm.lease`). Where there is no
lease to ask for (a segment of an older version, or one whose creation was cut short), the pid in its name decides.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from stress.errors import MachineError
from stress.shm.lease import is_leased
from stress.shm.words import MAGIC

PREFIX = "stress-"
SHM = Path("/dev/shm")


@dataclass(frozen=True, slots=True)
class StaleSegment:
    """A segment whose creator is dead."""

    name: str
    creator: int  # its pid
    bytes: int  # of memory that it takes
    ours: bool  # we may remove it

    @classmethod
    def at(cls, path: Path) -> StaleSegment:
        """The segment in the file ``path``. Raises OSError if the file has gone."""
        status = path.lstat()
        ours = os.geteuid() in (0, status.st_uid)
        return cls(path.name, _creator(path.name), status.st_blocks * 512, ours)


def stale_segments() -> list[StaleSegment]:
    """Segments whose creator is dead, everybody's. What is no regular file is none, whatever its name."""
    found = []
    for path in sorted(SHM.glob(f"{PREFIX}*")):
        try:
            if _creator(path.name) and stat.S_ISREG(path.lstat().st_mode) and _is_abandoned(path):
                found.append(StaleSegment.at(path))
        except FileNotFoundError:  # its run has just ended
            continue
    return found


def remove_stale() -> list[StaleSegment]:
    """Remove our segments whose creator is dead; returns them. MachineError if one cannot be removed."""
    removed, refused = [], []
    for segment in stale_segments():
        if not segment.ours:
            continue
        try:
            (SHM / segment.name).unlink()
        except FileNotFoundError:
            continue
        except OSError as error:
            refused.append(f"{segment.name} ({error.strerror})")
        else:
            removed.append(segment)
    if refused:
        raise MachineError(f"cannot remove {', '.join(refused)} from /dev/shm", "see whether it is read-only")
    return removed


def _creator(name: str) -> int:
    """The pid in a segment's name; 0 if it is no segment of ours."""
    pid, _, random = name.removeprefix(PREFIX).partition("-")
    return int(pid) if pid.isascii() and pid.isdigit() and len(pid) < 10 and random else 0


def _is_abandoned(path: Path) -> bool:
    try:
        # Whatever has taken its place meanwhile: no link is followed, and no pipe waited for.
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise
    except OSError:  # another user's: there is only the pid
        return not _is_alive(_creator(path.name))
    try:
        if is_leased(file):
            return False
        if os.pread(file, 8, 0) == MAGIC.to_bytes(8, "little"):
            return True
    except OSError:
        pass  # no regular file
    finally:
        os.close(file)
    return not _is_alive(_creator(path.name))


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
