"""Checks of the processors: how many this process may use, and whether they keep their speed."""

from __future__ import annotations

import os
from collections import defaultdict

from stress.config import default_vcpus
from stress.doctor.finding import Finding
from stress.doctor.sysfs import Host, cpu_list, cpus
from stress.results.text import counted

_CPU = "/sys/devices/system/cpu"


def _listed(numbers: set[int] | list[int]) -> str:
    return ",".join(map(str, sorted(numbers)))


def cores(host: Host) -> Finding:
    """Check that there is a core for each vCPU of a default run and one for the hypervisor process."""
    allowed, needed = len(cpus()), default_vcpus() + 1
    total = os.cpu_count() or allowed
    found = f"{counted(allowed, 'core')} for this process" + (f" of {total}" if total != allowed else "")
    if allowed < needed:
        return Finding.warning(
            f"{found}, and a run with {counted(needed - 1, 'vCPU')} has {needed} processes",
            "run where there are two cores or more; with one, windows contain the scheduler",
        )
    return Finding.ok(found)


def quota(host: Host) -> Finding:
    """Check that no control group takes the cores away in the midst of a rebuild."""
    least: float | None = None
    for directory in host.cgroups("cpu"):
        limit, _, period = (host.read(f"{directory}/cpu.max") or "").partition(" ")  # version 2
        if not limit:
            limit = str(host.number(f"{directory}/cpu.cfs_quota_us") or "")
            period = str(host.number(f"{directory}/cpu.cfs_period_us") or "")
        if limit.isdigit() and period.isdigit() and int(period):
            share = int(limit) / int(period)
            least = share if least is None else min(least, share)
    if least is None:
        return Finding.ok("no CPU quota")
    needed = default_vcpus() + 1
    found = f"a CPU quota of {least:g} cores"
    if least >= len(cpus()):
        return Finding.ok(found)
    vcpus = max(1, int(least) - 1)
    return Finding.warning(
        f"{found}, with {len(cpus())} to run on: who exceeds it is stopped for the rest of a period",
        f"raise the container's quota to {needed} (docker run --cpus {needed}), or use --vcpus {vcpus}",
    )


def siblings(host: Host) -> Finding:
    """Check that no two processes share a physical core."""
    by_core: dict[frozenset[int], set[int]] = defaultdict(set)
    for cpu in cpus():
        text = host.read(f"{_CPU}/cpu{cpu}/topology/thread_siblings_list")
        if not text:
            return Finding.unknown("which hardware threads share a core is not readable here")
        by_core[frozenset(cpu_list(text))].add(cpu)
    shared = [group for group in by_core.values() if len(group) > 1]
    if not shared:
        return Finding.ok("each has a physical core of its own")
    one_each = _listed([min(group) for group in by_core.values()])
    return Finding.warning(
        f"{len(shared)} of {counted(len(by_core), 'physical core')} run two of our threads, as {_listed(shared[0])}",
        f"use one thread per core: taskset -c {one_each} stress ...",
    )


def governor(host: Host) -> Finding:
    """Check that the processors' clock does not follow the load."""
    governors = {host.read(f"{_CPU}/cpu{cpu}/cpufreq/scaling_governor") for cpu in cpus()} - {None, ""}
    if not governors:
        return Finding.unknown("the frequency governor is not readable here, as in most virtual machines")
    found = f"frequency governor {', '.join(sorted(map(str, governors)))}"
    if governors == {"performance"}:
        return Finding.ok(found)
    return Finding.warning(found, "sudo cpupower frequency-set --governor performance")


def turbo(host: Host) -> Finding:
    """Check that the processors' clock does not follow the temperature."""
    switches = {
        f"{_CPU}/intel_pstate/no_turbo": "1",
        f"{_CPU}/cpufreq/boost": "0",
    }  # file -> its content if turbo is off
    for path, off in switches.items():
        state = host.read(path)
        if state:
            if state == off:
                return Finding.ok("turbo is off")
            return Finding.warning(
                "turbo is on: the clock depends on heat, and on what other cores do", f"echo {off} | sudo tee {path}"
            )
    return Finding.unknown("whether turbo is on is not readable here")


def nodes(host: Host) -> Finding:
    """Check that all memory is equally far from our cores."""
    ours = set(cpus())
    found = {}
    for name in host.names("/sys/devices/system/node", "node[0-9]*"):
        here = cpu_list(host.read(f"/sys/devices/system/node/{name}/cpulist") or "") & ours
        if here:
            found[name.removeprefix("node")] = here
    if not found:
        return Finding.unknown("NUMA nodes are not readable here")
    if len(found) == 1:
        return Finding.ok("one NUMA node")
    first = min(found, key=int)
    return Finding.warning(
        f"our cores lie in {len(found)} NUMA nodes",
        f"keep to one: numactl --cpunodebind={first} --membind={first} stress ...",
    )
