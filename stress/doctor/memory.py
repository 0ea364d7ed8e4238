"""Checks of memory: shared, private, left behind."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

import psutil

from stress.config import RunConfig
from stress.doctor.finding import Finding
from stress.doctor.sysfs import Host
from stress.units import format_bytes

# Private memory of a worker: the interpreter and the kernels, as README's figures say.
_PROCESS_BYTES = 100 << 20


@lru_cache(maxsize=1)
def _needs() -> tuple[int, int]:
    """Bytes of shared memory of a default run, and of the smallest one."""
    from stress.live.planning import plan_for
    from stress.shm.layout import segment_bytes

    smallest = RunConfig(vcpus=1, block_size=2 << 20, blocks=1)
    found = [segment_bytes(plan.geo, len(plan.orders)) for plan in map(plan_for, (RunConfig(), smallest))]
    return found[0], found[1]


def shared(host: Host) -> Finding:
    """Check that /dev/shm holds the segment of a default run."""
    directory = host.root / "dev/shm"
    needed, least = _needs()
    try:
        status = os.statvfs(directory)
    except OSError as error:
        return Finding.problem(
            f"no /dev/shm: {error.strerror}", "mount a tmpfs: sudo mount -t tmpfs -o mode=1777 tmpfs /dev/shm"
        )
    if not os.access(directory, os.W_OK | os.X_OK) or status.f_flag & os.ST_RDONLY:
        return Finding.problem("/dev/shm is not writable", "make it so: sudo mount -o remount,rw,mode=1777 /dev/shm")
    free, size = status.f_bavail * status.f_frsize, status.f_blocks * status.f_frsize
    found = (
        f"/dev/shm has {format_bytes(free)} free of {format_bytes(size)}, a default run needs {format_bytes(needed)}"
    )
    if free >= needed:
        return Finding.ok(found)
    enlarge = f"sudo mount -o remount,size={(size - free + 2 * needed >> 20) + 1}M /dev/shm"
    remedy = f"enlarge it: {enlarge} (a container: docker run --shm-size), or use fewer --blocks"
    return (Finding.problem if free < least else Finding.warning)(found, remedy)


def available(host: Host) -> Finding:
    """Check that nothing has to be swapped out for a default run."""
    needed = _needs()[0] + (2 + RunConfig().vcpus) * _PROCESS_BYTES
    room = psutil.virtual_memory().available
    whose = "available"
    for directory in host.cgroups("memory"):
        for limit_file, used_file in (
            ("memory.max", "memory.current"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ):
            limit, used = host.number(f"{directory}/{limit_file}"), host.number(f"{directory}/{used_file}")
            if limit is not None and limit - (used or 0) < room:
                room, whose = max(0, limit - (used or 0)), "left in the control group"
    found = f"{format_bytes(room)} of memory {whose}, a default run needs about {format_bytes(needed)}"
    if room >= needed:
        return Finding.ok(found)
    return Finding.warning(found, "free some, raise the container's limit, or use fewer --blocks and --vcpus")


def leftovers(host: Host) -> Finding:
    """Check that no dead run holds memory."""
    from stress.shm.stale import stale_segments

    found = stale_segments()
    if not found:
        return Finding.ok("no segment of a dead run")
    ours = [each for each in found if each.ours]
    size = format_bytes(sum(each.bytes for each in found))
    counted = f"{len(found)} segment{'' if len(found) == 1 else 's'} of dead runs, {size}"
    if not ours:
        return Finding.ok(f"{counted}, of other users")
    return Finding.warning(counted, "stress clean")


def cache(host: Host) -> Finding:
    """Check that kernels, once compiled, are kept where the user asked."""
    from stress.shm.cache import cache_directory, is_complete, is_where_asked

    directory = cache_directory()
    if not is_where_asked():
        return Finding.warning(
            f"kernels are kept in {directory}, for want of a directory of our own in the user's cache",
            "make ~/.cache writable for its owner alone, or name a place: export XDG_CACHE_HOME=...",
        )
    size = format_bytes(sum(_size(path) for path in directory.parent.rglob("*")))
    state = "compiled" if is_complete() else "not compiled yet: the first run takes up to a minute more"
    return Finding.ok(f"kernels are {state} ({size} in {directory.parent})")


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size if path.is_file() else 0
    except OSError:  # another run has just dropped an old version
        return 0
