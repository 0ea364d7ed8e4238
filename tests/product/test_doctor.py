"""`stress doctor`: each check is shown the trouble it exists for, and a machine that tells nothing."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import Command, command_line

from stress.doctor import CHECKS, Finding, Status, able, examine
from stress.doctor.noise import spin
from stress.doctor.sysfs import Host, cpu_list

OK, UNKNOWN, WARNING, PROBLEM = Status.OK, Status.UNKNOWN, Status.WARNING, Status.PROBLEM
CPU = "sys/devices/system/cpu"


@pytest.fixture(autouse=True)
def four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3})
    monkeypatch.setattr(os, "cpu_count", lambda: 8)


@pytest.fixture
def stress(capsys: pytest.CaptureFixture[str]) -> Command:
    return command_line(capsys)


def host(root: Path, files: dict[str, str]) -> Host:
    """A machine with these files and no others."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{text}\n")
    return Host(root)


def check(name: str, root: Path, files: dict[str, str] | None = None) -> Finding:
    return CHECKS[name](host(root, files or {}))


def each_cpu(file: str, *texts: str) -> dict[str, str]:
    return {f"{CPU}/cpu{cpu}/{file}": text for cpu, text in enumerate(texts)}


V2 = {"proc/self/cgroup": "0::/outer/inner"}
V1 = {"proc/self/cgroup": "4:memory:/a\n3:cpu,cpuacct:/a\n1:name=systemd:/"}
GROUP = "sys/fs/cgroup"


@pytest.mark.parametrize(
    ("name", "files", "status", "found", "remedy"),
    [
        ("cpu quota", {}, OK, "no CPU quota", ""),
        ("cpu quota", V2 | {f"{GROUP}/outer/inner/cpu.max": "max 100000"}, OK, "no CPU quota", ""),
        ("cpu quota", V2 | {f"{GROUP}/outer/cpu.max": "800000 100000"}, OK, "quota of 8 cores", ""),
        ("cpu quota", V2 | {f"{GROUP}/outer/cpu.max": "250000 100000"}, WARNING, "of 2.5 cores", "--cpus 4"),
        ("cpu quota", V2 | {f"{GROUP}/cpu.max": "150000 100000"}, WARNING, "of 1.5 cores", "--vcpus 1"),
        (
            "cpu quota",
            V1 | {f"{GROUP}/cpu,cpuacct/a/cpu.cfs_quota_us": "-1"} | {f"{GROUP}/cpu,cpuacct/cpu.cfs_quota_us": "-1"},
            OK,
            "no CPU quota",
            "",
        ),
        (
            "cpu quota",
            V1
            | {
                f"{GROUP}/cpu,cpuacct/cpu.cfs_{what}_us": str(us) for what, us in (("quota", 50000), ("period", 100000))
            },
            WARNING,
            "of 0.5 cores",
            "--vcpus 1",
        ),
        ("smt", {}, UNKNOWN, "not readable", ""),
        ("smt", each_cpu("topology/thread_siblings_list", "0,4", "1,5", "2,6", "3,7"), OK, "its own", ""),
        ("smt", each_cpu("topology/thread_siblings_list", "0-1", "0-1", "2", "3"), WARNING, "as 0,1", "-c 0,2,3"),
        ("governor", {}, UNKNOWN, "not readable", ""),
        ("governor", each_cpu("cpufreq/scaling_governor", *["performance"] * 4), OK, "performance", ""),
        (
            "governor",
            each_cpu("cpufreq/scaling_governor", "performance", "powersave"),
            WARNING,
            "powersave",
            "cpupower",
        ),
        ("turbo", {}, UNKNOWN, "not readable", ""),
        ("turbo", {f"{CPU}/intel_pstate/no_turbo": "1"}, OK, "off", ""),
        (
            "turbo",
            {f"{CPU}/intel_pstate/no_turbo": "0"},
            WARNING,
            "on",
            f"echo 1 | sudo tee /{CPU}/intel_pstate/no_turbo",
        ),
        ("turbo", {f"{CPU}/cpufreq/boost": "1"}, WARNING, "on", f"echo 0 | sudo tee /{CPU}/cpufreq/boost"),
        ("numa", {}, UNKNOWN, "not readable", ""),
        (
            "numa",
            {f"sys/devices/system/node/node{node}/cpulist": text for node, text in ((0, "0-3"), (1, "4-7"))},
            OK,
            "one NUMA node",
            "",
        ),
        (
            "numa",
            {f"sys/devices/system/node/node{node}/cpulist": text for node, text in ((2, "0-1"), (10, "2-7"))},
            WARNING,
            "2 NUMA nodes",
            "--cpunodebind=2",
        ),
        ("load", {}, UNKNOWN, "not readable", ""),
        ("load", {"proc/loadavg": "0.30 1.00 1.00 1/300 4242"}, OK, "load 0.3 .* 0 others", ""),
        ("load", {"proc/loadavg": "2.10 1.00 1.00 7/300 4242"}, WARNING, "load 2.1 .* 6 others", "stop other work"),
        (
            "memory",
            V2 | {f"{GROUP}/outer/memory.max": str(300 << 20), f"{GROUP}/outer/memory.current": str(290 << 20)},
            WARNING,
            "10.0 MiB of memory left in the control group",
            "raise the container's limit",
        ),
        (
            "limits",
            V2 | {f"{GROUP}/outer/inner/pids.max": "40", f"{GROUP}/outer/inner/pids.current": "30"},
            WARNING,
            "allows 40 processes",
            "--pids-limit",
        ),
        (
            "clock",
            {"sys/devices/system/clocksource/clocksource0/current_clocksource": "hpet"},
            WARNING,
            "hpet",
            "available_clocksource",
        ),
    ],
)
def test_a_machine_with(
    tmp_path: Path, name: str, files: dict[str, str], status: Status, found: str, remedy: str
) -> None:
    finding = check(name, tmp_path, files)
    assert finding.status is status
    assert re.search(found, finding.found), finding.found
    assert remedy in finding.remedy
    assert bool(finding.remedy) is (status in (WARNING, PROBLEM)), "a remedy for each trouble, and only then"


def test_too_few_cores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert check("cores", tmp_path).found == "4 cores for this process of 8"
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {5})
    assert check("cores", tmp_path).status is WARNING


def room(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    real = os.statvfs("/")
    fields = list(real)
    fields[1], fields[2], fields[4], fields[8] = 4096, (64 << 20) // 4096, free // 4096, 0
    monkeypatch.setattr(os, "statvfs", lambda path: os.statvfs_result(fields))


def test_shared_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert check("shared memory", tmp_path).status is PROBLEM
    (tmp_path / "dev/shm").mkdir(parents=True)
    for free, status in ((1 << 30, OK), (20 << 20, WARNING), (1 << 20, PROBLEM)):
        room(monkeypatch, free)
        finding = check("shared memory", tmp_path)
        assert finding.status is status, finding
    assert "mount -o remount,size=" in finding.remedy


def test_a_compiler_that_does_not_load(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "numba", None)
    finding = check("versions", tmp_path)
    assert (finding.status, "numba does not load" in finding.found) == (PROBLEM, True)


def test_no_membarrier(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert check("membarrier", tmp_path).found.startswith("membarrier takes ")
    monkeypatch.setattr("stress.shm.membarrier._membarrier", lambda command: -1)
    assert check("membarrier", tmp_path).status is WARNING


def test_few_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (64, 64))
    assert check("limits", tmp_path).remedy == "ulimit -n 1024"


def test_stale_segments(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("stress.shm.stale.SHM", tmp_path)
    assert check("stale segments", tmp_path).status is OK
    (tmp_path / "stress-999999999-ab").touch()
    finding = check("stale segments", tmp_path)
    assert (finding.status, finding.remedy) == (WARNING, "stress clean")


def test_time_taken_from_a_spin_is_found(tmp_path: Path) -> None:
    """Whether somebody takes 3 ms now and then: here a timer's handler does."""
    taken = []

    def take(number: int, frame: object) -> None:
        taken.append(number)
        time.sleep(0.003)

    before = signal.signal(signal.SIGALRM, take)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
        for times in range(1, 100):  # on a busy core several signals come as one, while the spin is off it
            taken.clear()
            found = spin(times * 100_000_000, Host(tmp_path))
            if len(taken) - found.preempted >= 5:
                break
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert found.elapsed_ns >= 100_000_000
    assert found.gaps >= 5
    assert found.longest_ns >= 3_000_000
    assert 0.15 < found.share <= 1


# A machine that says nothing, or nonsense: an answer, never a traceback.


class Nonsense(Host):
    """Every file is there, and none is what it should be."""

    def read(self, path: str) -> str:
        return "max:: -1,x/9 0-\u2028 \0"

    def names(self, directory: str, pattern: str) -> list[str]:
        return ["nodex", "node1"]


@pytest.mark.parametrize("make", [Host, Nonsense])
def test_every_check_has_an_answer(make: Callable[[Path], Host], tmp_path: Path) -> None:
    reports = examine(make(tmp_path))
    assert [each.name for each in reports] == list(CHECKS)
    assert all(each.finding.found and len(each.finding.found.splitlines()) == 1 for each in reports)


def test_lists_of_processors() -> None:
    assert cpu_list("0-2,7,9-10") == {0, 1, 2, 7, 9, 10}
    assert cpu_list("") == set()


# The command.


def test_this_machine(stress: Command) -> None:
    code, out, err = stress("doctor", "--json")
    assert (code, err) == (0, "")
    document: dict[str, Any] = json.loads(out)
    assert document["able"] is True
    assert [each["name"] for each in document["checks"]] == list(CHECKS)
    assert {each["status"] for each in document["checks"]} <= set(Status)


@pytest.mark.parametrize("table_format", ["simple", "github"])
def test_a_machine_that_cannot(
    stress: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, table_format: str
) -> None:
    reports = examine(Host(tmp_path), {name: CHECKS[name] for name in ("cores", "shared memory")})
    assert not able(reports)
    monkeypatch.setattr("stress.cli.doctor.examine", lambda: reports)
    code, out, err = stress("doctor", "--format", table_format)
    assert (code, err) == (3, "")
    assert "This machine cannot run stress. What to do:\n  shared memory: mount a tmpfs" in out
