"""The closed set of warnings a result may carry, each with what it means and what to do about it."""

from __future__ import annotations

from enum import StrEnum


class RunWarning(StrEnum):
    """One reason to trust a result less. The value is the name in the JSON document."""

    description: str
    remedy: str

    def __new__(cls, value: str, description: str = "", remedy: str = "") -> RunWarning:
        """A member that is its own name and carries two sentences."""
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
        "allow it with --bbm-level (1 for nt, 2 for bbml2), or name a platform that has it (--platform)",
    )
    SAMPLED = (
        "sampled",
        "rebuilds were too many to keep each one: quantiles, maxima and ratios come from a uniform sample",
        "nothing to do for typical values; for the exact maximum limit the run with --rebuilds",
    )
    TRACED = (
        "traced",
        "every change of the page table was written down as it happened: whoever made it took longer",
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
    LOAD = (
        "load",
        "the host was busy when the run started",
        "stop other work on this machine and run again",
    )
