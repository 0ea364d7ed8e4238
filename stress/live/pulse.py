"""Whether a process gets on, as the kernel sees it, for processes that have no heartbeat yet, or none at all.

Time alone does not tell: on a loaded machine a process that starts may wait for a processor as long as another hangs.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

# States of proc(5): it has a processor or wants one; the kernel works for it; it is asleep.
_RUNNABLE, _BUSY, _ASLEEP = "R", "D", "S"
# `seen` gives these for a process that is gone, and for one that nothing is known of.
_GONE, _UNKNOWN = "", "?"
# The supervisor looks at least as often as this.
_LOOK_S = 0.2


def seen(pid: int) -> tuple[str, float]:
    """State of process ``pid`` as proc(5) has it, and the processor time that it has used, in s."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return _GONE, 0.0
    except OSError:  # out of open files
        return _UNKNOWN, 0.0
    fields = stat.rpartition(")")[2].split()  # its name may hold anything
    return fields[0], (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def pulse(pid: int, may_sleep: bool = False) -> float:
    """A number that changes as long as process ``pid`` gets on: it has a processor, wants one, or waits for the disk.

    With ``may_sleep`` also while it is asleep, so that only one that was stopped, or is gone, has no pulse.
    """
    state, used_s = seen(pid)
    if state in (_RUNNABLE, _BUSY, _UNKNOWN) or (may_sleep and state == _ASLEEP):
        return time.monotonic()
    return used_s


class Watch:
    """Notices that a value which should change does not."""

    def __init__(self) -> None:
        self._value: object = None
        self._same_s = 0.0
        self._looked = 0.0
        self._used_s: float | None = None

    def unchanged_s(self, value: object, pid: int | None = None) -> float:
        """For how long ``value`` has been the same, in s; 0 at first.

        If the value is process ``pid``'s, only the time counts in which that process could have changed it: while it
        used a processor, was asleep or stopped, and not while it waited for a processor or the disk.
        """
        now = time.monotonic()
        if value != self._value:
            self._value, self._same_s, self._used_s = value, 0.0, None
        else:
            # A look that comes late means that this process was stopped (Ctrl-Z) or starved, the others perhaps, too.
            passed = min(now - self._looked, _LOOK_S)
            self._same_s += passed if pid is None else self._had(pid, passed)
        self._looked = now
        return self._same_s

    def _had(self, pid: int, passed: float) -> float:
        """How much of the ``passed`` s since the last look process ``pid`` had for itself."""
        state, used_s = seen(pid)
        before, self._used_s = self._used_s, used_s
        if state in (_BUSY, _UNKNOWN):
            return 0.0
        if state == _RUNNABLE:
            return min(passed, used_s - before) if before is not None else 0.0
        return passed
