"""The configuration: defaults, sources and their precedence, and every complaint at once."""

from __future__ import annotations

import datetime as dt
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from stress.arch.geometry import BLOCK_SIZES, MEMSLOT_BASE
from stress.config import (
    ConfigError,
    Pattern,
    RunConfig,
    cores,
    default_vcpus,
    from_sources,
    key_of,
    load_toml,
)
from stress.errors import ExitCode, UsageError
from stress.kernels.pattern import Pattern as Codes
from stress.units import format_size

CONFIGS = sorted((Path(__file__).parent.parent / "configs").glob("*.toml"))
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
        "vcpus": default_vcpus(),
        "granule_bytes": 4096,
        "ipa_bits": 40,
        "block_size_bytes": 1 << 30,
        "blocks": 4,
        "populated": 1.0,
        "rebuilds": None,
        "duration_ns": 10_000_000_000,
        "dwell_ns": 5_000_000,
        "pattern": "sequential",
        "stride_pages": 17,
        "zipf_exponent": 0.99,
        "write_fraction": 0.2,
        "seed": 1,
        "fwb": True,
        "guest_caches": True,
        "pin": default_vcpus() < cores(),
        "fail_fast": False,
        "audit_interval_ns": 1_000_000_000,
        "watchdog_ns": 5_000_000_000,
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
    assert {pattern.name for pattern in Pattern} == {code.name for code in Codes}


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
    with pytest.raises(ValidationError, match="would never end"):
        RunConfig(duration_ns=None)


@pytest.mark.parametrize(
    ("granule", "size"),
    [(granule, size) for granule, sizes in BLOCK_SIZES.items() for size in sizes.values()],
)
def test_every_block_kvm_has_is_possible(granule: int, size: int) -> None:
    config = from_sources(None, {"granule": format_size(granule), "block-size": format_size(size)})
    assert config.geometry.level_size(config.block_level) == size
    assert from_sources(None, {"granule": granule}).block_size == max(BLOCK_SIZES[granule].values())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"granule": "64K", "block-size": "1G"},
            "--block-size: KVM has no 1G block with the 64K granule.*use 512M",
        ),
        ({"block-size": "32M"}, "--block-size: KVM has no 32M block with the 4K granule.*use 1G or 2M"),
        ({"block-size": "4K"}, "--block-size: KVM has no 4K block"),
        ({"block-size": "3000"}, "--block-size: 3000 bytes do not divide into 4K pages; use 1G or 2M"),
        ({"block-size": "0"}, "--block-size: KVM has no 0 block"),
        ({"granule": "8K"}, "--granule: no granule has 8192 bytes; use 4K, 16K or 64K"),
        ({"ipa-bits": 33, "block-size": "1G"}, "--block-size: KVM has no 1G block.*33 bits of IPA; use 2M"),
        (
            {"blocks": 1024},
            "--blocks: 1024 blocks of 1G do not fit above 1G in 40 bits of IPA; use at most 1023",
        ),
    ],
)
def test_sizes_that_do_not_fit(options: dict[str, Any], words: str) -> None:
    assert re.match(words, problem(options))


def test_blocks_may_fill_the_ipa_space_to_the_last() -> None:
    config = from_sources(None, {"blocks": 1023})
    assert MEMSLOT_BASE + config.blocks * config.block_size == 1 << config.ipa_bits


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
    assert {path.stem for path in CONFIGS} >= {"smoke", "thread", "no-fwb", "small-blocks", "granule-64k"}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configs_load(path: Path) -> None:
    config = from_sources(path)
    assert all(order.name in ("unmap-first", "block-first", "clean-first") for order in config.parsed_orders)
    assert f"--config configs/{path.name}" in path.read_text(encoding="utf-8")


def test_json_is_plain_and_has_a_key_per_field() -> None:
    document = from_sources(None, {"pattern": "zipf"}).to_json()
    assert json.loads(json.dumps(document)) == document
    assert len(document) == len(RunConfig.model_fields)


toml_scalars = st.one_of(
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.sampled_from(["1G", "2M", "5ms", "block-first", "install", "zipf"]),
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
