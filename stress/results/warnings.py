"""The closed set of warnings a result may carry: what each means, what to do about it, and which results have it."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Any, Final

from stress.executors import PREDICT
from stress.orders import StepList, parse_order
from stress.results import cells
from stress.results.data import COUNTERS, INSIDE, RunData
from stress.results.ratios import MIN_CYCLES
from stress.results.schema import RATIOS
from stress.splits import parse_split_order

#: A p99 of fewer rebuilds than this is their maximum.
_SHORT_RUN: Final = 100
#: An interval that contains 1 and spans more than this factor says nothing about which order is better.
_WIDE: Final = 2.0


class RunWarning(StrEnum):
    """One reason to trust a result less. The value is the name in the JSON document."""

    description: str
    remedy: str

    def __new__(cls, value: str, description: str = "", remedy: str = "") -> RunWarning:
        """A member whose value is its name in documents, with a description and a remedy."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.description = description
        member.remedy = remedy
        return member

    OVERSUBSCRIBED = (
        "oversubscribed",
        "more runnable processes than cores: a descheduled lock holder blurs windows and stalls",
        "use fewer vCPUs (--vcpus), at most the number of cores less one",
    )
    NO_MEMBARRIER = (
        "no-membarrier",
        "the kernel offers no expedited membarrier, so every guest access pays for a fence",
        "run on Linux 4.16 or later outside a sandbox that filters membarrier; throughput is not comparable",
    )
    NOISY = (
        "noisy",
        "a ratio has no interval, or one too wide to tell which order is better",
        "run longer (--duration, --rebuilds) on a quiet machine, with processes pinned (--pin)",
    )
    EVENTS_DROPPED = (
        "events-dropped",
        "fault events came faster than the collector drained them; counters and stall quantiles stay exact, "
        "the ratio of stalls does not",
        "use fewer vCPUs or a longer --dwell, so that faults come less densely",
    )
    SHORT_RUN = (
        "short-run",
        "fewer than 100 rebuilds of an order: a p99 is then no more than the maximum",
        "run longer: raise --duration, and --rebuilds where it limits the run",
    )
    JIT_DISABLED = (
        "jit-disabled",
        "kernels ran as plain Python: verdicts hold, times and rates mean nothing",
        "unset NUMBA_DISABLE_JIT",
    )
    INCOMPLETE = (
        "incomplete",
        "the run ended before it was done; everything here covers what was measured until then",
        "run again; the same --seed replays the same accesses",
    )
    NOT_OVERLAPPED = (
        "not-overlapped",
        "the vCPUs hardly ran while blocks were rebuilt: a verdict of correct says little, and hits say nothing",
        "leave a core to each process (--vcpus, --pin), stop other work on this machine",
    )
    FULL_TABLES = (
        "full-tables",
        "the guest had mapped every page again before each rebuild, so no partially populated table was rebuilt",
        "use --dwell 0ms, larger blocks or fewer accesses: the guest then leaves pages unmapped",
    )
    NOT_REBUILT = (
        "not-rebuilt",
        "tables were left because no vCPU faulted on them: a block is rebuilt only by the fault that wants it",
        "let the guest reach every block again: more writes (--write-fraction), a longer --dwell",
    )
    BBM_LEVEL = (
        "bbm-level",
        "the order needs a higher FEAT_BBM level than the platform has, where its violations are to be expected",
        "allow it with --bbm-level (1 for nt, 2 or 3 for bbml2), or name a platform that has it (--platform)",
    )
    SAMPLED = (
        "sampled",
        "rebuilds were too many to keep each one: quantiles, maxima and ratios come from a uniform sample",
        "nothing to do for typical values; for the exact maximum limit the run with --rebuilds",
    )
    TRACED = (
        "traced",
        "every change of the page table was written down as it happened, which slowed down the process that made it",
        "measure without the trace: the other formats (.json, .pftrace) cost nothing",
    )
    TRACE_CUT = (
        "trace-cut",
        "the trace holds the run's beginning only, and ends before the rebuilds asked for",
        "nothing to do if that is enough; smaller blocks (--block-size 2M) make for shorter traces",
    )
    TRACE_BEYOND_CHECKER = (
        "trace-beyond-checker",
        "the trace is right, but holds more than the checker it is written for can follow (casemate 3.0.2)",
        "use --granule 4K, at most three vCPUs (--vcpus), smaller or fewer blocks (--block-size, --blocks)",
    )
    GUESSED_COSTS = (
        "guessed-costs",
        "some of the platform's costs, which decide part of what is predicted, are guesses",
        "measure or fit them, and name your own profile (--platform FILE; stress platforms NAME lists them)",
    )
    LOAD = ("load", "the host was busy when the run started", "stop other work on this machine and run again")


def warnings(data: RunData, comparison: list[dict[str, Any]]) -> list[dict[str, str]]:
    """The executor's own warnings, then those that follow from the result, unless the executor gave one of the kind."""
    found = [(RunWarning(name), detail) for name, detail in data.warnings]
    known = {warning for warning, _ in found}
    predicted = data.executor == PREDICT  # without processes, and the same again another time
    for of in (_of_end,) if predicted else (_of_end, _of_host, _of_scenario, _of_trace, _of_numbers):
        found += [(warning, detail) for warning, detail in of(data) if warning not in known]
    if RunWarning.NOISY not in known and not data.untested and not predicted:  # else no longer run would help
        details = [detail for each in comparison for detail in _undecided(data, each)]
        found += [(RunWarning.NOISY, "; ".join(details))] if details else []
    return [
        {"name": warning.value, "detail": detail or warning.description, "remedy": warning.remedy}
        for warning, detail in found
    ]


_Found = Iterator[tuple[RunWarning, str]]


def _of_host(data: RunData) -> _Found:
    host, vcpus = data.host, data.config.get("vcpus", 0)
    cores = host.get("cores", vcpus + 1)
    if vcpus + 1 > cores:
        yield RunWarning.OVERSUBSCRIBED, f"{vcpus} vCPUs and the hypervisor on {cores} cores"
    if not host.get("membarrier", True):
        yield RunWarning.NO_MEMBARRIER, "membarrier(2) is not available"
    if not host.get("jit", True):
        yield RunWarning.JIT_DISABLED, "NUMBA_DISABLE_JIT is set"
    if host.get("load_1min", 0) > 0.5 * cores:
        yield RunWarning.LOAD, f"load {host['load_1min']} on {cores} cores"


def _of_scenario(data: RunData) -> _Found:
    orders, config = data.orders, data.config
    rebuilds = sum(each.rebuilds for each in orders)
    if data.scenario == "rebuild" and rebuilds:
        hits = sum(each.rebuilds_hit for each in orders)
        accesses = sum(each.counters[:, :, COUNTERS.index("accesses")].sum(axis=0) for each in orders)
        inside_ns, outside_ns = (sum(getattr(each, name) for each in orders) for name in ("inside_ns", "outside_ns"))
        rare = accesses[INSIDE] / max(1, inside_ns) < 0.01 * accesses.sum() / max(1, inside_ns + outside_ns)
        if config.get("rebuilder") == "hypervisor" and rare and hits < 0.01 * rebuilds:
            yield RunWarning.NOT_OVERLAPPED, f"{hits} of {rebuilds} rebuilds hit, and next to no access inside"
        least = min(each.rows["mapped_share"].min(initial=1) for each in orders)
        if config.get("populated", 1) < 1 and least == 1:
            yield RunWarning.FULL_TABLES, f"--populated {config['populated']:g} did not last"
    if data.scenario == "rebuild" and (missed := sum(each.cycle_count for each in orders) - rebuilds) > 0:
        yield RunWarning.NOT_REBUILT, f"in {missed} cycles no vCPU faulted on the table"
    asked: list[StepList] = [parse_order(name) for name in config.get("orders", ())]  # without an injected bug
    asked += [parse_split_order(config[key]) for key in ("split_order",) if key in config]
    for order in asked:
        if order.bbm_level > config["bbm_level"]:
            detail = f"{order.name} needs FEAT_BBM level {order.bbm_level}, this is {config['bbm_level']}"
            yield RunWarning.BBM_LEVEL, detail


def _of_trace(data: RunData) -> _Found:
    trace = data.trace
    if trace is None:
        return
    if trace.slowed:
        yield RunWarning.TRACED, "--trace with .casemate"
    if trace.cut:
        yield RunWarning.TRACE_CUT, trace.cut
    if trace.beyond:
        yield RunWarning.TRACE_BEYOND_CHECKER, trace.beyond


def _of_end(data: RunData) -> _Found:
    if not data.complete:
        yield RunWarning.INCOMPLETE, RunWarning.INCOMPLETE.description


def _of_numbers(data: RunData) -> _Found:
    found: dict[RunWarning, list[str]] = {}
    for each in data.orders:
        # A run without any rebuild is too short only in the scenario rebuild.
        if each.rebuilds < _SHORT_RUN and (each.rebuilds or data.scenario == "rebuild"):
            detail = f"{each.order.name}: {each.rebuilds} rebuilds, a p99 needs {_SHORT_RUN}"
            found.setdefault(RunWarning.SHORT_RUN, []).append(detail)
        if each.rows.size < each.rebuilds:
            detail = f"{each.order.name}: {each.rows.size:,} of {each.rebuilds:,} rebuilds kept"
            found.setdefault(RunWarning.SAMPLED, []).append(detail)
        if each.events_dropped:
            detail = f"{each.events_dropped:,} fault events dropped, {each.events_drained:,} kept"
            found.setdefault(RunWarning.EVENTS_DROPPED, []).append(f"{each.order.name}: {detail}")
    for warning in (RunWarning.SHORT_RUN, RunWarning.SAMPLED, RunWarning.EVENTS_DROPPED):
        if warning in found:
            yield warning, "; ".join(found[warning])


def _undecided(data: RunData, comparison: dict[str, Any]) -> list[str]:
    """Why the intervals of one comparison do not tell which order is better, in words; empty if they do."""
    pair = f"{comparison['order']} against {comparison['baseline']}"
    names = (comparison["baseline"], comparison["order"])
    fewest = min(each.cycles.size for each in data.orders if each.order.name in names)
    if fewest < MIN_CYCLES:
        return [f"{pair}: {fewest} cycle{'' if fewest == 1 else 's'}, an interval needs {MIN_CYCLES}"]
    wide = [
        f"{RATIOS[metric][1]} {cells.factor(low)}x to {cells.factor(high)}x"
        for metric, found in comparison["ratios"].items()
        if (high := found["high"]) is not None and (low := found["low"]) <= 1 <= high and high > _WIDE * low
    ]
    return [f"{pair}: too wide to tell: {', '.join(wide)}"] if wide else []
