"""Checks of the software below this program: kernel, Python, limits."""

from __future__ import annotations

import os
import resource
import statistics
import sys
import time
from importlib import metadata

from stress.config import default_vcpus
from stress.doctor.finding import Finding
from stress.doctor.sysfs import Host
from stress.units import format_ns

#: Clock sources that are read without a system call, on the machines we know.
_FAST_CLOCKS = ("tsc", "arch_sys_counter", "kvm-clock", "hyperv_clocksource_tsc_page", "timebase", "tod")
_SLOW_CLOCK_NS = 400
_SLOW_BARRIER_NS = 50_000
_FILES_PER_PROCESS = 16


def platform(host: Host) -> Finding:
    """Check that the system is Linux."""
    name = os.uname()
    found = f"{name.sysname} {name.release} on {name.machine}"
    if name.sysname != "Linux":
        return Finding.problem(found, "run on Linux: /dev/shm, forkserver, membarrier")
    return Finding.ok(found)


def versions(host: Host) -> Finding:
    """Check that the compiler loads, and is used."""
    try:
        import numba  # noqa: F401 - the check is whether it loads
    except Exception as error:  # whatever a broken installation raises
        return Finding.problem(f"numba does not load: {error}", "install again: pip install --force-reinstall numba")
    names = ("numba", "llvmlite", "numpy")
    found = ", ".join([f"Python {sys.version.split()[0]}", *(f"{name} {metadata.version(name)}" for name in names)])
    if os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0"):
        return Finding.warning(f"{found}; kernels run as plain Python", "unset NUMBA_DISABLE_JIT")
    return Finding.ok(found)


def membarrier(host: Host) -> Finding:
    """Check that a TLBI completes by one short system call."""
    from stress.shm.membarrier import expedited_membarrier, membarrier_available, membarrier_register

    if not membarrier_available() or not membarrier_register():
        return Finding.warning(
            "no expedited membarrier: every guest access pays for a fence",
            "run on Linux 4.16 or later, outside of a sandbox that filters membarrier (docker: --security-opt "
            "seccomp=unconfined)",
        )
    times = []
    for _ in range(200):
        start = time.perf_counter_ns()
        expedited_membarrier()
        times.append(time.perf_counter_ns() - start)
    median = statistics.median(times)
    found = f"membarrier takes {format_ns(median)}, at most {format_ns(max(times))} of 200"
    if median > _SLOW_BARRIER_NS:
        return Finding.warning(f"{found}, inside of every window", "run on bare metal, or on a quieter machine")
    return Finding.ok(found)


def clock(host: Host) -> Finding:
    """Check that reading the clock costs next to nothing."""
    source = host.read("/sys/devices/system/clocksource/clocksource0/current_clocksource") or "clock source unknown"
    costs = []
    for _ in range(20):
        start = time.perf_counter_ns()
        for _ in range(200):
            time.monotonic_ns()
        costs.append((time.perf_counter_ns() - start) / 200)
    cost = min(costs)
    found = f"{source}, read in {format_ns(cost)} from Python"
    if cost > _SLOW_CLOCK_NS or (source not in _FAST_CLOCKS and source != "clock source unknown"):
        return Finding.warning(
            f"{found}: a system call",
            "see /sys/devices/system/clocksource/clocksource0/available_clocksource for a better one; a boot parameter "
            "as tsc=reliable may bring it back",
        )
    return Finding.ok(found)


def limits(host: Host) -> Finding:
    """Check that a default run gets the files, processes and priority that it needs."""
    needed = default_vcpus() + 4  # the supervisor, its servers, the hypervisor
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if files != resource.RLIM_INFINITY and files < _FILES_PER_PROCESS * needed:
        return Finding.warning(f"at most {files} open files", f"ulimit -n {max(1024, _FILES_PER_PROCESS * needed)}")
    for directory in host.cgroups("pids"):
        most, now = host.number(f"{directory}/pids.max"), host.number(f"{directory}/pids.current")
        if most is not None and most - (now or 0) < 4 * needed:  # threads count too
            return Finding.warning(
                f"the control group allows {most} processes and threads, {now or 0} are there",
                "raise it (docker run --pids-limit)",
            )
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    policies = {os.SCHED_BATCH: "SCHED_BATCH", os.SCHED_IDLE: "SCHED_IDLE"}
    if nice > 0 or os.sched_getscheduler(0) in policies:
        what = policies.get(os.sched_getscheduler(0), f"nice {nice}")
        return Finding.warning(f"we run with {what}: everything else goes first", "start from a shell with nice 0")
    found = "unlimited" if files == resource.RLIM_INFINITY else str(files)
    return Finding.ok(f"{found} open files, nice {nice}")
