"""Platform profiles: those that come with the program, and every way to write a wrong one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from stress.config import RunConfig, from_sources
from stress.errors import UsageError
from stress.platforms import Platform, load, names

GOOD = """
description = "a machine"
source = "made up"
fwb = false
dic = false
bbm-level = 2
clean-bytes-per-s = 1_000_000_000
icache-ns = 700
tlbi-ns = 800
exit-ns = 900
"""


def write(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


def refusal(name_or_path: str) -> str:
    with pytest.raises(UsageError) as caught:
        load(name_or_path)
    assert len(str(caught.value).splitlines()) == 1
    assert caught.value.remedy
    return str(caught.value)


def test_native_comes_first_and_costs_nothing() -> None:
    assert names()[0] == "native"
    native = load("native")
    assert (native.fwb, native.dic, native.bbm_level) == (True, True, 0)
    assert (native.clean_bytes_per_s, native.icache_ns, native.tlbi_ns, native.exit_ns) == (None, 0, 0, 0)
    assert native.clean_ns_per_page(4096) == 0.0
    assert native.costs == {}


def test_kunpeng920_cleans_a_gibibyte_in_the_published_time() -> None:
    kunpeng = load("kunpeng920")
    assert not kunpeng.fwb
    assert kunpeng.bbm_level == 0
    # 52.83 s and 3.702 s for 20 vCPUs over 20 blocks, each cleaned by all or by one: 19 cleans of 20 GiB apart.
    published_ns = (52.83 - 3.702) / (20 * 19) * 1e9
    for granule in (4 << 10, 16 << 10, 64 << 10):
        assert kunpeng.clean_ns_per_page(granule) * ((1 << 30) / granule) == pytest.approx(published_ns, rel=0.01)
    assert list(kunpeng.costs) == ["clean", "TLBI", "exit"]


@pytest.mark.parametrize("name", names())
def test_every_profile_says_where_its_figures_come_from(name: str) -> None:
    profile = load(name)
    assert profile.name == name
    assert profile.description
    assert profile.source


def test_a_file_is_a_platform_named_after_it(tmp_path: Path) -> None:
    profile = load(write(tmp_path / "mine.toml", GOOD))
    assert profile == Platform(
        name="mine",
        description="a machine",
        source="made up",
        fwb=False,
        dic=False,
        bbm_level=2,
        clean_bytes_per_s=1e9,
        icache_ns=700,
        tlbi_ns=800,
        exit_ns=900,
    )
    assert profile.clean_ns_per_page(4096) == pytest.approx(4096)
    assert profile.costs == {"clean": "954 MiB/s", "I-cache": "700 ns", "TLBI": "800 ns", "exit": "900 ns"}
    with pytest.raises(ValidationError, match="frozen"):
        profile.fwb = True


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("kunpeng", "unknown platform 'kunpeng'; did you mean kunpeng920?"),
        ("graviton", "unknown platform 'graviton'; use one of kunpeng920, native, or a TOML file's path"),
        ("", "unknown platform ''"),
        ("nowhere/x.toml", "cannot read platform nowhere/x.toml: No such file"),
        ("nowhere.toml", "cannot read platform nowhere.toml: No such file"),
        ("/", "cannot read platform /: Is a directory"),
        ("x\0.toml", "is not TOML"),
    ],
)
def test_what_is_no_platform(name: str, words: str) -> None:
    assert words in refusal(name)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("fwb = false", ""), "fwb: missing"),
        (("fwb = false", "fwb = 1"), "fwb: must be a valid boolean"),
        (("bbm-level = 2", "bbm-level = 3"), "bbm-level: must be less than or equal to 2"),
        (("tlbi-ns = 800", "tlbi_ns = 800"), "tlbi_ns: unknown key"),
        (("tlbi-ns = 800", "tlbi-ns = -1"), "tlbi-ns: must be greater than or equal to 0"),
        (("tlbi-ns = 800", "tlbi-ns = 2e3"), "tlbi-ns: must be a valid integer"),
        (("exit-ns = 900", "exit-ns = 9_000_000_000"), "exit-ns: must be less than or equal to"),
        *(
            (("1_000_000_000", value), f"clean-bytes-per-s: must be {wrong}")
            for value, wrong in {
                "0": "greater than or equal to 1000000",
                "1": "greater than or equal to 1000000",
                "-1e9": "greater than or equal to 1000000",
                "1e-300": "greater than or equal to 1000000",
                "5e-324": "greater than or equal to 1000000",
                "2e15": "less than or equal to",
                "1e308": "less than or equal to",
                "nan": "a finite number",
                "true": "a valid number",
            }.items()
        ),
        (("tlbi-ns = 800", "tlbi-ns = true"), "tlbi-ns: must be a valid integer"),
        (("tlbi-ns = 800", f"tlbi-ns = 1{'0' * 400}"), "tlbi-ns: must be less than or equal to"),
        (("1_000_000_000", "inf"), "clean-bytes-per-s: must be a finite number"),
        (('"a machine"', r'"red \u001b[31m"'), "description:"),
        (("fwb = false", 'fwb = false\nname = "other"'), "name: the file's name is the platform's"),
        (("fwb = false", "fwb = "), "is not TOML"),
    ],
)
def test_a_file_that_makes_no_sense(tmp_path: Path, change: tuple[str, str], words: str) -> None:
    assert change[0] in GOOD
    assert words in refusal(write(tmp_path / "mine.toml", GOOD.replace(*change)))


def test_everything_wrong_in_a_file_is_said_at_once(tmp_path: Path) -> None:
    text = refusal(write(tmp_path / "mine.toml", "fwb = 7\nspeed = 1\n"))
    assert all(key in text for key in ("description: missing", "dic: missing", "fwb: must", "speed: unknown key"))


@pytest.mark.parametrize(
    ("options", "fwb", "bbm_level"),
    [({}, False, 2), ({"fwb": True}, True, 2), ({"bbm-level": 0}, False, 0), ({"fwb": False}, False, 2)],
)
def test_a_run_has_the_platforms_features_unless_it_says_otherwise(
    tmp_path: Path, options: dict[str, Any], fwb: bool, bbm_level: int
) -> None:
    path = write(tmp_path / "mine.toml", GOOD)
    config = from_sources(None, {"platform": path, **options})
    assert (config.fwb, config.bbm_level) == (fwb, bbm_level)
    assert config.platform_profile == load(path)
    document = config.to_json()
    assert document["platform"] == path
    assert document["platform_profile"]["tlbi_ns"] == 800


def test_the_default_platform_is_native() -> None:
    assert RunConfig().platform_profile == load("native")
