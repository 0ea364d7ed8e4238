"""Memory of a large run: 20 GiB of guest memory in 1 GiB blocks, 4 vCPUs."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.command import stress
from benchmarks.figure import Figure
from stress.arch.geometry import MIB
from stress.errors import RunBroken

LIMIT_MIB = 150.0
# Memory is measured when every vCPU runs, and again 5 s later.
_OPTIONS = ("--vcpus=4", "--block-size=1G", "--blocks=20", "--duration=6s")


def figures(rounds: int) -> Iterator[Figure]:
    """Unique memory (USS) of the largest process, beside the segment that all share."""
    memory = stress("run", *_OPTIONS)["memory"]
    unique = {name: size / MIB for name, size in memory["unique_bytes"].items()}
    if len(unique) != 6:  # supervisor, hypervisor, vCPUs
        raise RunBroken(f"memory was measured of {len(unique)} processes, not of 6")
    largest = max(unique, key=lambda name: unique[name])
    more = f" ({largest}; segment {memory['segment_bytes'] / MIB:.0f} MiB)"
    yield Figure.of_limit("memory, unique to a process", [unique[largest]], LIMIT_MIB, "MiB", more)
