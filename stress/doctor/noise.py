"""Checks of other work on this machine: the load, and the time that is taken from a process that only spins."""

from __future__ import annotations

import gc
import os
import resource
import time
from dataclasses import dataclass

from stress.doctor.finding import Finding
from stress.doctor.sysfs import Host, cpus
from stress.units import format_ns

SPIN_NS = 200_000_000
#: A longer gap between two looks at the clock is not our loop's own work.
GAP_NS = 10_000
_LOSS_SHARE = 0.01
_LONG_GAP_NS = 1_000_000


def load(host: Host) -> Finding:
    """Check that no other work wants the cores."""
    fields = (host.read("/proc/loadavg") or "").split()
    if len(fields) < 4:
        return Finding.unknown("the load is not readable here")
    minute, running = float(fields[0]), max(0, int(fields[3].split("/")[0]) - 1)
    found = f"load {minute:g} in the last minute on {len(cpus())} cores, {running} others runnable now"
    if minute > 0.5 * len(cpus()):
        return Finding.warning(found, "stop other work, and wait a minute: top shows who it is")
    return Finding.ok(found)


@dataclass(frozen=True, slots=True)
class Spin:
    """The time that was taken from a loop which looked at the clock all the time. Times in ns."""

    elapsed_ns: int
    lost_ns: int
    gaps: int
    longest_ns: int
    preempted: int  # involuntary context switches
    stolen_ns: int  # by a hypervisor, from all cores

    @property
    def share(self) -> float:
        """The share of the time that was lost, 0 to 1."""
        return self.lost_ns / max(1, self.elapsed_ns)


def spin(duration_ns: int, host: Host) -> Spin:
    """Spin for a while and add up the gaps."""
    clock = time.monotonic_ns
    switches, stolen = _preempted(), _stolen_ns(host)
    lost = gaps = longest = 0
    collecting = gc.isenabled()
    gc.disable()  # its pauses are ours
    try:
        start = last = clock()
        while (now := clock()) - start < duration_ns:
            if now - last > GAP_NS:
                lost += now - last
                gaps += 1
                longest = max(longest, now - last)
            last = now
    finally:
        if collecting:
            gc.enable()
    # A gap before the last look counts, too.
    tail = now - last
    if tail > GAP_NS:
        lost, gaps, longest = lost + tail, gaps + 1, max(longest, tail)
    return Spin(now - start, lost, gaps, longest, _preempted() - switches, max(0, _stolen_ns(host) - stolen))


def noise(host: Host) -> Finding:
    """Check that a spinning process keeps its core."""
    found = spin(SPIN_NS, host)
    text = (
        f"{found.share:.2%} of {format_ns(found.elapsed_ns)} of spinning lost in {found.gaps} gaps, the longest "
        f"{format_ns(found.longest_ns)}; {found.preempted} preemptions"
    )
    if found.stolen_ns:
        text += f"; {format_ns(found.stolen_ns)} stolen by the hypervisor below us"
    if found.share > _LOSS_SHARE or found.longest_ns > _LONG_GAP_NS:
        remedy = "stop other work; for good, keep cores free (boot parameters isolcpus, nohz_full), then taskset"
        if found.stolen_ns:
            remedy = "use a machine, or a virtual one, with cores of its own"
        return Finding.warning(text, remedy)
    return Finding.ok(text)


def _preempted() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def _stolen_ns(host: Host) -> int:
    """ns that a hypervisor gave to others since boot, of all cores (proc(5): the eighth number of /proc/stat)."""
    fields = (host.read("/proc/stat") or "").split("\n", 1)[0].split()
    ticks = int(fields[8]) if len(fields) > 8 and fields[8].isdigit() else 0
    return ticks * 1_000_000_000 // os.sysconf("SC_CLK_TCK")
