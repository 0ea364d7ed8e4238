"""`stress verify` behind its options: orders explored, counterexamples played, all of it in words."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from stress.bugs import BUGS, Bug
from stress.errors import ExitCode, UsageError, weightiest
from stress.orders import Order, parse_order
from stress.results.counterexamples import DrawTable, Timeline
from stress.results.data import TraceData
from stress.splits import parse_split_order
from stress.units import parse_size
from stress.verify.accesses import Livelock
from stress.verify.columns import RULES, Columns
from stress.verify.example_trace import trace_of
from stress.verify.hooks import Hooks
from stress.verify.replay import follow, read, simplify, stage
from stress.verify.scene import Bounds, check
from stress.verify.showing import RUN_ALONE
from stress.verify.stops import Shared
from stress.verify.verification import SIGHTS, Counterexample, Judgement, Scheduler, Verified, verify

#: Names of locking, rebuilder and recovery, as `stress run` has them.
SHARED, VCPU, IOCTL = "shared", "vcpu", "ioctl"

_CODES = {
    Judgement.PROVED: ExitCode.OK,
    Judgement.VIOLATION: ExitCode.CHECK_FAILED,
    Judgement.UNFINISHED: ExitCode.BROKEN,
}


def bounds_for(order: Order, options: Mapping[str, Any], bug: Bug | None) -> Bounds:
    """The bounds asked for; what was left open is what the order needs. Raises `UsageError`."""
    cleans = any(step.facts.cleans for step in order.steps)
    fwb = options["fwb"] if options["fwb"] is not None else not cleans
    caches = options["guest_caches"] if options["guest_caches"] is not None else fwb
    split = parse_split_order(options["split_order"])
    needed = max(parse_order(order.name).bbm_level, split.bbm_level)  # without the bug, which may have left out a break
    level = options["bbm_level"] if options["bbm_level"] is not None else needed
    bounds = Bounds(
        scenario=options["scenario"],
        vcpus=options["vcpus"],
        pages=options["pages"],
        populated=options["populated"],
        accesses=options["accesses"],
        fwb=fwb,
        guest_caches=caches,
        bbm_level=level,
        shared=options["locking"] == SHARED,
        vcpu_rebuilds=options["rebuilder"] == VCPU,
        recovers=options["recover"] == IOCTL,
        split_order=split.name,
        yield_every=options["yield_every"],
        batch=options["batch"],
        inject=bug.flag if bug else 0,
        granule=parse_size(options["granule"]),
        tso=options["memory"] == "tso",
        speculating=options["speculating"] if options["speculation"] else 0,
    )
    check(bounds, order)
    return bounds


def orders_for(names: Sequence[str], inject: str | None) -> tuple[list[Order], Bug | None]:
    """The orders to verify, with the bug in their steps if it is one of steps. Raises `UsageError`."""
    orders = [parse_order(name) for name in names]
    if inject is None:
        return orders, None
    bug = BUGS[inject]
    if inject in RUN_ALONE:
        raise UsageError(
            f"{inject} is in the accounts, which are explored by nobody: nothing depends on them",
            f"use stress run --inject {inject}",
        )
    harmless = [order.name for order in orders if not bug.affects(order)]
    if harmless:
        raise UsageError(f"{inject} cannot act under {harmless[0]}", "leave the order out, or choose another bug")
    return [bug.rewrite(order) for order in orders], bug


def play(hooks: Hooks, order: Order, example: Counterexample) -> Timeline:
    """The timeline of a counterexample, and what it breaks."""
    columns = Columns(stage(hooks, order, example))
    columns.play(example.choices)
    rules = [f"{kind}: {RULES[kind]}" for kind in example.kinds if kind in RULES]
    return Timeline(in_words(example.bounds), len(columns.names), columns.header, columns.rows, rules)


def replay(path: Path, table: DrawTable, emit: Callable[[str], None]) -> int:
    """Play kept counterexamples; 1 if they still break what they broke."""
    codes = []
    for order, example in read(path):
        with Hooks() as hooks:
            emit(f"{order.name}: {', '.join(example.kinds)}\n")
            try:
                found = follow(stage(hooks, order, example), example.choices).kinds
                emit(play(hooks, order, example).drawn(table))
            except (Shared, Livelock):  # the words before whose accesses actors stopped are others by now
                found = frozenset()
        gone = sorted(set(example.kinds) - found)
        if gone:
            emit(f"not found again: {', '.join(gone)}; the program changed since the file was written\n")
        else:
            emit(f"found again: {', '.join(sorted(found))}\n")
        codes.append(ExitCode.BROKEN if gone else ExitCode.CHECK_FAILED)
    return weightiest(codes)


def traced(example: Counterexample) -> TraceData:
    """The trace of a counterexample. Raises `UsageError`."""
    with Hooks() as hooks:
        return trace_of(hooks, parse_order(example.order), example)


def verify_one(
    order: Order, bounds: Bounds, limit_ns: int | None, scheduler: str, seed: int
) -> tuple[Verified, Timeline | None]:
    """Verify an order; what was found, and its counterexample made simpler."""
    with Hooks() as hooks:
        verified = verify(hooks, order, bounds, limit_ns, Scheduler(scheduler), seed)
        if verified.counterexample is None:
            return verified, None
        verified.counterexample = simplify(hooks, order, verified.counterexample)
        return verified, play(hooks, order, verified.counterexample)


def verify_orders(
    orders: Sequence[Order],
    bounds: Sequence[Bounds],
    how: tuple[int | None, str, int],
    jobs: int,
    told: Callable[[Verified, Timeline | None], None],
) -> tuple[list[Verified], int]:
    """Verify orders, up to ``jobs`` at a time, telling of each in turn; what was found, and the exit code.

    ``how`` is the limit in ns, the scheduler and the seed.
    """
    results = []
    for verified, timeline in _each(orders, bounds, how, min(jobs, len(orders))):
        told(verified, timeline)
        results.append(verified)
    return results, weightiest(_CODES[each.judgement] for each in results)


def _each(
    orders: Sequence[Order], bounds: Sequence[Bounds], how: tuple[int | None, str, int], jobs: int
) -> Iterator[tuple[Verified, Timeline | None]]:
    if jobs == 1:
        for order, its in zip(orders, bounds, strict=True):
            yield verify_one(order, its, *how)
        return
    with ProcessPoolExecutor(jobs, get_context("fork")) as pool:
        yield from pool.map(verify_one, orders, bounds, *([each] * len(orders) for each in how))


def in_words(bounds: Bounds) -> str:
    """The bounds in one line."""
    speculation = (
        f"one walk by itself of {'each' if bounds.speculating >= bounds.vcpus else 'one'} vCPU"
        if bounds.speculating
        else "no speculation"
    )
    beside = f", beside {bounds.speculating - 1 or 'no'} other" if 0 < bounds.speculating < bounds.vcpus else ""
    caches = f"guest caches {'on' if bounds.guest_caches else 'off'}"
    yields = f", given up in tear-downs (--yield-every {bounds.yield_every})" if bounds.yield_every else ""
    parts = (
        bounds.scenario,
        f"{counted(bounds.vcpus, 'vCPU', 's')} with {counted(bounds.accesses, 'access', 'es')} each",
        f"{f'{bounds.batch} blocks of ' if bounds.batch > 1 else ''}{bounds.pages} pages, {bounds.populated} mapped",
        "FWB" if bounds.fwb else f"no FWB, {caches}",
        f"FEAT_BBM level {bounds.bbm_level}",
        f"mmu_lock {'shared' if bounds.shared else 'exclusive'}{yields}",
        f"{'a vCPU' if bounds.vcpu_rebuilds else 'the hypervisor'} rebuilds",
        *(["who stops logging recovers"] if bounds.recovers else []),
        f"blocks split {bounds.split_order}",
        "x86-TSO" if bounds.tso else "sequential consistency",
        speculation + beside,
    )
    return ", ".join(parts)


def counted(count: int, what: str, plural: str) -> str:
    """``1 vCPU``, ``2 vCPUs``."""
    return f"{count} {what}{plural if count != 1 else ''}"


def seen_in_words(verified: Verified) -> str:
    """What its schedules had in them: in how many there was what."""
    return ", ".join(f"{sight} {verified.seen[sight]}" for sight in SIGHTS if verified.seen[sight]) or "nothing"
