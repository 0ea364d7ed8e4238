"""Staged scenarios as people read them: the selftests' own lines, and a table of what each stage cost."""

from __future__ import annotations

import numpy as np
import pytest
from synthetic import dirty_log_perf, page_table_test

from stress.orders import BLOCK_FIRST, NAMED_ORDERS, UNMAP_FIRST
from stress.results.document import build
from stress.results.tables import WIDTH, compare_table, run_table


def rng() -> np.random.Generator:
    return np.random.default_rng(1)


def widest(text: str) -> int:
    return max(len(line) for line in text.splitlines())


def row(text: str, title: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(title))


def test_kvm_page_table_test_prints_as_the_selftest_does() -> None:
    text = run_table(build(page_table_test(rng())))
    assert text.startswith(
        """\
Testing guest mode: PA-bits:40,  VA-bits:48,  4K pages
Testing memory backing src type: anonymous_hugetlb_1gb
Testing memory backing src granularity: 0x40000000
Testing memory size(aligned): 0x500000000
Guest physical test memory offset: 0x40000000
Number of testing vCPUs: 4
Random seed: 0x2a
Started all vCPUs successfully
KVM_CREATE_MAPPINGS: total execution time: 0.000123456s

KVM_UPDATE_MAPPINGS: total execution time: 1.234567890s

KVM_ADJUST_MAPPINGS: total execution time: 0.345678901s

CORRECT: no violation in 20 rebuilds"""
    )
    assert widest(text) <= WIDTH


def test_dirty_log_perf_prints_as_the_selftest_does() -> None:
    text = run_table(build(dirty_log_perf(rng())))
    assert text.startswith(
        """\
Test iterations: 2
Testing guest mode: PA-bits:40,  VA-bits:48,  4K pages
guest physical test memory offset: 0x40000000
guest physical test memory: [0x40000000, 0x140000000)
Random seed: 42
Populate memory time: 0.412000000s
Enabling dirty logging time: 0.001234567s

Iteration 1 dirty memory time: 2.000000001s
Iteration 1 get dirty log time: 0.040000000s
Iteration 2 dirty memory time: 1.000000002s
Iteration 2 get dirty log time: 0.060000001s
Disabling dirty logging time: 0.000005000s
Get dirty log over 2 iterations took 0.100000001s. (Avg 0.050000000s/iteration)

CORRECT: """
    )
    assert widest(text) <= WIDTH
    for absent in ("Rebuilds", "Where a rebuild's time goes", "Faults, and"):  # nothing was rebuilt
        assert absent not in text


def test_manual_protection_prints_what_clearing_takes() -> None:
    text = run_table(build(dirty_log_perf(rng(), manual=True)))
    assert (
        """
Iteration 1 get dirty log time: 0.040000000s
Iteration 1 clear dirty log time: 0.300000000s
Iteration 2 dirty memory time: 1.000000002s
Iteration 2 get dirty log time: 0.060000001s
Iteration 2 clear dirty log time: 0.600000000s
Disabling dirty logging time: 0.000005000s
Get dirty log over 2 iterations took 0.100000001s. (Avg 0.050000000s/iteration)
Clear dirty log over 2 iterations took 0.900000000s. (Avg 0.450000000s/iteration)
"""
        in text
    )


@pytest.mark.parametrize(
    ("backing", "granule", "name", "granularity", "mode"),
    [
        ("anonymous", 4096, "anonymous", "0x1000", "PA-bits:40,  VA-bits:48,  4K pages"),
        ("thp", 4096, "anonymous_thp", "0x200000", "PA-bits:40,  VA-bits:48,  4K pages"),
        ("hugetlb-2m", 4096, "anonymous_hugetlb_2mb", "0x200000", "PA-bits:40,  VA-bits:48,  4K pages"),
        ("hugetlb-32m", 16384, "anonymous_hugetlb_32mb", "0x2000000", "PA-bits:40,  VA-bits:48, 16K pages"),
        ("hugetlb-512m", 65536, "anonymous_hugetlb_512mb", "0x20000000", "PA-bits:40,  VA-bits:48, 64K pages"),
        ("thp", 16384, "anonymous_thp", "0x2000000", "PA-bits:40,  VA-bits:48, 16K pages"),
        ("thp", 65536, "anonymous_thp", "0x20000000", "PA-bits:40,  VA-bits:48, 64K pages"),
    ],
)
def test_backings_and_modes_have_the_selftests_names(
    backing: str, granule: int, name: str, granularity: str, mode: str
) -> None:
    data = page_table_test(rng())
    data.config = {**data.config, "backing": backing, "granule_bytes": granule}
    lines = run_table(build(data)).splitlines()
    assert lines[:3] == [
        f"Testing guest mode: {mode}",
        f"Testing memory backing src type: {name}",
        f"Testing memory backing src granularity: {granularity}",
    ]


def test_an_interrupted_selftest_prints_the_stages_it_reached() -> None:
    data = page_table_test(rng())
    data.stages, data.complete, data.exit_code = data.stages[:1], False, 130
    text = run_table(build(data))
    assert "KVM_CREATE_MAPPINGS: total" in text
    assert "KVM_UPDATE_MAPPINGS" not in text
    assert "Started all vCPUs successfully" in text
    assert "INTERRUPTED" in text
    data.stages = []
    text = run_table(build(data))
    assert text.startswith("Testing guest mode: ")
    for absent in ("Stages", "Started"):
        assert absent not in text


def test_stages_show_faults_by_level() -> None:
    text = run_table(build(page_table_test(rng())))
    assert [row(text, f"KVM_{name}_MAPPINGS ").split()[1:] for name in ("CREATE", "UPDATE", "ADJUST")] == [
        # time, faults, per block, translation at L1 to L3, permission at L1, blocks, pages, rebuilt
        ["123", "us", "20", "1.00", "20", "0", "0", "0", "20", "0", "0"],
        ["1.23", "s", "2.62", "M", "131", "k", "0", "5,120", "2.62", "M", "20", "0", "2.62", "M", "0"],
        ["346", "ms", "32", "1.60", "12", "0", "20", "0", "0", "0", "20"],
    ]


def test_passes_are_summed_up() -> None:
    data = page_table_test(rng(), passes=3)
    data.stages[2].counters *= 2  # so that the three passes differ: 64, 32 and 32 faults
    text = run_table(build(data))
    assert "KVM_ADJUST_MAPPINGS: total execution time: 0.691357802s\n\nEach time is the median of 3 passes.\n" in text
    assert "\nStages: medians of times and means of counts over 3 passes\n" in text
    assert row(text, "KVM_UPDATE_MAPPINGS ").split()[1:5] == ["2.47", "s", "2.62", "M"]
    assert row(text, "KVM_ADJUST_MAPPINGS ").split()[1:5] == ["691", "ms", "42.7", "2.13"]


def test_what_the_passes_shown_are_of_is_said() -> None:
    """The last pass was cut short; or there were more than the result keeps."""
    data = page_table_test(rng(), passes=3)
    data.stages = data.stages[:-1]
    assert "Each time is the median of 2 to 3 passes.\n" in run_table(build(data))
    data = page_table_test(rng(), passes=4)
    data.passes = 4096
    assert "median of 4 of 4,096 passes" in run_table(build(data))


def test_stages_of_different_orders_stay_apart() -> None:
    orders = (UNMAP_FIRST, BLOCK_FIRST, NAMED_ORDERS["clean-unmapped-first"])
    text = compare_table(build(page_table_test(rng(), passes=6, orders=orders)))
    assert widest(text) <= WIDTH
    assert row(text, "unmap-first").split()[:4] == ["unmap-first", "KVM_CREATE_MAPPINGS", "123", "us"]
    assert row(text, "block-first").split()[:4] == ["block-first", "KVM_CREATE_MAPPINGS", "247", "us"]
    assert row(text, "clean-unmapped-first").split()[:4] == ["clean-unmapped-first", "KVM_CREATE_MAPPINGS", "370", "us"]
    # With the orders' names it is too wide for one table: the levels have their own.
    assert sum(line.split()[:2] == ["unmap-first", "KVM_CREATE_MAPPINGS"] for line in text.splitlines()) == 2


def test_a_comparison_prints_the_selftests_lines_of_each_order() -> None:
    text = compare_table(build(page_table_test(rng(), passes=4, orders=(UNMAP_FIRST, BLOCK_FIRST))))
    first, second = (text.index(f"Under {order}:\nTesting guest mode: ") for order in ("unmap-first", "block-first"))
    last = text.index("Each time is the median of 2 passes.\n")
    # The times of both passes of an order, of which the lower one is the median.
    assert "KVM_CREATE_MAPPINGS: total execution time: 0.000123456s" in text[first:second]
    assert "KVM_CREATE_MAPPINGS: total execution time: 0.000246912s" in text[second:last]
    assert text.count("KVM_ADJUST_MAPPINGS: total execution time: ") == 2
