"""End to end with real processes: every scenario goes through its life cycle, and shows the mechanism it is for."""

from __future__ import annotations

from typing import Any

import pytest
from live import run_json

from stress.orders import NAMED_ORDERS
from stress.shm.layout import Rings

STAGE_ROWS = Rings().stage_rows

SMALL = ("--block-size", "2M", "--blocks", "4")

#: One pass, as the selftests themselves make.
SELFTEST = ("run", "--scenario", "kvm-page-table-test", "--passes", "1")
DIRTY_LOG = ("run", "--scenario", "dirty-log-perf", "--passes", "1")


def correct(*arguments: str) -> dict[str, Any]:
    """The document of a run without a violation."""
    document = run_json(*arguments)
    assert document["violations"] == []
    assert document["exit"] == 0
    assert document["complete"] is True
    return document


def stages(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The stages of a single pass by name, the last iteration of each."""
    return {stage["name"]: stage for stage in document["stages"]}


@pytest.mark.parametrize(
    ("locking", "rebuilder", "caches"),
    [  # every pair of values; make soak goes through more
        ("exclusive", "vcpu", ()),
        ("shared", "vcpu", ("--no-fwb", "--no-guest-caches")),
        ("exclusive", "hypervisor", ("--no-fwb", "--no-guest-caches")),
        ("shared", "hypervisor", ()),
    ],
)
def test_every_order_whoever_rebuilds_and_however_it_locks(
    locking: str, rebuilder: str, caches: tuple[str, ...]
) -> None:
    # FEAT_BBM level 2 allows what the lower levels do.
    document = correct(
        "compare", *NAMED_ORDERS, *SMALL, "--vcpus", "3", "--dwell", "2ms", "--pattern", "uniform",
        "--populated", "0.6", "--write-fraction", "0.5", "--bbm-level", "2", "--locking", locking,
        "--rebuilder", rebuilder, "--rebuilds", "40", "--duration", "2500ms", *caches,
    )  # fmt: skip
    for order in document["orders"]:
        assert order["rebuilds"] > 1
        assert (order["faults"]["rebuild"] > 0) == (rebuilder == "vcpu")
        assert order["tables"]["freed"] > 0
        # What never breaks the entry has no window to fault in.
        assert (order["window_ns"]["p50"] == 0) == (order["order"] in ("nt", "bbml2"))


@pytest.mark.alone
@pytest.mark.parametrize("options", [(), ("--eager-split",), ("--locking", "shared"), ("--rebuilder", "hypervisor")])
def test_migrations_complete_with_equal_copies_and_blocks_come_back(options: tuple[str, ...]) -> None:
    document = correct(
        "compare", "unmap-first", "block-first-deferred", "--scenario", "migration", *SMALL, "--vcpus", "2",
        "--pattern", "uniform", "--dwell", "2ms", "--duration", "2s", *options,
    )  # fmt: skip
    life = document["life_cycle"]
    assert life["migrations_completed"] > 0
    assert life["migrations_cancelled"] > 0
    assert life["logging_enabled"] == life["logging_disabled"]
    assert life["dirty_pages"] > 0
    assert life["harvests"] >= life["migrations_completed"]
    assert "--eager-split" in options or "blocks_split_eagerly" not in life  # a fault may split all of them first
    for order in document["orders"]:
        assert order["rebuilds"] > 0
        assert order["faults"]["permission"] > 0
        if "--eager-split" not in options:
            assert order["mappings"]["splits"] > 0
            assert 0 < order["mapped_share"] <= 1  # how much of a block was touched depends on the machine


@pytest.mark.parametrize("options", [("--rebuilder", "hypervisor"), ("--locking", "shared")])
def test_who_stops_logging_recovers_blocks_under_guests_that_go_on(options: tuple[str, ...]) -> None:
    document = correct(
        "run", "--scenario", "migration", *SMALL, "--vcpus", "2", "--pattern", "uniform", "--dwell", "2ms",
        "--rebuilds", "6", "--recover", "ioctl", "--chunk", "4M", "--eager-split", *options,
    )  # fmt: skip
    [order] = document["orders"]
    assert order["rebuilds"] > 0
    if "hypervisor" in options:
        assert order["vcpu_rebuilds"] == 0
    assert order["recovery_ns"]["count"] == order["cycles"] == document["life_cycle"]["logging_disabled"]
    assert order["recovery_ns"]["p50"] > order["rebuild_ns"]["p50"]
    assert order["recovery_faults"] <= order["faults_per_rebuild"] * order["rebuilds"] / order["cycles"]


def test_the_selftests_guests_find_blocks_where_who_stopped_logging_recovered_them() -> None:
    document = correct(*SELFTEST, *SMALL, "--vcpus", "2", "--recover", "ioctl", "--chunk", "8M")
    assert document["orders"][0]["rebuilds"] == 4
    assert document["orders"][0]["vcpu_rebuilds"] == 0
    assert stages(document)["KVM_ADJUST_MAPPINGS"]["rebuilds"] == 0
    document = correct(*DIRTY_LOG, "-b", "4M", "--block-size", "2M", "--vcpus", "2", "--recover", "ioctl")
    assert stages(document)["disable"]["rebuilds"] == document["orders"][0]["rebuilds"] == 4
    assert stages(document)["recover"]["faults"]["rebuild"] == 0


@pytest.mark.parametrize("locking", ["exclusive", "shared"])
def test_a_collapsed_page_is_mapped_as_a_block_and_never_rebuilt(locking: str) -> None:
    document = correct(
        "run", "--scenario", "thp", "--vcpus", "2", "--dwell", "1ms", "--duration", "2s", "--locking", locking,
        "--pattern", "uniform", "--no-fwb", "--no-guest-caches",
    )  # fmt: skip
    life = document["life_cycle"]
    assert life["collapses"] == life["breakups"] > 8
    assert life["slot_moves"] > 0
    assert life["frames_moved"] == 1024 * life["collapses"]
    [order] = document["orders"]
    assert order["mappings"]["blocks"] > 0
    assert order["mappings"]["pages"] > 0
    assert order["rebuilds"] == 0


@pytest.mark.parametrize("order", ["unmap-first", "block-first", "clean-first-unlocked"])
def test_the_selftest_costs_what_it_costs_in_the_kernel(order: str) -> None:
    # Real kernels: 257 faults in UPDATE for each 2 MiB block, and with one vCPU one fault per rebuild in any order.
    blocks = 64
    document = correct(
        *SELFTEST, "-b", f"{2 * blocks}M", "-s", "anonymous_hugetlb_2mb",
        "-v", "1", f"--order={order}",
    )  # fmt: skip
    found = stages(document)
    create, update, adjust = (found[f"KVM_{name}_MAPPINGS"] for name in ("CREATE", "UPDATE", "ADJUST"))
    assert create["mappings"] == {"blocks": blocks, "pages": 0, "relaxed": 0, "splits": 0}
    assert update["faults_by_level"]["permission"] == [0, 0, blocks, 0]
    assert update["faults_by_level"]["translation"] == [0, 0, 0, 256 * blocks]
    assert update["mappings"] == {"blocks": 0, "pages": 257 * blocks, "relaxed": 0, "splits": blocks}
    assert sum(adjust["faults"].values()) == adjust["faults"]["rebuild"] == adjust["rebuilds"] == blocks
    [measured] = document["orders"]
    assert measured["rebuilds_hit"] == 0
    assert measured["mapped_share"] == 257 / 512


def test_a_misaligned_memslot_is_mapped_as_pages() -> None:
    document = correct(*SELFTEST, "-b", "4M", "-s", "hugetlb-2m", "-p", "1048580K")
    [order] = document["orders"]
    assert order["mappings"]["blocks"] == 0
    assert order["mappings"]["pages"] >= 1024
    assert order["rebuilds"] == 0


def test_what_reaches_outside_its_memslot_is_mapped_as_pages() -> None:
    # 3 blocks and half a one; cut in the middle of the second one too.
    document = correct(*SELFTEST, "-b", "7M", "-s", "hugetlb-2m", "-v", "1", "--memslots", "2")
    create, adjust = stages(document)["KVM_CREATE_MAPPINGS"], stages(document)["KVM_ADJUST_MAPPINGS"]
    assert create["mappings"]["blocks"] == 2  # the first and the third
    assert create["mappings"]["pages"] == 2
    assert adjust["rebuilds"] == 2


def test_dirty_log_perf_harvests_what_was_written() -> None:
    document = correct(*DIRTY_LOG, "-b", "4M", "-s", "hugetlb-2m", "-v", "2", "-i", "3", "-f", "2", "-g")
    names = [(stage["name"], stage["iteration"]) for stage in document["stages"]]
    rounds = [(name, iteration) for iteration in (1, 2, 3) for name in ("dirty", "get-dirty-log")]
    assert names == [("populate", 0), ("enable", 0), *rounds, ("disable", 0), ("recover", 0)]
    assert document["life_cycle"]["harvests"] == 3
    assert 0.4 < document["life_cycle"]["dirty_pages"] / (3 * 2048) < 0.6
    assert stages(document)["populate"]["mappings"]["blocks"] == 4
    assert document["stages"][2]["mappings"]["splits"] == 4
    assert stages(document)["recover"]["rebuilds"] == 4


@pytest.mark.parametrize(
    ("size", "options", "chunks"), [(4, (), 1), (4, ("-k", "256K"), 16), (8, ("-x", "3", "-k", "1M"), 9)]
)
def test_manual_protection_clears_the_log_in_chunks(size: int, options: tuple[str, ...], chunks: int) -> None:
    """Whole memslots, parts smaller than a block, memslots that are no multiple of a part: all is found again."""
    small = (*DIRTY_LOG, "-b", f"{size}M", "-s", "anonymous_thp", "-v", "1", "-i", "2")
    pages = size * 256
    document = correct(*small, *options)
    names = [stage["name"] for stage in document["stages"]]
    assert names == ["populate", "enable", *["dirty", "get-dirty-log", "clear-dirty-log"] * 2, "disable", "recover"]
    assert document["life_cycle"]["harvests"] == 2
    assert document["life_cycle"]["dirty_pages"] == 2 * pages
    first, second = (stage for stage in document["stages"] if stage["name"] == "dirty")
    assert first["mappings"]["splits"] == 2
    assert second["mappings"]["relaxed"] == second["accesses"] == pages, "every page was protected again"
    at_once = correct(*small, "-g", *options[:-2])
    assert document["orders"][0]["tlbis"] - at_once["orders"][0]["tlbis"] == 2 * (chunks - 1)


def test_vcpus_that_overlap_work_on_all_of_memory() -> None:
    document = correct(*DIRTY_LOG, "-b", "2M", "-s", "anonymous_thp", "-v", "2", "-o")
    assert stages(document)["dirty"]["accesses"] == 2 * 1024
    assert document["life_cycle"]["dirty_pages"] == 2 * 1024


@pytest.mark.parametrize("options", [("-a",), ("--pattern", "zipf"), ("--pattern", "strided", "--stride", "64")])
def test_a_pattern_dirties_pages_of_each_vcpus_part_and_stages_in_order_stay_so(options: tuple[str, ...]) -> None:
    document = correct(*DIRTY_LOG, "-b", "2M", "-s", "anonymous_thp", "-v", "2", "-i", "1", *options)
    found = stages(document)
    assert found["populate"]["mappings"]["blocks"] == 2
    assert found["dirty"]["accesses"] == found["recover"]["accesses"] == 1024
    assert found["dirty"]["mappings"]["splits"] == 2, "each vCPU wrote to its part"
    pages = document["life_cycle"]["dirty_pages"]
    # 512 draws from 512 pages find 63% of them if all are alike, fewer if not; a sweep with a stride finds each once.
    assert {"-a": 580 < pages < 720, "zipf": 0 < pages < 580, "64": pages == 1024}[options[-1]]


def test_dirty_log_perf_writes_all_pages_of_each_vcpus_part() -> None:
    """As the selftest: -b is each vCPU's, and without -f every page is written in every iteration."""
    document = correct(*DIRTY_LOG, "-b", "4M", "-s", "anonymous_thp", "-v", "2")
    assert document["config"]["memory_bytes"] == 8 << 20
    assert document["life_cycle"]["dirty_pages"] == 2 * 2048
    assert [stage["mappings"]["pages"] for stage in document["stages"] if stage["name"] == "dirty"] == [2048, 0]


@pytest.mark.alone
def test_the_published_gain_was_the_missing_clean() -> None:
    document = correct(
        "compare", "unmap-first", "block-first", "clean-first", "clean-unmapped-first", "--platform", "kunpeng920",
        "--blocks", "1", "--populated", "0.5", "--rebuilds", "2", "--dwell", "2ms", "--duration", "20s",
    )  # fmt: skip
    unmap_first, block_first, clean_first, clean_unmapped_first = document["orders"]
    for order in (unmap_first, block_first):
        assert order["step_ns"]["clean"]["p50"] > 120e6  # 129.9 ms for 1 GiB
        # It dominates the window, in which unmap-first tears 513 tables down, too: 130 ms of 154 where nobody disturbs.
        assert order["step_ns"]["clean"]["p50"] > 0.6 * order["window_ns"]["p50"]
    assert block_first["rebuild_ns"]["p50"] > 0.8 * unmap_first["rebuild_ns"]["p50"]  # reordering alone gains little
    for order in (clean_first, clean_unmapped_first):
        assert order["window_ns"]["p50"] < 0.1 * unmap_first["window_ns"]["p50"]
    assert clean_unmapped_first["cleaned_bytes"] < clean_first["cleaned_bytes"]


@pytest.mark.alone
def test_cleaning_per_fault_multiplies_the_cost_by_the_faulting_vcpus() -> None:
    times = {}
    for cmo in ("per-install", "per-fault"):
        document = correct(*SELFTEST, "-b", "1G", "-v", "3", "--platform", "kunpeng920", "--cmo", cmo)
        times[cmo] = stages(document)["KVM_ADJUST_MAPPINGS"]["duration_ns"]
    assert times["per-fault"] > 1.5 * times["per-install"]


def test_passes_take_turns_until_the_time_is_up() -> None:
    """At least one under each order; every pass is in the result, and is a cycle of its own."""
    document = run_json(
        "compare", "unmap-first", "block-first", "--scenario", "kvm-page-table-test", "-b", "4M", "-s", "hugetlb-2m",
        "-v", "1", "--duration", "1ms",
    )  # fmt: skip
    assert [order["cycles"] for order in document["orders"]] == [1, 1]
    assert document["passes"] == 1
    assert len(document["stages"]) == 2 * 3
    window = document["comparison"][0]["ratios"]["window"]
    assert window["low"] is None
    assert "has rebuilds in 1 cycle, an interval needs 10" in window["reason"]


def test_more_passes_than_the_ring_of_stages_has_rows_for() -> None:
    passes = STAGE_ROWS // 3 + 50
    document = run_json(
        "run", "--scenario", "kvm-page-table-test", "-b", "2M", "-s", "hugetlb-2m", "-v", "1", "--passes", str(passes)
    )
    assert document["passes"] == document["orders"][0]["cycles"] == passes
    assert [stage["repeat"] for stage in document["stages"]] == [repeat for repeat in range(passes) for _ in range(3)]
