"""One order verified: its machine's schedules explored within a budget, and what that says in words.

*Proved* means: every schedule within the bounds was seen, none has a violation, and what could go wrong was at stake.
A search that ran out of its budget proved nothing.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from itertools import pairwise
from typing import Any

from stress import interrupt
from stress.kernels.codes import CONFLICT, RETRY, WINDOW
from stress.orders import Order, parse_order
from stress.shm import accounts
from stress.splits import parse_split_order
from stress.verify.accesses import Livelock
from stress.verify.chance import Chance
from stress.verify.dpor import Dpor
from stress.verify.hooks import Hooks
from stress.verify.pct import Pct
from stress.verify.scene import Bounds, Guess, Scene
from stress.verify.scripts import SCRIPTS
from stress.verify.stops import Shared

#: So many schedules by chance in a row must find no new shared word before the exploration begins.
_QUIET = 8
#: So many schedules more are played after the first violation, for violations of other kinds and simpler schedules.
_MORE = 200
#: How long schedules by chance are played if the caller sets no limit.
_BY_CHANCE_NS = 10_000_000_000


class Scheduler(StrEnum):
    """How schedules are chosen. Schedules by chance are played until a violation is found or time is up."""

    DPOR = "dpor"
    RANDOM = "random"
    PCT = "pct"


class Judgement(StrEnum):
    """The verdicts of a verification."""

    PROVED = "proved"
    VIOLATION = "violation"
    UNFINISHED = "unfinished"


@dataclass(frozen=True, slots=True)
class Counterexample:
    """A schedule with a violation, as it can be played again."""

    order: str
    bounds: Bounds
    guess: Guess | None
    stops: tuple[int, ...]  # the shared words, before whose accesses actors stop
    choices: tuple[int, ...]
    kinds: tuple[str, ...]


@dataclass(slots=True)
class Verified:
    """The result of a verification of one order."""

    order: Order
    bounds: Bounds
    judgement: Judgement = Judgement.UNFINISHED
    why: str = ""
    remedy: str = ""
    schedules: int = 0
    elapsed_ns: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    seen: Counter[str] = field(default_factory=Counter)
    counterexample: Counterexample | None = None

    def document(self) -> dict[str, Any]:
        """The result as JSON has it."""
        return {
            "order": self.order.name,
            "steps": list(self.order.steps),
            "verdict": str(self.judgement),
            "why": self.why,
            "kinds": sorted(self.kinds),
            "bounds": asdict(self.bounds),
            "schedules": self.schedules,
            "elapsed_ns": self.elapsed_ns,
            "seen": dict(self.seen),
            "counterexample": asdict(self.counterexample) if self.counterexample else None,
        }


#: The events that a proof lists, in this order.
SIGHTS = (
    "window faults",
    "redone accesses",
    "fills before the TLBI",
    "fills after the TLBI",
    "yields",
    "restarts",
    "lost races",
    "conflict aborts",
)


def machines(bounds: Bounds) -> Iterator[tuple[Bounds, Guess | None]]:
    """The machines of an order: one without speculation, and one for each walk that hardware makes by itself."""
    yield bounds, None
    vcpus = min(bounds.speculating, bounds.vcpus)
    for vcpu in range(vcpus):
        for page in range(bounds.batch * bounds.pages):
            yield replace(bounds, vcpus=vcpus), (vcpu, page)


def explorer_of(scheduler: Scheduler, scene: Scene, seed: int) -> Dpor | Chance:
    """The explorer that chooses schedules as ``scheduler`` says."""
    if scheduler is Scheduler.DPOR:
        return Dpor(scene.world)
    return (Pct if scheduler is Scheduler.PCT else Chance)(scene.world, seed)


def look_around(scene: Scene) -> None:
    """Find out which words are shared by some schedules, so that exploration seldom has to begin anew."""
    left = _QUIET
    while left:
        try:
            for _ in (Pct if left % 2 else Chance)(scene.world, left).schedules():
                left -= 1
                break
        except Shared:
            left = _QUIET
        except Livelock:
            left -= 1  # with priorities by chance an actor may wait for ever, which is no finding


def note_sights(scene: Scene, seen: Counter[str]) -> None:
    """Count what the schedule just played had in it."""
    if scene.counted(accounts.C_FAULTS + WINDOW):
        seen["window faults"] += 1
    if scene.counted(accounts.C_REDONE):
        seen["redone accesses"] += 1
    if scene.s.totals[0, accounts.T_YIELDS]:
        seen["yields"] += 1
    if scene.s.totals[0, accounts.T_RESTARTS]:
        seen["restarts"] += 1
    if scene.counted(accounts.C_FAULTS + RETRY) or scene.s.tally[accounts.VOIDED]:
        seen["lost races"] += 1
    if scene.counted(accounts.C_FAULTS + CONFLICT):
        seen["conflict aborts"] += 1
    for filled in scene.filled:
        seen[f"fills {filled} the TLBI"] += 1


def at_stake(verified: Verified) -> str:
    """The event that an order's correctness is about and that never happened, in words; "" if none is missing."""
    script = SCRIPTS[verified.bounds.scenario]
    steps = verified.order.steps if script.rebuilds or verified.bounds.recovers else ()
    missing = []
    if any(step.facts.opens for step in steps) and not verified.seen["window faults"]:
        missing.append("no vCPU met the window")
    if script.splits:
        steps = parse_split_order(verified.bounds.split_order).steps
    invalidates = any(step.facts.tlbi for step in steps) if steps else script.invalidates
    if invalidates and not verified.seen["redone accesses"]:
        missing.append("no access was redone")
    if verified.bounds.yield_every and not verified.seen["yields"]:
        missing.append("mmu_lock was never given up in a tear-down")
    return ", ".join(missing)


def what_proves_sooner(bounds: Bounds) -> str:
    """The options with which a search that ran out of its time may come to its end; those first that give up least."""
    options = {
        "--no-speculation": bounds.speculating > 0,
        "--accesses 1": bounds.accesses > 1,
        "--vcpus 1": bounds.vcpus > 1,
        "--memory sc": bounds.tso,
        "--batch 1": bounds.batch > 1,
    }
    return " or ".join(["a longer --limit", *(option for option, helps in options.items() if helps)])


def complexity(choices: list[int], actors: int) -> tuple[int, int]:
    """How hard a schedule is to read: changes from one actor to another, then steps."""
    real = [each for each in choices if each < actors]
    return sum(one != two for one, two in pairwise(real)), len(choices)


def _written(order: Order) -> str:
    """How an order is written that has these steps, although a bug may have changed them."""
    return order.name if parse_order(order.name).steps == order.steps else ",".join(order.steps)


def verify(
    hooks: Hooks,
    order: Order,
    bounds: Bounds,
    limit_ns: int | None,
    scheduler: Scheduler = Scheduler.DPOR,
    seed: int = 1,
) -> Verified:
    """Explore an order's schedules within the bounds; without ``limit_ns`` all of them, or some by chance."""
    by_chance = scheduler is not Scheduler.DPOR
    if by_chance and limit_ns is None:
        limit_ns = _BY_CHANCE_NS
    verified = Verified(order, bounds)
    began = time.monotonic_ns()
    out_of_time = False
    best: tuple[tuple[int, int, int], Counterexample] | None = None
    places = list(machines(bounds))
    for place, (its, guess) in enumerate(places):
        share_ns = limit_ns * (place + 1) // len(places) if by_chance and limit_ns else limit_ns
        scene = Scene(hooks, order, its, guess)
        look_around(scene)
        left, unfair = _MORE, 0
        while True:
            explorer = explorer_of(scheduler, scene, seed + unfair)
            try:
                for _ in explorer.schedules():
                    verified.schedules += 1
                    found, met = scene.judge()
                    verified.kinds.update(found)
                    note_sights(scene, verified.seen)
                    if found:
                        choices = explorer.choices()
                        cost = (0 if met else 1, *complexity(choices, scene.world.actors // 2))
                        if best is None or cost < best[0]:
                            stops = tuple(sorted(scene.world.visible))
                            best = (
                                cost,
                                Counterexample(
                                    _written(order), its, guess, stops, tuple(choices), tuple(sorted(found))
                                ),
                            )
                    if best is not None:
                        left -= 1
                    late = share_ns is not None and time.monotonic_ns() - began > share_ns
                    out_of_time = late or interrupt.requested.is_set()
                    if left == 0 or out_of_time:
                        break
                break
            except Shared:
                continue  # events counted so far did happen, so they stay counted
            except Livelock as endless:
                if scheduler is Scheduler.PCT:  # its priorities are not fair: that is no finding
                    unfair += 1
                    continue
                verified.why = f"{endless} tries again for ever, and never meets what it met before"
                verified.elapsed_ns = time.monotonic_ns() - began
                return verified
        if (out_of_time and (not by_chance or interrupt.requested.is_set())) or (best is not None and best[0][0] == 0):
            break
    verified.elapsed_ns = time.monotonic_ns() - began
    if best is not None:
        verified.judgement, verified.counterexample = Judgement.VIOLATION, best[1]
    elif out_of_time:
        how = f" by chance, seed {seed}" if by_chance else ""
        verified.why = f"explored {verified.schedules} schedules{how}, proved nothing"
        if not by_chance:
            verified.remedy = f"try {what_proves_sooner(bounds)}"
    elif why := at_stake(verified):
        verified.why = f"nothing was at stake: {why}"
    else:
        verified.judgement = Judgement.PROVED
    return verified
