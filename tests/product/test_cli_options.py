"""Options: each key of a configuration has one, some have the selftests' letters, and nonsense is one line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from commands import Command, FakeExecutor, command_line, refused

from stress.cli.options import SECTIONS
from stress.cli.progress import headline
from stress.cli.selftest import LETTERS, MODES
from stress.config import Pattern, RunConfig, key_of

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture
def executor(monkeypatch: pytest.MonkeyPatch) -> FakeExecutor:
    return FakeExecutor.installed(monkeypatch)


@pytest.fixture
def stress(capsys: pytest.CaptureFixture[str]) -> Command:
    return command_line(capsys)


@pytest.mark.parametrize("command", ["run", "compare"])
def test_every_key_is_an_option_with_its_description(stress: Command, command: str) -> None:
    code, out, _ = stress(command, "--help")
    assert code == 0
    words = " ".join(out.split())
    for name, info in RunConfig.model_fields.items():
        if name != "orders":
            assert f"--{key_of(name)} " in words
            assert info.description
            assert info.description in words
    for text in ("--duration DURATION", "[default: 5ms]", "[default: 1G]", "[default: off]", "-b, --memory SIZE"):
        assert text in words
    assert "None" not in words
    assert max(map(len, out.splitlines())) <= 80


def test_every_key_is_in_one_section_of_the_help(stress: Command) -> None:
    listed = [field for fields in SECTIONS.values() for field in fields]
    assert sorted(listed) == sorted(set(RunConfig.model_fields) - {"orders"})
    _, out, _ = stress("compare", "--help")
    headings = re.findall(r"^(\S.*):$", out, re.M)
    assert headings == [*SECTIONS, "Options"]
    # All descriptions start in the same column.
    starts = {len(match[1]) for match in re.finditer(r"^(  -\S+(?: \S+)* {2,})\S", out, re.M)}
    assert len(starts) == 1


def test_run_passes_every_option_on(stress: Command, executor: FakeExecutor) -> None:
    line = """
        run --order=clean-first --scenario migration --vcpus 3 --memory 11M --block-size 2M --granule 4K
        --backing hugetlb-2m --phys-offset 3G --memslots 2 --populated 0.5 --duration 500ms --rebuilds 9
        --dwell 1ms --iterations 7 --rebuilder hypervisor --batch 2 --locking shared --eager-split --pattern strided
        --split-order break-first
        --stride 5 --write-fraction 0.75 --seed 7 --platform kunpeng920 --cores 64 --fwb --bbm-level 2 --cmo per-fault
        --no-guest-caches --inject missing-dsb --pin --fail-fast --zipf-exponent 1.5 --ipa-bits 36
        --audit-interval 250ms --watchdog 3s --yield-every 100 --recover ioctl --chunk 4M
    """
    code, out, err = stress(*line.split())
    assert code == 0
    given = executor.configs[0].to_json()
    assert given.pop("platform_profile")["exit_ns"] == 2000
    assert given == {
        "orders": ["clean-first"],
        "scenario": "migration",
        "vcpus": 3,
        "granule_bytes": 4096,
        "ipa_bits": 36,
        "block_size_bytes": 2 << 20,
        "backing": "hugetlb-2m",
        "phys_offset_bytes": 3 << 30,
        "memory_bytes": 11 << 20,
        "blocks": 5,
        "memslots": 2,
        "populated": 0.5,
        "rebuilds": 9,
        "passes": None,
        "duration_ns": 500_000_000,
        "dwell_ns": 1_000_000,
        "iterations": 7,
        "rebuilder": "hypervisor",
        "batch": 2,
        "locking": "shared",
        "split_order": "break-first",
        "yield_every": 100,
        "eager_split": True,
        "recover": "ioctl",
        "chunk_bytes": 4 << 20,
        "get_clears": False,
        "clear_chunk_bytes": None,
        "overlap": False,
        "pattern": "strided",
        "stride_pages": 5,
        "zipf_exponent": 1.5,
        "write_fraction": 0.75,
        "seed": 7,
        "platform": "kunpeng920",
        "fwb": True,
        "cores": 64,
        "bbm_level": 2,
        "cmo": "per-fault",
        "guest_caches": False,
        "inject": "missing-dsb",
        "pin": True,
        "fail_fast": True,
        "audit_interval_ns": 250_000_000,
        "watchdog_ns": 3_000_000_000,
    }
    # Nothing here is what a plain run has anyway, but for these: their default is another here, or belongs to stages.
    default = RunConfig().to_json()
    same = {key for key, value in given.items() if default[key] == value}
    assert same <= {
        *("granule_bytes", "pin", "fwb", "rebuilder", "passes"),
        *("get_clears", "clear_chunk_bytes", "overlap"),
    }
    assert out.startswith("CORRECT")
    assert "clean-first" in out
    # Not a terminal: a plain line at the start, the executor's notes, no escape code.
    assert err.splitlines() == [f"stress: {headline(executor.configs[0])}", "stress: compiling kernels"]
    assert "\x1b" not in out + err


def test_options_override_the_file(stress: Command, executor: FakeExecutor) -> None:
    assert stress("run", "--config", str(CONFIGS / "smoke.toml"), "--blocks", "9", "--fwb")[0] == 0
    (config,) = executor.configs
    assert (config.blocks, config.block_size, config.fwb) == (9, 2 << 20, True)


# -- the selftests' letters -------------------------------------------------------------------


def test_a_command_line_of_the_selftest_means_the_same_here(stress: Command, executor: FakeExecutor) -> None:
    line = "run --scenario kvm-page-table-test -m 2 -v 4 -b 20G -s anonymous_hugetlb_1gb -p 0x80000000"
    assert stress(*line.split())[0] == 0
    (config,) = executor.configs
    assert (config.granule, config.ipa_bits, config.vcpus) == (4096, 48, 4)
    assert (config.memory, config.block_size, config.phys_offset) == (20 << 30, 1 << 30, 2 << 30)
    line = "run --scenario dirty-log-perf -i 5 -f 4"
    assert stress(*line.split())[0] == 0
    assert (executor.configs[1].iterations, executor.configs[1].write_fraction) == (5, 0.25)
    line = "run --scenario dirty-log-perf -v 4 -b 64M -s anonymous_thp -x 2 -w 30 -r 9"
    assert stress(*line.split())[0] == 0
    config = executor.configs[2]
    assert (config.memory, config.memslots, config.write_fraction, config.seed) == (256 << 20, 2, 0.3, 9)
    assert (config.get_clears, config.clear_chunk, config.overlap) == (False, None, False)
    assert stress("run", "--scenario", "dirty-log-perf", "-a", "-g", "-o")[0] == 0
    config = executor.configs[3]
    assert (config.get_clears, config.overlap, config.pattern) == (True, True, Pattern.UNIFORM)
    assert stress("run", "--scenario", "dirty-log-perf", "-k", "1M")[0] == 0
    assert executor.configs[4].clear_chunk == 1 << 20


@pytest.mark.parametrize("letter", LETTERS.values())
def test_a_letter_is_short_for_its_key(stress: Command, letter: str) -> None:
    (field,) = (field for field, each in LETTERS.items() if each == letter)
    _, out, _ = stress("run", "--help")
    assert f"{letter}, --{key_of(field)} " in out


@pytest.mark.parametrize(
    ("mode", "granule", "ipa_bits"),
    [
        ("4K", 4 << 10, 40),
        ("16k", 16 << 10, 40),
        ("64K", 64 << 10, 40),
        ("p48v48_4k", 4 << 10, 48),
        ("VM_MODE_P36V47_16K", 16 << 10, 36),
        ("pXXv48_4K", 4 << 10, 40),
        ("2", 4 << 10, 48),
        ("3", 64 << 10, 48),
        ("4", 4 << 10, 40),
    ],
)
def test_modes(stress: Command, executor: FakeExecutor, mode: str, granule: int, ipa_bits: int) -> None:
    assert stress("run", "-m", mode)[0] == 0
    assert (executor.configs[0].granule, executor.configs[0].ipa_bits) == (granule, ipa_bits)


def test_the_numbers_of_modes_are_those_of_linux() -> None:
    # enum vm_guest_mode, tools/testing/selftests/kvm/include/kvm_util.h and, in Linux 6.1, kvm_util_base.h
    assert [MODES[5, 12].index(name) for name in ("p48v48_4k", "p48v48_64k", "p40v48_4k")] == [2, 3, 4]
    assert [MODES[5, 17].index(name) for name in ("p48v48_4k", "p40v48_64k", "p36v47_16k")] == [2, 7, 14]


@pytest.mark.parametrize(
    ("options", "granule", "said"),
    [
        ("", 4 << 10, "-m 4 is p40v48_4k in the selftests of Linux 5.12 (--selftest-kernel)"),
        ("--selftest-kernel 5.16", 4 << 10, "-m 4 is p40v48_4k in the selftests of Linux 5.16 (--selftest-kernel)"),
        ("--selftest-kernel v6.1.7", 64 << 10, "-m 4 is p48v48_64k in the selftests of Linux 6.1 (--selftest-kernel)"),
    ],
)
def test_a_number_says_which_mode_it_was_taken_for(
    stress: Command, executor: FakeExecutor, options: str, granule: int, said: str
) -> None:
    code, _, err = stress("run", "-m", "4", *options.split())
    assert code == 0
    assert executor.configs[0].granule == granule
    assert err.splitlines()[0] == f"stress: {said}"


@pytest.mark.parametrize(
    ("options", "would"),
    [
        ("-n", "-n would run the guest in a VM of its own (L2); "),
        ("-c 0,1", "-c would pin each vCPU to the processor listed for it; "),
        ("-e", "-e would run vCPUs while dirty logging is switched off; "),
        ("-j", "-j would run vCPUs on, independent of the iterations; "),
    ],
)
def test_a_letter_that_means_nothing_here_says_what_it_would_do(
    stress: Command, executor: FakeExecutor, options: str, would: str
) -> None:
    code, _, err = stress("run", *options.split())
    assert code == 0
    assert err.startswith(f"stress: {would}")
    assert executor.configs == [RunConfig()]


def test_a_mode_overrides_the_file_and_keeps_other_options(stress: Command, executor: FakeExecutor) -> None:
    file = str(CONFIGS / "granule-64k.toml")
    assert stress("compare", "--config", file, "-m", "p48v48_64k", "-b", "1G")[0] == 0
    (config,) = executor.configs
    assert (config.granule, config.ipa_bits, config.blocks, config.block_size) == (64 << 10, 48, 2, 512 << 20)


# -- bad input --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("frobnicate", "no such command 'frobnicate'; try stress --help"),
        ("run --frobnicate", "No such option"),
        ("run extra", "unexpected extra argument"),
        ("run --order", "requires an argument"),
        ("run --order=firstly", "--order: unknown order 'firstly'; use one of unmap-first"),
        ("run --order=invalidate,flush,install", "unknown step 'flush'"),
        ("run --order=tlbi", "without 'install'"),
        ("run --order=install,install", "appears twice"),
        ("run --order=", "the order is empty"),
        ("run --vcpus 0", "--vcpus: must be at least 1, not 0"),
        ("run --vcpus x", "'--vcpus': 'x' is not a valid integer"),
        ("run --populated 1.5", "--populated: must be at most 1.0"),
        ("run --write-fraction -1", "--write-fraction: must be at least 0.0"),
        ("run --block-size 3000", "--block-size: 3000 bytes do not divide into 4K pages; use 1G or 2M"),
        ("run --granule 64K --block-size 2M", "KVM has no 2M block with the 64K granule.*use 512M"),
        ("run --blocks 99999", "do not fit above 1G in 40 bits of IPA; use at most 1023"),
        ("run --duration 5", "'5' is not a duration; write a duration as"),
        ("run --vcpus 0 --blocks 0", r"2 problems: --vcpus: .* \| --blocks: "),
        ("run --config nowhere.toml", "cannot read nowhere.toml"),
        ("run --format pretty-please", "'--format': unknown word 'pretty-please'; did you mean pretty"),
        ("run --format prety", "'--format': unknown word 'prety'; did you mean pretty"),
        ("run --format none-such", "'--format': unknown word 'none-such'; use one of asciidoc, "),
        ("show nowhere.jsonl --aggregate medan", "'--aggregate': unknown word 'medan'; did you mean median"),
        ("run --output nowhere/result.json", "nowhere"),
        ("run --output .", "directory"),
        ("compare block-first", "there is only block-first to compare; name two or more"),
        ("compare block-first nonsense", r"orders\[1\]: unknown order 'nonsense'"),
        ("compare block-first block-first", "orders: block-first is there twice"),
        ("compare --inject root-table-kept", "name two or more: stress compare unmap-first block-first-deferred"),
        ("clean extra", "unexpected extra argument"),
        ("bugs extra", "unexpected extra argument"),
        ("platforms extra", "unknown platform 'extra'"),
        ("platforms native extra", "unexpected extra argument"),
        ("run --scenario reboot", "--scenario: unknown scenario 'reboot'; use rebuild, migration"),
        ("run -s shmem", "--backing: unknown backing 'shmem'; use anonymous, thp"),
        ("run -b 5000", "--memory: 5000 bytes do not divide into 4K pages"),
        ("run -b 2G --blocks 2", "--blocks: given together with memory"),
        ("run -p 0x40001000", "--phys-offset: 0x40001000 is not a multiple of the 1G block"),
        ("run -v 0", "--vcpus: must be at least 1"),
        ("run -i 0", "--iterations: must be at least 1"),
        ("run -f 0", "-f: must be at least 1, not 0"),
        ("run -f 2 --write-fraction 0.5", "-f: given together with --write-fraction"),
        ("run -m 4K --granule 4K", "-m: given together with --granule; give one of them"),
        ("run -m p48v48_4k --ipa-bits 40", "-m: given together with --ipa-bits; give one of them"),
        ("run -m 8K", "-m: unknown mode '8K'; use 4K, 16K, 64K"),
        ("run -m 7", "-m: unknown mode '7'; Linux 5.12 numbers them 0 to 6, --selftest-kernel names another one"),
        ("run -m 15 --selftest-kernel 6.1", "-m: unknown mode '15'; Linux 6.1 numbers them 0 to 14"),
        ("run -m 4 --selftest-kernel 6.8", "--selftest-kernel: '6.8' is not a version of Linux from 5.12 to 6.7"),
        ("run -m 4 --selftest-kernel now", "--selftest-kernel: 'now' is not a version of Linux"),
        ("run -m 4K --selftest-kernel 6.1", "--selftest-kernel: says what a number given to -m means; give one"),
        ("run --selftest-kernel 6.1", "--selftest-kernel: says what a number given to -m means; give one"),
        ("run -w 101", "-w: must be a percentage from 0 to 100, not 101"),
        ("run -w 50 -f 2", "-w: given together with --write-fraction"),
        ("run -m ٢", "-m: unknown mode"),
        ("run -m 0", "-m: p52v48_4k has 52 bits of IPA, which needs LPA2 or LPA; use at most 48"),
        ("run -m 9 --selftest-kernel 6.1", "-m: p47v64_4k is not a mode of arm64"),
        ("run -m x -f 0 -v 0", r"3 problems: -m: unknown mode 'x'.* \| -f: .* \| --vcpus: "),
        ("run --platform kunpeng", "--platform: unknown platform 'kunpeng'; did you mean kunpeng920"),
        ("run --platform nowhere/x.toml", "--platform: cannot read platform nowhere/x.toml"),
        ("run --inject no-brake", "--inject: unknown bug 'no-brake'; did you mean no-break"),
        ("run --inject no-break --order bbml2", "--inject: no-break changes nothing in bbml2"),
        ("run --scenario thp --block-size 1G", "--block-size: a transparent huge page has 2M"),
        ("run --scenario dirty-log-perf --rebuilds 3", "--rebuilds: scenario dirty-log-perf goes through its stages"),
        ("run --bbm-level 4", "--bbm-level: must be at most 3"),
        ("run --order=install,install-nt", "'install' and 'install-nt' install the block twice"),
    ],
)
def test_bad_input_is_one_line_and_starts_nothing(
    stress: Command, executor: FakeExecutor, line: str, words: str
) -> None:
    assert re.search(words, refused(stress(*line.split(" "))))
    assert executor.configs == []


def test_run_refuses_a_file_with_several_orders(stress: Command, executor: FakeExecutor) -> None:
    file = str(CONFIGS / "thread.toml")
    assert "names 2 orders; use stress compare" in refused(stress("run", "--config", file))
    assert stress("run", "--config", file, "--order", "block-first")[0] == 0
    assert [config.orders for config in executor.configs] == [("block-first",)]


def test_errors_quote_no_escape_codes(stress: Command) -> None:
    line = refused(stress("run", "--order", "\x1b[31mred\nline"))
    assert "\x1b" not in line
