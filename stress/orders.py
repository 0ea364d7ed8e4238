"""Orders as data: the steps, the named orders, and how an order is written.

A rebuild order says in which sequence a table entry becomes a block entry, a split order the other way round. Executors
interpret the tuple of steps; nothing here executes anything, and deliberately wrong orders are welcome (the oracle
catches them).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import permutations
from typing import Final

from stress.errors import UsageError
from stress.guess import did_you_mean

#: The most steps one order may be written with; no step may stand in it twice.
MAX_STEPS: Final = 16
#: The most orders one run may compare: each has two counter slots, one more is for all else, and 16 bits name a slot.
MAX_ORDERS: Final = (1 << 15) - 1


class Step(StrEnum):
    """One element of an order. Declaration order gives the integer codes that compiled code uses."""

    INVALIDATE = "invalidate"
    TLBI = "tlbi"
    CLEAN = "clean"
    INSTALL = "install"
    UNMAP = "unmap"
    CLEAN_UNMAPPED = "clean-unmapped"
    INSTALL_NT = "install-nt"
    CLEAR_NT = "clear-nt"
    UNMAP_DEFERRED = "unmap-deferred"
    TLBI_IPA = "tlbi-ipa"
    LOCK = "lock"
    UNLOCK = "unlock"
    BUILD = "build"
    LINK = "link"

    @property
    def code(self) -> int:
        """The step's index in `STEPS`."""
        return STEPS.index(self)

    @property
    def facts(self) -> Facts:
        """What the step is."""
        return FACTS[self]


class Scope(StrEnum):
    """What a TLBI invalidates."""

    VMID = "vmid"
    IPA = "ipa"


@dataclass(frozen=True, slots=True)
class Facts:
    """What a step is: all that checks, rewrites, labels and drawings know of it. `does` says it in one line."""

    does: str
    #: A walk that begins after the step does not reach what the entry held: a table, or the block that is split.
    unlinks: bool = False
    #: The step begins the time in which the entry is invalid.
    opens: bool = False
    #: The step makes the entry a block, and so ends that time. A rebuild order has exactly one such step.
    installs: bool = False
    #: The step writes the table that takes a block's place. A split order has exactly one such step,
    builds: bool = False
    #: and one that makes the entry point to that table.
    links: bool = False
    #: The step frees the old tables. An order has at most one such step.
    tears_down: bool = False
    #: The table pages are freed after a grace period, by others.
    deferred: bool = False
    #: The step cleans memory to the Point of Coherency.
    cleans: bool = False
    #: What the step invalidates in the TLBs; None: nothing.
    tlbi: Scope | None = None
    #: The least FEAT_BBM level under which the step may replace a valid entry (DDI 0487 D8.14.1).
    bbm_level: int = 0
    #: The step may stand before `lock` or after `unlock`: it neither stores to the entry nor reads a linked table.
    outside_lock: bool = False
    #: The step is done once for all entries of a batch, not for one after the other.
    together: bool = False


FACTS: Final = {
    Step.INVALIDATE: Facts("store an invalid descriptor over the table entry", unlinks=True, opens=True),
    Step.TLBI: Facts(
        "invalidate the VMID's TLB entries everywhere and wait for completion (TLBI, DSB)",
        tlbi=Scope.VMID,
        outside_lock=True,
        together=True,
    ),
    Step.CLEAN: Facts(
        "clean the block's D-cache range to PoC, then invalidate the I-cache; a no-op with FWB",
        cleans=True,
        outside_lock=True,
    ),
    Step.INSTALL: Facts("store-release the block descriptor", unlinks=True, installs=True, bbm_level=2),
    Step.UNMAP: Facts(
        "visit the detached tables, drop a reference per counted entry, free the table pages",
        tears_down=True,
        outside_lock=True,
    ),
    Step.CLEAN_UNMAPPED: Facts(
        "clean only the pages that the old tables did not map; nothing if they were full", cleans=True
    ),
    Step.INSTALL_NT: Facts(
        "store-release the block descriptor with nT set (FEAT_BBM level 1)", unlinks=True, installs=True, bbm_level=1
    ),
    Step.CLEAR_NT: Facts("store the block descriptor again, without nT"),
    Step.UNMAP_DEFERRED: Facts(
        "unmap, but the table pages are freed after an RCU grace period",
        tears_down=True,
        deferred=True,
        outside_lock=True,
    ),
    Step.TLBI_IPA: Facts(
        "invalidate the TLB entries of one IPA: enough for a block that is split, not for a table",
        tlbi=Scope.IPA,
        outside_lock=True,
    ),
    Step.LOCK: Facts(
        "take mmu_lock and look again: if the entry or the host's mapping moved, begin anew", together=True
    ),
    Step.UNLOCK: Facts("give mmu_lock back", together=True),
    Step.BUILD: Facts("write every entry of the new table: pages, or none where faults map them", builds=True),
    Step.LINK: Facts("store-release the table descriptor", links=True, unlinks=True, bbm_level=2),
}

STEPS: Final = tuple(Step)


def steps_that(holds: Callable[[Facts], object]) -> tuple[Step, ...]:
    """The steps whose facts fulfil a condition."""
    return tuple(step for step in STEPS if holds(FACTS[step]))


def mask_of(holds: Callable[[Facts], object]) -> int:
    """The same as a mask of step codes, for compiled code."""
    return sum(1 << step.code for step in steps_that(holds))


INSTALLS: Final = steps_that(lambda facts: facts.installs)
TEAR_DOWNS: Final = steps_that(lambda facts: facts.tears_down)
CLEANS: Final = steps_that(lambda facts: facts.cleans)
#: The steps of rebuild orders, and those of split orders.
REBUILD_STEPS: Final = steps_that(lambda facts: not (facts.builds or facts.links))
SPLIT_STEPS: Final = steps_that(lambda facts: facts.builds or facts.links or facts.opens or facts.tlbi)

#: Words that stand for several steps in a list.
SPELLINGS: Final = {"unmap-unlocked": (Step.UNLOCK, Step.UNMAP)}


@dataclass(frozen=True, slots=True)
class StepList:
    """An order of either kind: name, steps, where it comes from, and what it is, in one line each."""

    name: str
    steps: tuple[Step, ...]
    provenance: str
    description: str

    @property
    def bbm_level(self) -> int:
        """The least FEAT_BBM level under which the steps can be correct (DDI 0487 D8.14.1): 0, 1 or 2."""
        first = next((step for step in self.steps if step.facts.unlinks), None)
        return first.facts.bbm_level if first else 0


@dataclass(frozen=True, slots=True)
class Order(StepList):
    """A rebuild order."""

    @property
    def executed(self) -> tuple[Step, ...]:
        """The steps with the ones that take and give back mmu_lock, which an order may leave out at its ends."""
        before = () if Step.LOCK in self.steps else (Step.LOCK,)
        after = () if Step.UNLOCK in self.steps else (Step.UNLOCK,)
        return (*before, *self.steps, *after)

    @property
    def first(self) -> int:
        """Index in `executed` of the first step that is written."""
        return 0 if Step.LOCK in self.steps else 1

    @property
    def codes(self) -> tuple[int, ...]:
        """The integer codes of `executed`."""
        return tuple(step.code for step in self.executed)

    @property
    def tears_down(self) -> bool:
        """Whether the order frees the old tables."""
        return any(step.facts.tears_down for step in self.steps)

    @property
    def tears_down_late(self) -> bool:
        """Whether the old tables are freed outside of mmu_lock, where walkers that take no lock may still read them."""
        unlocked = self.executed[self.executed.index(Step.UNLOCK) :]
        return any(step.facts.tears_down and (step.facts.deferred or step in unlocked) for step in self.steps)

    @property
    def tears_down_locked(self) -> bool:
        """Whether the old tables are freed under mmu_lock, which others wait for meanwhile."""
        locked = self.executed[: self.executed.index(Step.UNLOCK)]
        return any(step.facts.tears_down and not step.facts.deferred for step in locked)

    @property
    def tears_down_broken(self) -> bool:
        """Whether that is done while the entry is invalid, which who is given mmu_lock in between will find."""
        at = [i for i, step in enumerate(self.steps) if step.facts.tears_down]
        before = self.steps[: at[0]] if at else ()
        return self.tears_down_locked and Step.INVALIDATE in before and not any(s.facts.installs for s in before)

    @property
    def holds_throughout(self) -> bool:
        """Whether mmu_lock is held from the first step to the last."""
        return self.executed[0] is Step.LOCK and self.executed[-1] is Step.UNLOCK

    @property
    def looks_again(self) -> bool:
        """Whether steps stand before `lock`, so that what they worked on may have moved."""
        return self.executed[0] is not Step.LOCK


UNMAP_FIRST: Final = Order(
    name="unmap-first",
    steps=(Step.INVALIDATE, Step.TLBI, Step.UNMAP, Step.CLEAN, Step.INSTALL),
    provenance="Linux 5.10 to 6.1 (stage2_map_walk_table_pre); the clean stands here since 5.14",
    description="tears the old tables down inside the window, then installs the block",
)

BLOCK_FIRST: Final = Order(
    name="block-first",
    steps=(Step.INVALIDATE, Step.TLBI, Step.CLEAN, Step.INSTALL, Step.UNMAP),
    provenance="RFC of 2021 with the CMO its review demanded; steps, not locking, of Linux 6.2 on (5c359cca1faf)",
    description="installs the block, then tears the old tables down; cleans inside the window",
)

CLEAN_FIRST: Final = Order(
    name="clean-first",
    steps=(Step.CLEAN, Step.INVALIDATE, Step.TLBI, Step.INSTALL, Step.UNMAP),
    provenance="proposed by this project",
    description="block-first with the clean taken out of the window: nothing is invalid yet",
)

CLEAN_UNMAPPED_FIRST: Final = Order(
    name="clean-unmapped-first",
    steps=(Step.CLEAN_UNMAPPED, Step.INVALIDATE, Step.TLBI, Step.INSTALL, Step.UNMAP),
    provenance="proposed by this project",
    description="clean-first that leaves out the pages cleaned when they were mapped",
)

BLOCK_FIRST_DEFERRED: Final = Order(
    name="block-first-deferred",
    steps=(Step.INVALIDATE, Step.TLBI, Step.CLEAN, Step.INSTALL, Step.UNMAP_DEFERRED),
    provenance="Linux 6.2 on (5c359cca1faf)",
    description="block-first; RCU frees the tables, nobody waits for it",
)

CLEAN_FIRST_UNLOCKED: Final = Order(
    name="clean-first-unlocked",
    steps=(Step.CLEAN, Step.INVALIDATE, Step.TLBI, Step.INSTALL, Step.UNLOCK, Step.UNMAP),
    provenance="proposed by this project",
    description="clean-first with the tear-down after mmu_lock is dropped",
)

CLEAN_UNLOCKED: Final = Order(
    name="clean-unlocked",
    steps=(Step.CLEAN, Step.LOCK, Step.INVALIDATE, Step.TLBI, Step.INSTALL, Step.UNLOCK, Step.UNMAP),
    provenance="proposed by this project",
    description="clean-first-unlocked with the clean before mmu_lock is taken",
)

NT: Final = Order(
    name="nt",
    steps=(Step.CLEAN, Step.INSTALL_NT, Step.TLBI, Step.CLEAR_NT, Step.UNMAP),
    provenance="RFC of January 2021 (FEAT_BBM level 1)",
    description="no break: the nT bit keeps the block out of the TLBs until the TLBI",
)

BBML2: Final = Order(
    name="bbml2",
    steps=(Step.CLEAN, Step.INSTALL, Step.TLBI, Step.UNMAP),
    provenance="RFC of January 2021 (FEAT_BBM level 2); Linux uses BBML2_NOABORT for stage 1 alone",
    description="no break: TLBs may hold both sizes until the TLBI; at level 2 that may abort, at level 3 not",
)

#: Every named order, in the order in which they are printed.
NAMED_ORDERS: Final = {
    order.name: order
    for order in (
        UNMAP_FIRST,
        BLOCK_FIRST,
        CLEAN_FIRST,
        CLEAN_UNMAPPED_FIRST,
        BLOCK_FIRST_DEFERRED,
        CLEAN_FIRST_UNLOCKED,
        CLEAN_UNLOCKED,
        NT,
        BBML2,
    )
}


def vocabulary() -> str:
    """The names and steps an order may be written with, in one line."""
    return choice_of(NAMED_ORDERS, (*REBUILD_STEPS, *SPELLINGS))


def choice_of(named: Iterable[str], steps: Iterable[str]) -> str:
    """What there is to choose from, in one line."""
    return f"use one of {', '.join(named)}, or a list of the steps {','.join(steps)}"


def parse_order(text: str) -> Order:
    """The order that ``text`` names or lists (``"invalidate,tlbi,install,unmap"``).

    A list keeps its own (normalised) text as its name, also when its steps are those of a named order.
    Raises `UsageError` for an unknown name or step, a repeated step, nothing, or what no executor could follow.
    """
    known = {step.value: (step,) for step in REBUILD_STEPS} | SPELLINGS
    return NAMED_ORDERS.get(text.strip()) or Order(
        *read_steps("order", text, NAMED_ORDERS, known, _nonsense), *SOMEBODYS
    )


#: Provenance and description of an order that has no name of its own.
SOMEBODYS: Final = ("the command line or a config", "custom steps")


def read_steps(
    what: str,
    text: str,
    named: Mapping[str, StepList],
    known: Mapping[str, tuple[Step, ...]],
    nonsense: Callable[[tuple[Step, ...]], str],
) -> tuple[str, tuple[Step, ...]]:
    """Name and steps of a list of the words ``known``, which say no ``nonsense``. Raises `UsageError`."""
    remedy = choice_of(named, known)
    words = [word.strip() for word in text.split(",")]
    shown = repr(text if len(text) <= 80 else text[:77] + "...")
    if words == [""]:
        raise UsageError(f"the {what} is empty", remedy)
    unknown = [word for word in words if word not in known]
    if unknown and (order := named.get(unknown[0])):
        alone = f"name it alone, or write its steps, {','.join(order.steps)}"
        raise UsageError(f"{what} {shown}: {order.name!r} is an order, not a step", alone)
    if unknown:
        wrong = f"unknown {what} {shown}" if len(words) == 1 else f"{what} {shown}: unknown step {unknown[0][:40]!r}"
        raise UsageError(wrong, did_you_mean(unknown[0], (*named, *known), remedy))
    steps = tuple(step for word in words for step in known[word])
    repeated = [step.value for index, step in enumerate(steps) if step in steps[:index]]
    if why := f"step {repeated[0]!r} appears twice" if repeated else nonsense(steps):
        raise UsageError(f"{what} {shown}: {why}", remedy)
    return ",".join(words), steps


def enumerate_orders(vocabulary_: Iterable[Step]) -> Iterator[tuple[Step, ...]]:
    """Every order that can be written with some of these steps, each at most once: shorter ones first."""
    yield from lists_of(tuple(vocabulary_), _nonsense)


def lists_of(steps: tuple[Step, ...], nonsense: Callable[[tuple[Step, ...]], str]) -> Iterator[tuple[Step, ...]]:
    """Every list of some of these steps, each at most once, that says no ``nonsense``: shorter ones first."""
    for length in range(1, len(steps) + 1):
        yield from (each for each in permutations(steps, length) if not nonsense(each))


def _nonsense(steps: tuple[Step, ...]) -> str:
    """Why no executor could follow these steps, although it can follow wrong ones; "" if it can."""
    installs = [step for step in steps if step in INSTALLS]
    tear_downs = [step for step in steps if step in TEAR_DOWNS]
    if not installs:
        return "without 'install' or 'install-nt' nothing is rebuilt"
    if len(installs) > 1:
        return f"{' and '.join(map(repr, map(str, installs)))} install the block twice; keep one of them"
    if Step.CLEAR_NT in steps and Step.INSTALL_NT not in steps[: steps.index(Step.CLEAR_NT)]:
        return "'clear-nt' needs 'install-nt' before it"
    if len(tear_downs) > 1:
        return f"{' and '.join(map(repr, map(str, tear_downs)))} free the tables twice; keep one of them"
    before = steps[: steps.index(Step.LOCK)] if Step.LOCK in steps else ()
    after = steps[steps.index(Step.UNLOCK) + 1 :] if Step.UNLOCK in steps else ()
    if Step.UNLOCK in before:
        return "'unlock' stands before 'lock'; mmu_lock is taken once and given back once"
    early = [step for step in before if not step.facts.outside_lock or step.facts.tears_down]
    if early:
        return f"'{early[0]}' needs mmu_lock: put it behind 'lock'"
    late = [step for step in after if not step.facts.outside_lock]
    if late:
        return f"'{late[0]}' needs mmu_lock: put it before 'unlock'"
    return ""
