"""The lines that KVM's selftests print, so that a result here can be laid beside one from hardware.

Formats: tools/testing/selftests/kvm/kvm_page_table_test.c (Linux 5.13 on), dirty_log_perf_test.c and
lib/kvm_util.c's vm_guest_mode_string. A line without a counterpart here (the host virtual offset) is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from stress.backings import HUGETLB, SELFTEST_NAMES, Backing
from stress.results.stage_table import passes, typical
from stress.units import format_size

#: Every guest mode with stage-2 tables as ours has this width of virtual addresses.
_VA_BITS: Final = 48


def selftest_lines(document: dict[str, Any]) -> str:
    """The lines that the scenario's selftest would have printed, once for each order; "" for any other scenario."""
    lines = _SELFTESTS.get(document["scenario"])
    if lines is None:
        return ""
    stages = typical(document)
    orders = dict.fromkeys(stage.get("order", "") for stage in stages) or {"": None}
    texts = []
    for order in orders:
        its = [stage for stage in stages if stage.get("order", "") == order]
        text = "\n".join(lines(document["config"], document["seed"], its)).strip("\n")
        texts.append(f"Under {order}:\n{text}" if order else text)
    count = passes(document)
    if count not in ("0 passes", "1 pass"):
        texts.append(f"Each time is the median of {count}.")
    return "\n\n".join(texts)


def _page_table_test(config: dict[str, Any], seed: int, stages: list[dict[str, Any]]) -> list[str]:
    lines = [
        f"Testing guest mode: {_mode(config)}",
        f"Testing memory backing src type: {SELFTEST_NAMES[Backing(config['backing'])]}",
        f"Testing memory backing src granularity: {_granularity(config):#x}",
        f"Testing memory size(aligned): {config['memory_bytes']:#x}",
        f"Guest physical test memory offset: {config['phys_offset_bytes']:#x}",
        f"Number of testing vCPUs: {config['vcpus']}",
        f"Random seed: {seed:#x}",
    ]
    if stages:
        lines.append("Started all vCPUs successfully")
    for stage in stages:
        lines += [f"{stage['name']}: total execution time: {_time(stage['duration_ns'])}", ""]
    return lines


def _dirty_log_perf_test(config: dict[str, Any], seed: int, stages: list[dict[str, Any]]) -> list[str]:
    start = config["phys_offset_bytes"]
    lines = [
        f"Test iterations: {config['iterations']}",
        f"Testing guest mode: {_mode(config)}",
        f"guest physical test memory offset: {start:#x}",  # until Linux 5.16
        f"guest physical test memory: [{start:#x}, {start + config['memory_bytes']:#x})",  # since Linux 5.17
        f"Random seed: {seed}",
    ]
    gets, clears = [], []
    for stage in stages:
        time, iteration = _time(stage["duration_ns"]), f"Iteration {stage['iteration']}"
        match stage["name"]:
            case "populate":
                lines.append(f"Populate memory time: {time}")
            case "enable":
                lines += [f"Enabling dirty logging time: {time}", ""]
            case "dirty":
                lines.append(f"{iteration} dirty memory time: {time}")
            case "get-dirty-log":
                gets.append(stage["duration_ns"])
                lines.append(f"{iteration} get dirty log time: {time}")
            case "clear-dirty-log":
                clears.append(stage["duration_ns"])
                lines.append(f"{iteration} clear dirty log time: {time}")
            case "disable":
                lines.append(f"Disabling dirty logging time: {time}")
    for what, times in (("Get", gets), ("Clear", clears)):
        if times:
            total, average = _time(sum(times)), _time(sum(times) // len(times))
            lines.append(f"{what} dirty log over {len(times)} iterations took {total}. (Avg {average}/iteration)")
    return lines


#: Scenario -> the function that makes its lines of a configuration, a seed and the stages of one order.
_SELFTESTS: Final[dict[str, Callable[[dict[str, Any], int, list[dict[str, Any]]], list[str]]]] = {
    "kvm-page-table-test": _page_table_test,
    "dirty-log-perf": _dirty_log_perf_test,
}


def _mode(config: dict[str, Any]) -> str:
    granule = format_size(config["granule_bytes"])
    return f"PA-bits:{config['ipa_bits']},  VA-bits:{_VA_BITS}, {granule:>3} pages"


def _granularity(config: dict[str, Any]) -> int:
    """Bytes of one page of the backing, which the selftest calls a large page."""
    backing = Backing(config["backing"])
    if backing in HUGETLB:
        return HUGETLB[backing][1]
    if backing is Backing.ANONYMOUS:
        return int(config["granule_bytes"])
    # A huge page is a level-2 block: each entry of the level-3 table below it maps a granule.
    return int(config["granule_bytes"]) ** 2 // 8


def _time(ns: int) -> str:
    """A time in seconds, formatted as C's ``%ld.%.9lds``."""
    return f"{ns // 10**9}.{ns % 10**9:09d}s"
