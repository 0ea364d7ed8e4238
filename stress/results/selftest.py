"""The lines that KVM's selftests print, so that a result here can be laid beside one from hardware.

Formats: tools/testing/selftests/kvm/kvm_page_table_test.c (Linux 5.13 on), dirty_log_perf_test.c and
lib/kvm_util.c's vm_guest_mode_string. What has no counterpart here (the host virtual offset) is left out.
"""

from __future__ import annotations

from typing import Any, Final

from stress.results.stages import passes, typical
from stress.units import SIZE_UNITS, format_size

#: Names of lib/test_util.c's vm_mem_backing_src_alias.
_BACKINGS: Final = {
    "anonymous": "anonymous",
    "thp": "anonymous_thp",
    "hugetlb-2m": "anonymous_hugetlb_2mb",
    "hugetlb-1g": "anonymous_hugetlb_1gb",
}
#: Every guest mode with stage-2 tables as ours has this width of virtual addresses.
_VA_BITS: Final = 48


def selftest_lines(document: dict[str, Any]) -> str:
    """What the selftest of the document's scenario would have printed; empty for any other scenario."""
    if document["scenario"] == "kvm-page-table-test":
        lines = _page_table_test(document["config"], typical(document))
    elif document["scenario"] == "dirty-log-perf":
        lines = _dirty_log_perf_test(document["config"], typical(document))
    else:
        return ""
    text = "\n".join(lines).strip("\n")
    count = passes(document)
    return text if count in ("0 passes", "1 pass") else f"{text}\n\nEach time is the median of {count}."


def _page_table_test(config: dict[str, Any], stages: list[dict[str, Any]]) -> list[str]:
    lines = [
        f"Testing guest mode: {_mode(config)}",
        f"Testing memory backing src type: {_BACKINGS[config['backing']]}",
        f"Testing memory backing src granularity: {_granularity(config):#x}",
        f"Testing memory size(aligned): {config['memory_bytes']:#x}",
        f"Guest physical test memory offset: {config['phys_offset_bytes']:#x}",
        f"Number of testing vCPUs: {config['vcpus']}",
    ]
    for stage in stages:
        lines += [f"{stage['name']}: total execution time: {_time(stage['duration_ns'])}", ""]
    return lines


def _dirty_log_perf_test(config: dict[str, Any], stages: list[dict[str, Any]]) -> list[str]:
    start = config["phys_offset_bytes"]
    lines = [
        f"Test iterations: {config['iterations']}",
        f"Testing guest mode: {_mode(config)}",
        f"guest physical test memory: [{start:#x}, {start + config['memory_bytes']:#x})",
    ]
    harvests = []
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
                harvests.append(stage["duration_ns"])
                lines.append(f"{iteration} get dirty log time: {time}")
            case "disable":
                lines.append(f"Disabling dirty logging time: {time}")
    if harvests:
        total, average = _time(sum(harvests)), _time(sum(harvests) // len(harvests))
        lines.append(f"Get dirty log over {len(harvests)} iterations took {total}. (Avg {average}/iteration)")
    return lines


def _mode(config: dict[str, Any]) -> str:
    granule = format_size(config["granule_bytes"])
    return f"PA-bits:{config['ipa_bits']},  VA-bits:{_VA_BITS}, {granule:>3} pages"


def _granularity(config: dict[str, Any]) -> int:
    """Bytes of one page of the backing, which is what the selftest calls a large page."""
    match config["backing"]:
        case "anonymous":
            return int(config["granule_bytes"])
        case "hugetlb-2m":
            return 2 * SIZE_UNITS["M"]
        case "hugetlb-1g":
            return SIZE_UNITS["G"]
    # A huge page is a level-2 block: each entry of the level-3 table below it maps a granule.
    return int(config["granule_bytes"]) ** 2 // 8


def _time(ns: int) -> str:
    """As ``%ld.%.9lds``."""
    return f"{ns // 10**9}.{ns % 10**9:09d}s"
