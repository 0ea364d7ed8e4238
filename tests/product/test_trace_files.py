"""Traces as files: which are refused before the run, what timelines look like, and what happens when a disk is full."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from casemate_grammar import GrammarError, read
from commands import Command, FakeExecutor, command_line, refused

from stress.kernels import sources
from stress.orders import UNMAP_FIRST, parse_order
from stress.results.data import FAULT_CLASSES, TRACED_FAULT, TRACED_REBUILD, TableShape, TraceData, TraceRequest
from stress.shm.traced import Traced
from stress.trace.casemate import encoded
from stress.trace.slices import Slice, tracks

RUN = ("run", "--duration", "1s")


@pytest.fixture
def executor(monkeypatch: pytest.MonkeyPatch) -> FakeExecutor:
    fake = FakeExecutor.installed(monkeypatch)
    fake.trace = made_up()
    return fake


@pytest.fixture
def stress(capsys: pytest.CaptureFixture[str]) -> Command:
    return command_line(capsys)


def made_up() -> TraceData:
    """One vCPU, one rebuild by the hypervisor that a fault fell into; no change of the table."""
    rebuilds, faults = np.zeros(1, TRACED_REBUILD), np.zeros(1, TRACED_FAULT)
    rebuilds[0] = (1, 0, 0x40000000, 1, 1000, 1000, 1600, 1010, 1590, 1010, 1500, 1, [80, 100, 200, 50, 150] + [0] * 11)
    faults[0] = (0, 1100, 0x40001000, 700, 500, 1, FAULT_CLASSES.index("window"), 2, 1)
    shape = TableShape(12, 9, 1, 2, 16, 1 << 32)
    return TraceData((UNMAP_FIRST,), 50, [900], 5000, rebuilds, faults, shape, np.zeros((0, 4), np.int64))


def test_tracks_of_a_timeline() -> None:
    vcpu, hypervisor, windows = tracks(made_up())
    assert [(each.name, each.start_ns, each.end_ns) for each in vcpu.slices] == [
        ("guest", 900, 1100),
        ("fault: window", 1100, 1800),
        ("wait for mmu_lock", 1150, 1650),
        ("guest", 1800, 5000),
    ]
    assert vcpu.slices[1].details == {
        "class": "window", "ipa": "0x40001000", "access": "write", "level": 2, "rebuild": 1,
    }  # fmt: skip
    assert [(each.name, each.end_ns - each.start_ns) for each in hypervisor.slices] == [
        ("rebuild", 600), ("invalidate", 80), ("tlbi", 100), ("unmap", 200), ("clean", 50), ("install", 150),
    ]  # fmt: skip
    assert windows.slices == [Slice("invalid", 1010, 1500, windows.slices[0].details)]


def test_a_vcpu_rebuilds_inside_its_fault_and_tears_down_after_the_lock() -> None:
    data = made_up()
    data.orders = (parse_order("invalidate,tlbi,install,unmap-unlocked"),)
    row = data.rebuilds[0]
    row["who"], row["requested_ns"], row["locked_ns"], row["start_ns"] = 0, 1150, 1650, 1650
    row["unlocked_ns"], row["end_ns"], row["step_ns"][:5] = 1700, 1790, [10, 20, 20, 5, 85]
    vcpu, hypervisor, _ = tracks(data)
    assert hypervisor.slices == []
    assert [(each.name, each.start_ns, each.end_ns) for each in vcpu.slices[1:-1]] == [
        ("fault: window", 1100, 1800),
        ("rebuild", 1150, 1790),
        ("wait for mmu_lock", 1150, 1650),
        ("invalidate", 1650, 1660),
        ("tlbi", 1660, 1680),
        ("install", 1680, 1700),
        ("unlock", 1700, 1705),
        ("unmap", 1705, 1790),
    ]


def test_windows_that_overlap_have_a_track_each() -> None:
    data = made_up()
    data.rebuilds = np.repeat(data.rebuilds, 3)
    data.rebuilds["invalid_ns"], data.rebuilds["valid_ns"] = [1010, 1100, 1500], [1500, 1200, 1600]
    assert [track.name for track in tracks(data)][2:] == ["invalid windows", "invalid windows 1"]
    assert [len(track.slices) for track in tracks(data)][2:] == [2, 1]


def test_every_kind_of_change_names_its_line_in_the_sources() -> None:
    assert set(sources.OF) == set(Traced)
    root = Path(__file__).parents[2]
    for source in [*sources.OF.values(), sources.INITIALISE, sources.FILL_TABLE]:
        path, line = source.split(":")
        assert any(word in (root / path).read_text().splitlines()[int(line) - 1] for word in ("s.", "machine.", "("))


@pytest.mark.parametrize(
    ("granule_shift", "start_level", "root_pages"), [(12, 2, 4), (12, 0, 1), (14, 1, 2), (16, 2, 16)]
)
def test_tables_above_the_concatenated_ones(granule_shift: int, start_level: int, root_pages: int) -> None:
    data = made_up()
    data.shape = TableShape(granule_shift, granule_shift - 3, start_level, root_pages, 32, 1 << 32)
    records = list(read(b"".join(encoded(data)).decode().splitlines()))
    tables = [record.numbers["address"] for record in records if record.head == "mem-init"]
    assert tables == sorted(tables)
    links = [record.numbers["value"] & ~0xFFF for record in records if record.head == "mem-write"]
    assert links == tables[1:], "each but the root is linked"
    first = {12: 0, 14: 0, 16: 1}[granule_shift]
    assert len(tables) == start_level - first + root_pages


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('(lock (id 1) (tid 0) (address 1) (src "a.py:1"))', "id 1 where 0 was expected"),
        ('(lock (id 0) (tid 0) (address 0x1) (src "a.py:1"))', "hexadecimal"),
        ("(lock (id 0) (tid 0) (address 1))", "ends with src"),
        ('(lock (id 0) (tid 0) (address 1) (src "a.py:1")', "not one s-expression"),
        ('(tlbi (id 0) (tid 0) ipas2e1is (src "a.py:1"))', "other parts"),
        ('(jump (id 0) (tid 0) (src "a.py:1"))', "unknown record"),
    ],
)
def test_the_grammar_refuses(line: str, why: str) -> None:
    with pytest.raises(GrammarError, match=why):
        list(read([line]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--trace", "a.txt"), "use .json, .pftrace (both open in ui.perfetto.dev) or .casemate"),
        (("--trace", "trace"), "its name has no suffix"),
        (("--trace", "nowhere/a.json"), "create the directory first, or choose another path with --trace"),
        (("--trace", "a.casemate", "--locking", "shared"), "use --locking exclusive, or a .json or .pftrace"),
        (("--trace", "a.json", "--output", "./a.json"), "give them different names"),
        (("--trace-rebuilds", "3"), "name its file with --trace"),
        (("--trace", "a.json", "--trace-rebuilds", "0"), "x>=1"),
    ],
)
def test_what_cannot_be_traced_is_refused_before_the_run(
    stress: Command, executor: FakeExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...], message: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert message in refused(stress(*RUN, *arguments))
    assert executor.configs == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "more", "request_"),
    [
        ("a.json", (), TraceRequest(100, False)),
        ("a.pftrace", ("--locking", "shared"), TraceRequest(100, False)),
        ("a.CASEMATE", ("--trace-rebuilds", "7"), TraceRequest(7, True)),
    ],
)
def test_a_trace_is_asked_for_and_written(
    stress: Command, executor: FakeExecutor, tmp_path: Path, name: str, more: tuple[str, ...], request_: TraceRequest
) -> None:
    code, _, err = stress(*RUN, "--trace", str(tmp_path / name), *more)
    assert (code, executor.traces) == (0, [request_]), err
    assert (tmp_path / name).stat().st_size > 100
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_full_disk_costs_the_trace_and_not_the_result(
    stress: Command, executor: FakeExecutor, tmp_path: Path
) -> None:
    (tmp_path / "full.json").symlink_to("/dev/full")
    code, out, err = stress(*RUN, "--json", "--output", str(tmp_path / "a"), "--trace", str(tmp_path / "full.json"))
    assert code == 4
    assert "make room or choose another path with --trace" in err.splitlines()[-1]
    assert json.loads(out) == json.loads((tmp_path / "a").read_text())
