"""All checks in a row. Each is bounded in time: files of the kernel, a few hundred calls, one spin."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from stress.doctor import memory, noise, processors, software
from stress.doctor.finding import Finding, Status
from stress.doctor.sysfs import Host

Check = Callable[[Host], Finding]

#: Name -> check, in the order of the report.
CHECKS: Final[Mapping[str, Check]] = {
    "system": software.platform,
    "versions": software.versions,
    "cores": processors.cores,
    "cpu quota": processors.quota,
    "smt": processors.siblings,
    "governor": processors.governor,
    "turbo": processors.turbo,
    "numa": processors.nodes,
    "load": noise.load,
    "noise": noise.noise,
    "clock": software.clock,
    "membarrier": software.membarrier,
    "shared memory": memory.shared,
    "memory": memory.available,
    "limits": software.limits,
    "stale segments": memory.leftovers,
    "compile cache": memory.cache,
}


@dataclass(frozen=True, slots=True)
class Report:
    """One check and what it found."""

    name: str
    finding: Finding


def examine(host: Host | None = None, checks: Mapping[str, Check] = CHECKS) -> list[Report]:
    """Do every check; one that cannot be done says so. Takes about a second."""
    return [Report(name, _checked(check, host or Host())) for name, check in checks.items()]


def able(reports: list[Report]) -> bool:
    """Whether runs are possible."""
    return not any(each.finding.status is Status.PROBLEM for each in reports)


def _checked(check: Check, host: Host) -> Finding:
    try:
        return check(host)
    except (OSError, ValueError, ImportError) as error:  # this machine has something that the check does not know
        return Finding.unknown(f"cannot be checked here: {error}")
