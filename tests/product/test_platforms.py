"""Platform profiles: those that come with the program, and every way to write a wrong one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from stress.config import RunConfig, from_sources
from stress.errors import UsageError
from stress.orders import Step
from stress.platforms import Origin, Platform, Shape, Work, load, names

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
    everything = Shape(bytes=1 << 30, entries=512, tables=1, waiting=9)
    assert all(native.cost(what, everything) == 0 for what in (*Step, *Work))
    assert native.figures == ()


def test_kunpeng920_cleans_a_gibibyte_in_the_published_time() -> None:
    kunpeng = load("kunpeng920")
    assert not kunpeng.fwb
    assert kunpeng.bbm_level == 0
    # 52.83 s and 3.702 s for 20 vCPUs over 20 blocks, each cleaned by all or by one: 19 cleans of 20 GiB apart.
    published_ns = (52.83 - 3.702) / (20 * 19) * 1e9
    assert kunpeng.cost(Step.CLEAN, Shape(bytes=1 << 30)) == pytest.approx(published_ns, rel=0.01)


def test_kunpeng920_tears_a_gibibyte_down_in_what_the_published_time_leaves() -> None:
    """0.2436 s for 20 blocks, each rebuilt without a clean and then read; which part is which is the fit's."""
    kunpeng = load("kunpeng920")
    # Page 0 and the upper half of a block are mapped: a level 2 table, and 257 of level 3.
    torn_down = kunpeng.cost(Step.UNMAP, Shape(entries=258 * 512, tables=258))
    read = (1 << 18) * kunpeng.cost(Work.MISS)
    assert torn_down + read == pytest.approx(0.2436e9 / 20, rel=0.005)


@pytest.mark.parametrize("name", names())
def test_every_profile_says_where_its_figures_come_from(name: str) -> None:
    profile = load(name)
    assert profile.name == name
    assert profile.description
    assert profile.source


@pytest.mark.parametrize("name", names())
def test_every_figure_of_a_profile_says_how_it_is_known(name: str) -> None:
    for figure in load(name).figures:
        assert figure.origin in tuple(Origin), figure.key
        assert figure.source, figure.key
        assert figure.means, figure.key


RICH = Platform(
    name="rich",
    description="each cost is another power of ten",
    source="made up",
    fwb=False,
    dic=False,
    bbm_level=0,
    clean_bytes_per_s=1e9,
    icache_ns=10,
    unmap_ns=3,
    free_ns=100,
    tlbi_ns=1000,
    tlbi_range_ns=2000,
    tlbi_ipa_ns=3000,
    tlbi_local_ns=400,
    tlbi_cold_ns=20_000,
    tlbi_waiting_ns=7,
    exit_ns=1,
    fault_ns=2,
    map_ns=4,
    rebuild_ns=60,
    rebuild_cold_ns=70,
    split_ns=50,
    zero_bytes_per_s=2e9,
    hand_over_ns=6,
    hand_over_waiting_ns=8,
    hit_ns=0.5,
    walk_ns=20,
    miss_ns=90,
    start_ns=9000,
)


@pytest.mark.parametrize(
    ("what", "shape", "ns"),
    [
        (Step.CLEAN, Shape(bytes=4096), 4096 + 10),
        (Step.CLEAN_UNMAPPED, Shape(bytes=4096, ranges=5), 4096 + 50),
        (Step.CLEAN, Shape(bytes=4096, ranges=0), 4096),
        (Step.TLBI, Shape(), 1000),
        (Step.TLBI, Shape(waiting=3), 1021),
        (Step.TLBI, Shape(waiting=3, local=True), 400),
        (Step.TLBI_IPA, Shape(waiting=1), 3007),
        (Step.TLBI, Shape(between=1 << 13), 1000),
        (Step.TLBI, Shape(between=1 << 18), 21_000),
        (Step.TLBI_IPA, Shape(between=1 << 18), 3000),
        (Work.START, Shape(), 9000),
        (Work.REBUILD, Shape(between=1 << 13), 60),
        (Work.REBUILD, Shape(between=1 << 18), 130),
        (Work.TLBI_RANGE, Shape(), 2000),
        (Step.UNMAP, Shape(entries=512, tables=1), 1536 + 100),
        (Step.UNMAP_DEFERRED, Shape(entries=512, tables=1), 1536 + 100),
        (Work.EXIT, Shape(), 1),
        (Work.FAULT, Shape(), 2),
        (Work.MAP, Shape(entries=2), 8),
        (Step.BUILD, Shape(entries=3), 12),
        (Step.LINK, Shape(entries=3), 50),
        (Work.ZERO, Shape(bytes=4096), 2048),
        (Work.HAND_OVER, Shape(), 6),
        (Work.HAND_OVER, Shape(waiting=10), 86),
        (Work.HIT, Shape(), 0.5),
        (Work.WALK, Shape(), 20),
        (Work.MISS, Shape(), 90),
        *((step, Shape(bytes=1, entries=1, tables=1, waiting=1), 0) for step in ("invalidate", "install", "lock")),
    ],
)
def test_what_a_piece_of_work_costs(what: Step | Work, shape: Shape, ns: float) -> None:
    step = Step(what) if what in tuple(Step) else what
    assert RICH.cost(step, shape) == pytest.approx(ns)


def test_a_tlbi_costs_what_one_by_vmid_does_unless_the_profile_says_otherwise() -> None:
    plain = RICH.model_copy(update={"tlbi_range_ns": None, "tlbi_ipa_ns": None, "tlbi_local_ns": None})
    for what in (Step.TLBI, Step.TLBI_IPA, Work.TLBI_RANGE):
        assert plain.cost(what) == plain.cost(what, Shape(local=True)) == 1000


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
    assert profile.cost(Step.CLEAN, Shape(bytes=4096)) == pytest.approx(4096 + 700)
    assert {figure.key: figure.value for figure in profile.figures} == {
        "clean-bytes-per-s": "954 MiB/s",
        "icache-ns": "700 ns",
        "tlbi-ns": "800 ns",
        "exit-ns": "900 ns",
    }
    with pytest.raises(ValidationError, match="frozen"):
        profile.fwb = True


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("kunpeng", "unknown platform 'kunpeng'; did you mean kunpeng920?"),
        (
            "graviton",
            "unknown platform 'graviton'; use one of arm64, koller-v2, kunpeng920, native, upton-v5",
        ),
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
        (("bbm-level = 2", "bbm-level = 4"), "bbm-level: must be less than or equal to 3"),
        (("tlbi-ns = 800", "tlbi_ns = 800"), "tlbi_ns: unknown key"),
        (("tlbi-ns = 800", "tlbi-ns = -1"), "tlbi-ns: must be greater than or equal to 0"),
        (("tlbi-ns = 800", 'tlbi-ns = "800"'), "tlbi-ns: must be a valid number"),
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
        (("tlbi-ns = 800", "tlbi-ns = true"), "tlbi-ns: must be a valid number"),
        (("exit-ns = 900", '[fitted]\nexitns = "a log"'), "fitted.exitns is no cost"),
        (("exit-ns = 900", '[fitted]\nexit-ns = "a log"\n[guessed]\nexit-ns = "me"'), "guessed.exit-ns has another"),
        (("exit-ns = 900", "[fitted]\nexit-ns = 7"), "fitted: exit-ns: must be a valid string"),
        (("tlbi-ns = 800", f"tlbi-ns = 1{'0' * 400}"), "tlbi-ns: must be a valid number"),
        (("tlbi-ns = 800", "tlbi-ns = 2e9"), "tlbi-ns: must be less than or equal to"),
        (("1_000_000_000", "inf"), "clean-bytes-per-s: must be a finite number"),
        (('"a machine"', r'"red \u001b[31m"'), "description:"),
        (("fwb = false", 'fwb = false\nname = "other"'), "name: the file's name is the platform's"),
        (("fwb = false", "fwb = false\ncores = 0"), "cores: must be greater than or equal to 1"),
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
