"""``stress calibrate``: known costs are found again, intervals hold them, and a log that cannot be used is one line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from commands import Command, command_line

from stress.calibrate.calibration import calibrate
from stress.calibrate.fit import fit
from stress.calibrate.logs import Log, Stage, read_logs
from stress.calibrate.own_runs import HOLD, RUNS, START, WINDOW, configuration, measured, with_rebuilds
from stress.calibrate.predicted_stages import FITTED, stage_ns, with_costs
from stress.calibrate.profile import as_toml
from stress.cli.calibrate import read_options
from stress.config import from_sources
from stress.errors import UsageError
from stress.platforms import Origin, Platform, Work, load

pytestmark = pytest.mark.timeout(900)  # the event loop may have to be compiled first

#: As Linux 6.1 prints it on arm64.
PAGE_TABLE_TEST: Final = """\
# ./kvm_page_table_test -m 4 -s anonymous_hugetlb_1gb -b 20G -v 20
Testing guest mode: PA-bits:ANY, VA-bits:48,  4K pages
Testing memory backing src type: anonymous_hugetlb_1gb
Testing memory backing src granularity: 0x40000000
Testing memory size(aligned): 0x500000000
Guest physical test memory offset: 0xffac0000000
Host  virtual  test memory offset: 0xfff8c0000000
Number of testing vCPUs: 20
Started all vCPUs successfully
KVM_CREATE_MAPPINGS: total execution time: 3.702000000s

KVM_UPDATE_MAPPINGS: total execution time: 94.100000000s

KVM_ADJUST_MAPPINGS: total execution time: 2.877000000s

"""
DIRTY_LOG_PERF: Final = """\
$ ./dirty_log_perf_test -v 4 -b 1G -s anonymous_thp -i 2
Test iterations: 2
Testing guest mode: PA-bits:40,  VA-bits:48,  4K pages
guest physical test memory: [0xfeffffe000, 0xffffffe000)
Populate memory time: 0.521874924s
Enabling dirty logging time: 0.000205800s

Iteration 1 dirty memory time: 1.447831435s
Iteration 1 get dirty log time: 0.000012000s
Iteration 1 clear dirty log time: 0.104858600s
Iteration 2 dirty memory time: 2.579497762s
Iteration 2 get dirty log time: 0.000012000s
Iteration 2 clear dirty log time: 0.104858600s
Disabling dirty logging time: 0.000000100s
Get dirty log over 2 iterations took 0.000024000s. (Avg 0.000012000s/iteration)
Clear dirty log over 2 iterations took 0.209717200s. (Avg 0.104858600s/iteration)
"""


@pytest.fixture
def stress(capsys: pytest.CaptureFixture[str]) -> Command:
    return command_line(capsys)


def read(text: str, directory: Path, beside: str = "", **given: Any) -> list[Log]:
    """The runs of a log, with a TOML file beside it if there is anything to say."""
    file = directory / "run.log"
    file.write_text(text)
    if beside:
        file.with_suffix(".toml").write_text(beside)
    return read_logs([file], given, {"orders": ["unmap-first"]}, read_options)


# -- what a log says --


def test_a_log_of_the_page_table_test(tmp_path: Path) -> None:
    (log,) = read(PAGE_TABLE_TEST, tmp_path, fwb=False)
    config = log.config
    assert (config.vcpus, config.memory, config.backing, config.granule) == (20, 20 << 30, "hugetlb-1g", 4096)
    assert config.has_blocks
    assert not config.fwb
    assert [stage.ns for stage in log.stages] == [3_702_000_000, 94_100_000_000, 2_877_000_000]
    assert log.assumed == ("order unmap-first", "locking exclusive", "cmo per-install")


def test_a_log_of_the_dirty_log_test_gets_from_its_command_line_what_it_does_not_print(tmp_path: Path) -> None:
    (log,) = read(DIRTY_LOG_PERF, tmp_path, locking="shared")
    assert (log.config.vcpus, log.config.memory, log.config.backing) == (4, 4 << 30, "thp")
    assert [stage.title for stage in log.stages[:3]] == ["populate", "enable", "dirty 1"]


def test_or_from_a_file_beside_it(tmp_path: Path) -> None:
    without = DIRTY_LOG_PERF.partition("\n")[2]
    beside = '[run]\nvcpus = 2\nbacking = "anonymous"\norder = "block-first"\ncmo = "per-fault"\n'
    (log,) = read(without, tmp_path, beside)
    assert (log.config.vcpus, log.config.memory, log.config.backing) == (2, 4 << 30, "anonymous")
    assert (log.config.orders, log.config.cmo) == (("block-first",), "per-fault")


def test_what_stress_predict_prints_is_a_log_for_each_order(stress: Command, tmp_path: Path) -> None:
    options = ("--platform", "kunpeng920", "-b", "64M", "-s", "anonymous_hugetlb_2mb")
    _, out, _ = stress("predict", "unmap-first", "clean-first", *options)
    one, other = read(f"$ stress predict unmap-first clean-first\n{out}", tmp_path)
    assert (one.config.orders, other.config.orders) == (("unmap-first",), ("clean-first",))
    assert len(one.stages) == len(other.stages) == 3


# -- what logs say of costs --

TRUTH: Final = {
    "clean_bytes_per_s": 5e9,
    "unmap_ns": 110.0,
    "tlbi_ipa_ns": 2500.0,
    "exit_ns": 900.0,
    "fault_ns": 500.0,
    "map_ns": 240.0,
    "zero_bytes_per_s": 2.5e10,
    "hand_over_ns": 180.0,
    "hand_over_waiting_ns": 45.0,
    "miss_ns": 4.0,
}


def logs_of(platform: Platform, disturbed: np.random.Generator | None = None) -> list[Log]:
    """Logs of a machine; where it is disturbed each run is so as a whole, and each stage besides."""
    runs: Sequence[Mapping[str, Any]] = (
        *({"vcpus": vcpus, "backing": "anonymous", "memory": "8M"} for vcpus in (1, 8)),
        *({"vcpus": vcpus, "backing": "hugetlb-2m", "memory": "64M"} for vcpus in (1, 8)),
        {"vcpus": 1, "backing": "anonymous", "memory": "8M", "scenario": "dirty-log-perf"},
    )
    logs = []
    for number, run in enumerate(runs):
        config = from_sources(None, {"scenario": "kvm-page-table-test", "fwb": False, "order": "unmap-first", **run})
        run_is = disturbed.normal(0, 0.02) if disturbed else 0.0
        stages = tuple(
            Stage(name, iteration, round(ns * np.exp(run_is + (disturbed.normal(0, 0.02) if disturbed else 0.0))), 1)
            for (name, iteration), ns in stage_ns(config, platform).items()
        )
        logs.append(Log(f"run{number}", config, stages, (), Path("run.toml")))
    return logs


@pytest.mark.parametrize("seed", [None, pytest.param(5, marks=pytest.mark.soak)])
def test_known_costs_are_found_again(seed: int | None, tmp_path: Path) -> None:
    start = load("arm64")
    truth = with_costs(start, TRUTH)
    found = calibrate(logs_of(truth, np.random.default_rng(seed) if seed is not None else None), start)
    known = {cost.field: cost for cost in found.costs if cost.known}
    assert {"clean_bytes_per_s", "tlbi_ipa_ns"} <= known.keys()
    for field, cost in known.items():
        right = getattr(truth, field)
        assert cost.value / cost.factor <= right <= cost.value * cost.factor, field
    # What nobody knows is said to be so, and why.
    unknown = {cost.field: cost.why for cost in found.costs if not cost.known}
    assert unknown["hand_over_ns"]
    assert all(why for why in unknown.values())
    for _, _, ns, fitted in found.stages:
        assert fitted == pytest.approx(ns, rel=0.12) or ns < 1e6, "vCPUs start 20 us apart"

    file = tmp_path / "mine.toml"
    file.write_text(as_toml(found.platform))
    written = load(str(file))
    origins = {figure.key: figure.origin for figure in written.figures}
    assert {origins[field.replace("_", "-")] for field in known} == {Origin.FITTED}
    assert {origins[field.replace("_", "-")] for field in unknown if getattr(start, field)} == {Origin.GUESSED}
    for field in FITTED:
        assert (getattr(written, field) or 0) == pytest.approx(getattr(found.platform, field) or 0)


FACTORS: Final = np.full(3, 3.0)


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """Where all times of a run are disturbed together, and each besides."""
    rng, truth = np.random.default_rng(3), np.array([30.0, 400.0, 2.0])
    work = rng.uniform(0.2, 3, (24, 3)) * (1 / truth)
    groups = np.repeat(np.arange(8), 3)
    inside = []
    for _ in range(150):
        noise = rng.normal(0, 0.04, 8)[groups] + rng.normal(0, 0.04, 24)
        measured = work @ truth * np.exp(noise)
        found = fit(
            lambda costs: work @ costs, measured, groups, np.zeros(24), ("a", "b", "c"), truth * (2, 0.5, 1), FACTORS
        )
        inside.append((truth <= found.costs * found.factors) & (truth >= found.costs / found.factors))
    assert 0.92 <= np.mean(inside) <= 0.99


def test_what_only_sums_tell_is_not_known() -> None:
    measured, truth = np.array([300.0, 600.0, 900.0]), np.array([100.0, 200.0])
    model = np.array([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]])
    found = fit(lambda costs: model @ costs, measured, np.arange(3), np.zeros(3), ("a", "b"), truth, FACTORS[:2])
    assert not found.known.any()
    assert found.together("a") == ("b",)


# -- a log that cannot be used --


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds no line of kvm_page_table_test or dirty_log_perf_test; give all that one of them printed"),
        ("hello\nworld\n", "holds no line of"),
        (PAGE_TABLE_TEST * 2, "line 16: a second run begins; give each run a file of its own"),
        (PAGE_TABLE_TEST.partition("\n")[2] * 2, "line 15: a second run begins"),
        (
            PAGE_TABLE_TEST[: PAGE_TABLE_TEST.index("KVM_UPDATE")],
            "line 10: the log is cut off: no time of KVM_UPDATE_MAPPINGS follows",
        ),
        (PAGE_TABLE_TEST[:-8], "line 14: the log is cut off here; give all that the test printed"),
        (
            PAGE_TABLE_TEST.replace("3.702", "3,702"),
            "line 10: 3,702000000s has a decimal comma; write a point, or test",
        ),
        (PAGE_TABLE_TEST.replace("3.702000000s", "nans"), "line 10: 'nans' is no time such as 1.234567890s"),
        ("\n".join(PAGE_TABLE_TEST.splitlines()[9:]), "line 1: no options: no line 'Testing guest mode'; give all"),
        (DIRTY_LOG_PERF.partition("\n")[2], "dirty_log_perf_test does not print vcpus and backing; put its command"),
        (DIRTY_LOG_PERF.replace("Iteration 2 dirty", "x"), "the log is cut off: no time of dirty 2 follows"),
        (DIRTY_LOG_PERF.replace("-v 4", "-v four"), "line 1: Invalid value for '-v'"),
        (DIRTY_LOG_PERF.replace("-v 4", "-v 0"), "line 1: vcpus: must be at least 1, not 0"),
        (DIRTY_LOG_PERF.replace("-v 4", "-m 99"), "line 1: -m: no Linux has mode '99'; write the command line as it"),
        (PAGE_TABLE_TEST.replace("-v 20", "-v 2"), "line 8: vcpus is 20 here, and 2 on the command line; give each"),
        (PAGE_TABLE_TEST.replace("-b 20G", "-b 20zz"), "line 1: memory: '20zz' is not a size; write a size as 4K"),
        (PAGE_TABLE_TEST.replace("vCPUs: 20", "vCPUs: 0"), "line 8: vcpus: must be at least 1, not 0; write it as"),
        (PAGE_TABLE_TEST.replace("vCPUs: 20", "vCPUs: 20x"), "line 8: '20x' is no value of vcpus such as 4; give what"),
        (PAGE_TABLE_TEST.replace("0x500000000", "0x500000zzz"), "line 5: '0x500000zzz' is no value of memory such as"),
        (PAGE_TABLE_TEST.replace("0x500000000", "0x0"), "line 5: memory: must be more than 0, not '0x0'"),
        (PAGE_TABLE_TEST.replace("0xffac0000000", "12"), "line 6: '12' is no value of phys-offset such as 0xffc000"),
        (PAGE_TABLE_TEST.replace("  4K", "  5K"), "line 2: granule: no granule has 5120 bytes; use 4K, 16K or 64K"),
        (PAGE_TABLE_TEST.replace("ANY", "99"), "line 2: 'PA-bits:99, VA-bits:48, 4K pages' is no value of mode such"),
        (PAGE_TABLE_TEST.replace("3.702000000s", "3.702000000sx"), "line 10: '3.702000000sx' is no time such as 1.23"),
        (PAGE_TABLE_TEST.replace("3.702", "999999999.702"), "line 10: '999999999.702000000s' is no time such as 1.23"),
        (DIRTY_LOG_PERF.replace("iterations: 2", "iterations: 99999999999"), "line 2: iterations: must be at most"),
        (DIRTY_LOG_PERF.replace("Iteration 1 d", "Iteration 0 d"), "line 8: '0' is no iteration such as 1; give what"),
        (DIRTY_LOG_PERF.replace("Iteration 1 d", "Iteration 3 d"), "line 8: iteration 3 of 2; give what the test"),
        (DIRTY_LOG_PERF.replace("0xfeffffe000", "0xffffffe000"), "line 4: a range of 0 bytes; give what the test"),
        (DIRTY_LOG_PERF.replace("-v 4", "-v '4"), "line 1: no command line: No closing quotation"),
        (PAGE_TABLE_TEST.replace("hugetlb_1gb\n", "hugetlb_16gb\n"), "unknown backing 'anonymous_hugetlb_16gb'"),
    ],
)
def test_a_log_that_cannot_be_used(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as error:
        read(text, tmp_path)
    assert words in str(error.value)
    assert "run.log" in str(error.value)


@pytest.mark.parametrize(
    ("beside", "words"),
    [
        ("[run]\nvcpus = 0\n", "run.toml, line 2: run.vcpus: must be at least 1, not 0; write it as it was in the run"),
        ('[run]\nvcpus = 4\nmemory = "0x10zz"\n', "run.toml, line 3: run.memory: '0x10zz' is not a size"),
        ("[run]\nwrite-fraction = nan\n", "run.toml, line 2: run.write-fraction: must be a finite number, not nan"),
        ("run = 5\n", "run.toml: run: must be a table, [run]"),
    ],
)
def test_a_file_beside_a_log_that_cannot_be_used(beside: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as error:
        read(DIRTY_LOG_PERF, tmp_path, beside)
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nowhere.log",), "cannot read nowhere.log: No such file or directory"),
        (("run.log", "-o", "mine.txt"), "mine.txt would not be found as a platform; give it a name that ends in .toml"),
        (("run.log", "-o", "no/mine.toml"), "cannot write no/mine.toml"),
        (("run.log", "--platform", "native"), "platform native models no costs to start from"),
        (("run.log", "--order", "unmapfirst"), "unknown order"),
        ((), "there is nothing to fit; name logs, or --live"),
        (("run.log", "--live"), "logs are of another machine; name logs, or --live"),
    ],
)
def test_bad_usage_is_one_line(
    stress: Command, arguments: Sequence[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("run.log").write_text(PAGE_TABLE_TEST)
    code, out, err = stress("calibrate", *arguments)
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert words in err
    assert not list(tmp_path.glob("*.toml"))


@pytest.mark.parametrize(("vcpus", "shows"), [(1, "miss_ns"), (2, "miss_shared_ns")])
def test_where_the_fit_to_live_runs_begins_reads_tell_both_costs_of_memory(vcpus: int, shows: str) -> None:
    """The larger of the two is what a miss takes, and the other one's derivative is nothing."""
    config = configuration({"vcpus": vcpus, "orders": ["unmap-first"], "block_size": "2M", "memory": "16M"})
    there = stage_ns(config, START)["KVM_ADJUST_MAPPINGS", 0]
    after_start = there - START.cost(Work.START)
    for cost in ("miss_ns", "miss_shared_ns"):
        dearer = with_costs(START, {cost: 1.1 * getattr(START, cost)})
        more = stage_ns(config, dearer)["KVM_ADJUST_MAPPINGS", 0] - there
        assert (more > 0.05 * after_start) == (cost == shows)


def test_a_run_of_1_gib_tells_a_tlbi_after_its_pages_from_one_after_another() -> None:
    """Its window must have no tear-down of 262,144 entries in it, beside which that TLBI is nothing."""
    tells = 0.0
    for options in RUNS:
        if options["block_size"] == "1G" and options["vcpus"] == 1:
            config = configuration(options)
            here, there = (
                stage_ns(config, with_costs(START, {"tlbi_cold_ns": factor * START.tlbi_cold_ns}), with_rebuilds)
                for factor in (1.0, 1.1)
            )
            tells = max(tells, (there[WINDOW, 0] / here[WINDOW, 0] - 1) / 0.1)
    assert tells > 0.5, "a tenth more of that cost is a tenth more of the window, but for what an ordinary one takes"


def run_of(durations_ns: Mapping[str, int], window_ns: int | None, hold_ns: int) -> dict[str, Any]:
    """What `measured` reads of a run's document."""
    order = {"window_ns": {"p50": window_ns}, "mmu_lock": {"rebuilder_hold_ns": {"p50": hold_ns}}}
    stages = [{"name": name, "duration_ns": ns} for name, ns in durations_ns.items()]
    return {"orders": [order], "stages": stages}


def test_of_several_live_runs_the_least_disturbed_counts_for_each_time() -> None:
    runs = [run_of({"one": 20, "two": 50}, 7, 9), run_of({"one": 30, "two": 40}, 6, 11)]
    assert measured(runs) == {"one": 20, "two": 40, WINDOW: 6, HOLD: 9}
    assert measured([run_of({"one": 20}, None, 9)])[WINDOW] == 0, "an order without a window"


@pytest.mark.soak
def test_this_machine_is_fitted_to_runs_of_its_own(stress: Command, tmp_path: Path) -> None:
    file = tmp_path / "here.toml"
    code, out, err = stress("calibrate", "--live", "-o", str(file))
    assert code == 0, err
    assert "mmu_lock held" in out
    assert load(str(file)).unmap_ns > 0
    assert stress("predict", "block-first", "--platform", str(file), "-b", "64M", "-s", "thp", "-v", "2")[0] == 0


def test_logs_in_a_platform_out_a_prediction_with_it(
    stress: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    hugepages = ("-b", "2G", "-v", "2", "-s", "anonymous_hugetlb_1gb")
    Path("run.log").write_text(stress("predict", "unmap-first", "--platform", "kunpeng920", *hugepages)[1])
    code, out, err = stress("calibrate", "run.log", "--no-fwb", "-o", "mine.toml")
    assert code == 0, err
    assert "run.log says nothing of order unmap-first, locking exclusive, cmo per-install: assumed" in err
    assert "clean-bytes-per-s" in out
    assert "only with" in out
    code, out, err = stress("predict", "unmap-first", "--platform", "mine.toml", *hugepages)
    assert code == 0, err
    assert "PREDICTED for mine" in out
    assert stress("platforms", "mine.toml")[0] == 0
