"""Whether a process gets on, as the kernel sees it: for one that has no heartbeat yet, or none at all.

Time alone does not tell: on a loaded machine a process that starts may wait for a processor as long as one that hangs.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

# proc(5): runnable, in uninterruptible sleep (the kernel works for it), asleep.
_WORKING = "RD"
_ASLEEP = "S"
# Somebody looks at least as often.
_LOOK_S = 0.2


def pulse(pid: int, may_sleep: bool = False) -> float:
    """A number that changes as long as process ``pid`` gets on: it has a processor, wants one, or waits for the disk.

    With ``may_sleep`` also while it is asleep, so that only one that was stopped, or is gone, has no pulse.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    except OSError:  # out of open files: nothing is known
        return time.monotonic()
    fields = stat.rpartition(")")[2].split()  # its name may hold anything
    state, user, system = fields[0], int(fields[11]), int(fields[12])
    if state in _WORKING or (may_sleep and state in _ASLEEP):
        return time.monotonic()
    return (user + system) / os.sysconf("SC_CLK_TCK")


class Watch:
    """Notices that a value which should change does not."""

    def __init__(self) -> None:
        self._value: object = None
        self._same_s = 0.0
        self._looked = 0.0

    def unchanged_s(self, value: object) -> float:
        """For how long ``value`` has been the same, in s; 0 at first."""
        now = time.monotonic()
        if value != self._value:
            self._value, self._same_s = value, 0.0
        else:
            # Who looks late was stopped (Ctrl-Z) or starved, and the others perhaps with it.
            self._same_s += min(now - self._looked, _LOOK_S)
        self._looked = now
        return self._same_s
