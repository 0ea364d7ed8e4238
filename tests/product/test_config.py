"""The configuration: defaults, sources and their precedence, and every complaint at once."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from stress.bugs import BUGS
from stress.config import (
    STAGED,
    ConfigError,
    Pattern,
    RunConfig,
    Scenario,
    cores,
    default_vcpus,
    from_sources,
    key_of,
    load_toml,
)
from stress.errors import ExitCode, UsageError
from stress.kernels.workload import Pattern as Codes
from stress.orders import NAMED_ORDERS
from stress.platforms import Platform

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.toml"))
KEYS = [key_of(field) for field in RunConfig.model_fields]


def problems(options: dict[str, Any], file: Path | None = None) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        from_sources(file, options)
    assert caught.value.exit_code == ExitCode.USAGE
    assert len(str(caught.value).splitlines()) == 1
    return caught.value.problems


def problem(options: dict[str, Any]) -> str:
    (only,) = problems(options)
    return only


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_defaults() -> None:
    config = from_sources()
    assert config == RunConfig()
    assert config.to_json() == {
        "orders": ["block-first"],
        "scenario": "rebuild",
        "vcpus": default_vcpus(),
        "granule_bytes": 4096,
        "ipa_bits": 40,
        "block_size_bytes": 1 << 30,
        "backing": "hugetlb-1g",
        "phys_offset_bytes": 1 << 30,
        "memory_bytes": 4 << 30,
        "blocks": 4,
        "memslots": 1,
        "populated": 1.0,
        "rebuilds": None,
        "passes": None,
        "duration_ns": 10_000_000_000,
        "dwell_ns": 5_000_000,
        "iterations": 2,
        "rebuilder": "hypervisor",
        "batch": 1,
        "locking": "exclusive",
        "split_order": "build-first",
        "yield_every": 0,
        "eager_split": False,
        "recover": None,
        "chunk_bytes": None,
        "get_clears": False,
        "clear_chunk_bytes": None,
        "overlap": False,
        "pattern": "sequential",
        "stride_pages": 17,
        "zipf_exponent": 0.99,
        "write_fraction": 0.2,
        "seed": 1,
        "platform": "native",
        "fwb": True,
        "cores": None,
        "bbm_level": 0,
        "cmo": "per-install",
        "guest_caches": True,
        "inject": None,
        "pin": default_vcpus() < cores(),
        "fail_fast": False,
        "audit_interval_ns": 1_000_000_000,
        "watchdog_ns": 5_000_000_000,
        "platform_profile": config.platform_profile.model_dump(),
    }


def test_options_are_read_as_people_write_them() -> None:
    config = from_sources(
        None,
        {"order": "clean-first", "block-size": "2M", "duration": "500ms", "dwell": "5us", "pattern": "zipf"},
    )
    assert config.parsed_orders[0].name == "clean-first"
    assert (config.block_size, config.duration_ns, config.dwell_ns) == (2 << 20, 500_000_000, 5_000)
    assert config.pattern is Pattern.ZIPF
    assert config.block_level == 2


def test_code_writes_field_names_and_plain_numbers() -> None:
    config = RunConfig(orders=("block-first",), block_size=2 << 20, duration_ns=1, pattern=Pattern.STRIDED)
    assert (config.block_size, config.duration_ns, config.pattern) == (2 << 20, 1, Pattern.STRIDED)
    with pytest.raises(ValidationError, match="frozen"):
        config.vcpus = 2


def test_patterns_are_those_of_the_compiled_code() -> None:
    # What the selftests' guests run is no pattern to choose.
    assert {pattern.name for pattern in Pattern} == {code.name for code in Codes} - {"PROGRAM"}


def test_options_override_the_file_and_the_file_the_defaults(tmp_path: Path) -> None:
    file = write(tmp_path / "c.toml", '[run]\norder = "unmap-first"\nblocks = 7\nblock-size = "2M"\n')
    config = from_sources(file, {"blocks": 9, "seed": None}, {"orders": ["clean-first"], "stride": 3})
    assert config.orders == ("unmap-first",)
    assert (config.blocks, config.block_size, config.seed, config.stride) == (9, 2 << 20, 1, 3)
    assert from_sources(file, {"order": "clean-first"}).orders == ("clean-first",)
    assert from_sources(file, {"orders": ["clean-first", "block-first"]}).orders == (
        "clean-first",
        "block-first",
    )


def test_keys_may_be_written_with_underscores_by_code_only(tmp_path: Path) -> None:
    assert from_sources(None, {"block_size": "2M"}).block_size == 2 << 20
    file = write(tmp_path / "c.toml", '[run]\nblock_size = "2M"\n')
    assert problems({}, file) == ("run.block_size: unknown key; did you mean block-size?",)


def test_rebuilds_alone_lift_the_default_duration() -> None:
    assert from_sources(None, {"rebuilds": 5}).duration_ns is None
    both = from_sources(None, {"rebuilds": 5, "duration": "3s"})
    assert (both.rebuilds, both.duration_ns) == (5, 3_000_000_000)
    assert RunConfig(duration_ns=None).duration_ns == 10_000_000_000  # a run always ends


@pytest.mark.parametrize("scenario", STAGED)
def test_a_staged_scenario_plays_passes_for_a_duration_or_so_many(scenario: Scenario) -> None:
    assert from_sources(None, {"scenario": scenario}).duration_ns == 10_000_000_000
    one = from_sources(None, {"scenario": scenario, "passes": 1})
    assert (one.passes, one.duration_ns) == (1, None)
    assert from_sources(None, {"scenario": scenario, "duration": "3s"}).duration_ns == 3_000_000_000
    text = problem({"scenario": scenario, "rebuilds": 5})
    assert text == f"--rebuilds: scenario {scenario} goes through its stages in passes; use --passes"
    assert problem({"scenario": "thp", "passes": 5}).startswith("--passes: scenario thp has no stages; use --rebuilds")


@pytest.mark.parametrize("scenario", Scenario)
def test_the_faulting_vcpu_rebuilds_unless_the_scenario_is_about_rebuilds(scenario: Scenario) -> None:
    default = "hypervisor" if scenario is Scenario.REBUILD else "vcpu"
    assert from_sources(None, {"scenario": scenario}).rebuilder == default
    for rebuilder in ("hypervisor", "vcpu"):
        assert from_sources(None, {"scenario": scenario, "rebuilder": rebuilder}).rebuilder == rebuilder


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"vcpus": 0}, "--vcpus: must be at least 1, not 0"),
        ({"vcpus": True}, "--vcpus: must be a valid integer, not True"),
        ({"vcpus": "2"}, "--vcpus: must be a valid integer, not '2'"),
        ({"populated": 1.5}, "--populated: must be at most 1.0, not 1.5"),
        ({"write-fraction": -0.1}, "--write-fraction: must be at least 0.0, not -0.1"),
        ({"write-fraction": float("nan")}, "--write-fraction: must be a finite number, not nan"),
        ({"seed": -1}, "--seed: must be at least 0, not -1"),
        ({"rebuilds": 0}, "--rebuilds: must be at least 1, not 0"),
        ({"duration": "0"}, "--duration: must be more than 0ns, not '0'"),
        ({"duration": 5}, "--duration: must be a duration with its unit, such as 5us, 500ms, 10s or 2m"),
        ({"watchdog": "1ms"}, "--watchdog: must be at least 100ms, not '1ms'"),
        ({"granule": [4]}, "--granule: must be a size such as 4K, 2M, 1G or plain bytes"),
        (
            {"pattern": "random"},
            "--pattern: unknown pattern 'random'; use sequential, uniform, zipf or strided",
        ),
        (
            {"scenario": "reboot"},
            "--scenario: unknown scenario 'reboot'; use rebuild, migration, thp, kvm-page-table-test or dirty-log-perf",
        ),
        ({"rebuilder": 1}, "--rebuilder: unknown rebuilder 1; use vcpu or hypervisor"),
        (
            {"split-order": "block-first"},
            "--split-order: unknown split order 'block-first'; did you mean build-first or break-first?",
        ),
        ({"locking": "none"}, "--locking: unknown locking 'none'; use exclusive or shared"),
        ({"cmo": "PER-FAULT"}, "--cmo: unknown cmo 'PER-FAULT'; did you mean per-fault?"),
        ({"bbm-level": 4}, "--bbm-level: must be at most 3, not 4"),
        ({"yield-every": -1}, "--yield-every: must be at least 0, not -1"),
        (
            {"yield-every": 64, "order": "block-first-deferred"},
            "--yield-every: block-first-deferred tears nothing down under mmu_lock; use another order, or leave it out",
        ),
        ({"iterations": 0}, "--iterations: must be at least 1, not 0"),
        ({"eager-split": "yes"}, "--eager-split: must be a valid boolean, not 'yes'"),
        ({"platform": "kunpeng"}, "--platform: unknown platform 'kunpeng'; did you mean kunpeng920?"),
        ({"platform": 920}, "--platform: must be a valid string, not 920"),
        ({"inject": "no-brake"}, "--inject: unknown bug 'no-brake'; did you mean no-break?"),
        ({"inject": "xyz"}, f"--inject: unknown bug 'xyz'; the bugs are {', '.join(BUGS)}"),
        (
            {"inject": "no-break", "order": "bbml2"},
            "--inject: no-break changes nothing in bbml2; use an order with the step it spoils",
        ),
        ({"orders": []}, "orders: there is no order; give at least one"),
        ({"orders": "block-first"}, "orders: must be a list, not 'block-first'"),
        ({"vcpu": 1}, "--vcpu: unknown key; did you mean vcpus?"),
    ],
)
def test_one_problem(options: dict[str, Any], expected: str) -> None:
    assert problem(options) == expected


def test_an_order_twice_says_how_to_compare_it_with_itself() -> None:
    text = problem({"orders": ["block-first", "block-first"]})
    assert text.startswith("orders: block-first is there twice")
    itself = text.rsplit(" ", 1)[1]
    assert len(from_sources(None, {"orders": ["block-first", itself]}).orders) == 2


@pytest.mark.parametrize(
    ("first", "then", "blocks", "block_size"),
    [
        ({"blocks": 7}, {"memory": "2G"}, 2, 1 << 30),
        ({"memory": "2G"}, {"blocks": 7}, 7, 1 << 30),
        ({"block-size": "1G"}, {"backing": "hugetlb-2m"}, 4, 2 << 20),
        ({"backing": "hugetlb-2m"}, {"block-size": "1G"}, 4, 1 << 30),
    ],
)
def test_a_stronger_source_may_say_it_in_the_other_way(
    tmp_path: Path, first: dict[str, Any], then: dict[str, Any], blocks: int, block_size: int
) -> None:
    file = write(tmp_path / "c.toml", "[run]\n" + "".join(f"{key} = {json.dumps(first[key])}\n" for key in first))
    config = from_sources(file, then)
    assert (config.blocks, config.block_size) == (blocks, block_size)
    assert from_sources(None, then, first) == config


def test_an_injected_bugs_settings_give_way_to_what_anybody_says(tmp_path: Path) -> None:
    file = write(tmp_path / "c.toml", '[run]\ninject = "missing-dsb"\ndwell = "7ms"\n')
    config = from_sources(file)
    assert (config.scenario, config.block_size, config.dwell_ns) == (Scenario.THP, 2 << 20, 7_000_000)
    config = from_sources(file, {"scenario": "rebuild", "block-size": "1G"})
    assert (config.scenario, config.block_size) == (Scenario.REBUILD, 1 << 30)
    config = from_sources(file, {"inject": "no-cmo", "guest-caches": True})
    assert (config.scenario, config.fwb, config.guest_caches, config.populated) == (Scenario.REBUILD, False, True, 0.5)
    # They are stronger than a command's defaults, and leave another granule its own blocks.
    config = from_sources(None, {"inject": "root-table-kept"}, {"orders": ["unmap-first", "block-first"]})
    assert config.orders == ("block-first-deferred",)
    config = from_sources(None, {"inject": "no-cmo", "granule": "64K"})
    assert config.block_size == 512 << 20
    config = from_sources(None, {"inject": "no-cmo", "backing": "hugetlb-1g"})
    assert config.block_size == 1 << 30


def test_a_bug_must_spoil_at_least_one_of_the_orders_compared() -> None:
    config = from_sources(None, {"inject": "no-break", "orders": ["bbml2", "block-first"]})
    assert [",".join(order.steps) for order in config.parsed_orders] == [
        "clean,install,tlbi,unmap",
        "tlbi,clean,install,unmap",
    ]
    assert problem({"inject": "no-break", "orders": ["bbml2", "nt"]}).startswith("--inject: no-break changes nothing")


def test_a_command_adds_the_problems_it_found_itself() -> None:
    with pytest.raises(ConfigError) as caught:
        from_sources(None, {"vcpus": 0}, problems=["-m: unknown mode"])
    assert caught.value.problems == ("-m: unknown mode", "--vcpus: must be at least 1, not 0")
    with pytest.raises(ConfigError, match=r"^-m: unknown mode$"):
        from_sources(None, {}, problems=["-m: unknown mode"])


def test_everything_wrong_is_said_at_once_with_paths(tmp_path: Path) -> None:
    file = write(
        tmp_path / "c.toml",
        """
        vcpus = 3
        [run]
        orders = ["block-first", 7, "a,b"]
        granule = "5K"
        pattern = "zigzag"
        blocks = 0
        block-sizes = "2M"
        [sweep]
        """,
    )
    found = problems({"populated": 2.0, "ipa-bits": 99}, file)
    assert [line.partition(":")[0] for line in found] == [
        "vcpus",
        "sweep",
        "run.orders[1]",
        "run.orders[2]",
        "run.granule",
        "--ipa-bits",
        "run.blocks",
        "--populated",
        "run.pattern",
        "run.block-sizes",
    ]
    assert found[0] == "vcpus: belongs in the table [run]"


def test_order_and_orders_exclude_each_other(tmp_path: Path) -> None:
    file = write(tmp_path / "c.toml", '[run]\norder = "block-first"\norders = ["unmap-first"]\n')
    assert problems({}, file) == ("run.order: given together with orders; give one of them",)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot read .*No such file"),
        (b"[run", "is not TOML"),
        (b"\xff\xfe", "is not TOML"),
        (b"[run]\nseed = " + b"9" * 5000, "is not TOML"),
        (b"a = " + b"[" * 5000, "is not TOML"),
        (b"run = 5", "run: must be a table"),
        (b"[[run]]", "run: must be a table"),
    ],
)
def test_unusable_files(tmp_path: Path, content: bytes | None, words: str) -> None:
    path = tmp_path / "c.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=words) as caught:
        from_sources(path)
    assert len(str(caught.value).splitlines()) == 1


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        load_toml(tmp_path)


def test_there_are_configs_to_load() -> None:
    assert {path.stem for path in CONFIGS} >= {
        "smoke",
        "thread",
        "no-fwb",
        "small-blocks",
        "granule-64k",
        "kunpeng920",
        "kvm-page-table-test",
        "migration",
        "thp",
    }


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configs_load(path: Path) -> None:
    config = from_sources(path)
    assert all(order.name in NAMED_ORDERS for order in config.parsed_orders)
    # The command in its first lines is the right one for its orders.
    command = "compare" if len(config.orders) > 1 else "run"
    assert f"stress {command} --config {path.stem}\n" in path.read_text(encoding="utf-8")


def test_json_is_plain_and_has_a_key_per_field() -> None:
    document = from_sources(None, {"pattern": "zipf"}).to_json()
    assert json.loads(json.dumps(document)) == document
    assert len(document) == len(RunConfig.model_fields) + 1  # and the platform's profile
    assert len(document["platform_profile"]) == len(Platform.model_fields)


toml_scalars = st.one_of(
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.sampled_from(["1G", "2M", "5ms", "block-first", "install", "zipf", "thp", "migration", "no-cmo"]),
    st.dates(),
    st.just(dt.datetime(2021, 2, 8, tzinfo=dt.UTC)),
)
toml_values = st.recursive(
    toml_scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from(["order", *KEYS]) | st.text(), toml_values, max_size=6))
def test_any_toml_value_is_taken_or_refused(table: dict[str, Any]) -> None:
    try:
        config = from_sources(None, table)
    except UsageError as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert json.dumps(config.to_json())
        assert config.block_level in (1, 2)


@given(st.sampled_from(KEYS), toml_values)
def test_any_value_of_one_key_is_taken_or_refused_by_its_path(key: str, value: Any) -> None:
    try:
        from_sources(None, {key: value})
    except ConfigError as error:
        assert all(line.removeprefix("--").startswith(key) for line in error.problems)
