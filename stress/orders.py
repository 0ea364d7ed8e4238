"""Rebuild orders as data: the steps, the named orders, and how an order is written.

An order says in which sequence a table entry becomes a block entry. Executors interpret the tuple of steps;
nothing here executes anything, and deliberately wrong orders are welcome (the oracle catches them).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from stress.errors import UsageError
from stress.guess import did_you_mean

#: The most steps one order may have: the width of the per-step records in shared memory.
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
    UNMAP_UNLOCKED = "unmap-unlocked"
    TLBI_IPA = "tlbi-ipa"

    @property
    def code(self) -> int:
        """The step's index in `STEPS`."""
        return STEPS.index(self)

    @property
    def description(self) -> str:
        """What the step does, in one line."""
        return _DESCRIPTIONS[self]


STEPS: Final = tuple(Step)

#: The steps that make the entry a block: an order has exactly one of them.
INSTALLS: Final = (Step.INSTALL, Step.INSTALL_NT)

#: The steps that free the old tables: an order has at most one of them.
TEAR_DOWNS: Final = (Step.UNMAP, Step.UNMAP_DEFERRED, Step.UNMAP_UNLOCKED)

#: The steps that free them outside of mmu_lock, where walkers that take no lock may still read them.
OUTSIDE_LOCK: Final = (Step.UNMAP_DEFERRED, Step.UNMAP_UNLOCKED)

#: The steps that clean memory to the Point of Coherency.
CLEANS: Final = (Step.CLEAN, Step.CLEAN_UNMAPPED)

_DESCRIPTIONS: Final = {
    Step.INVALIDATE: "store an invalid descriptor over the table entry",
    Step.TLBI: "invalidate the VMID's TLB entries everywhere and wait for completion (TLBI, DSB)",
    Step.CLEAN: "clean the block's D-cache range to PoC, then invalidate the I-cache; a no-op with FWB",
    Step.INSTALL: "store-release the block descriptor",
    Step.UNMAP: "visit the detached tables, drop a reference per counted entry, free the table pages",
    Step.CLEAN_UNMAPPED: "clean only the pages that the old tables did not map; nothing if they were full",
    Step.INSTALL_NT: "store-release the block descriptor with nT set (FEAT_BBM level 1)",
    Step.CLEAR_NT: "store the block descriptor again, without nT",
    Step.UNMAP_DEFERRED: "unmap, but the table pages are freed after an RCU grace period",
    Step.UNMAP_UNLOCKED: "unmap after mmu_lock was dropped, by the rebuilder",
    Step.TLBI_IPA: "invalidate the TLB entries of one page's IPA only, which is not enough",
}


@dataclass(frozen=True, slots=True)
class Order:
    """A rebuild order: name, steps, where it comes from, and what it is, in one line each."""

    name: str
    steps: tuple[Step, ...]
    provenance: str
    description: str

    @property
    def codes(self) -> tuple[int, ...]:
        """The steps' integer codes."""
        return tuple(step.code for step in self.steps)

    @property
    def bbm_level(self) -> int:
        """The least FEAT_BBM level under which the steps can be correct (DDI 0487 D8.14.1): 0, 1 or 2."""
        for step in self.steps:
            if step is Step.INVALIDATE:
                return 0
            if step in INSTALLS:
                return 1 if step is Step.INSTALL_NT else 2
        return 0


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
    steps=(Step.CLEAN, Step.INVALIDATE, Step.TLBI, Step.INSTALL, Step.UNMAP_UNLOCKED),
    provenance="proposed by this project",
    description="clean-first with the tear-down after mmu_lock is dropped",
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
    provenance="RFC of January 2021 (FEAT_BBM level 2)",
    description="no break: the CPU copes with both sizes in its TLBs",
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
        NT,
        BBML2,
    )
}


def vocabulary() -> str:
    """The names and steps an order may be written with, in one line."""
    return f"use one of {', '.join(NAMED_ORDERS)}, or a list of the steps {','.join(STEPS)}"


def parse_order(text: str) -> Order:
    """The order that ``text`` names or lists (``"invalidate,tlbi,install,unmap"``).

    A list keeps its own (normalised) text as its name, also when its steps are those of a named order.
    Raises `UsageError` for an unknown name or step, a repeated step, no install or two, two tear-downs, a
    ``clear-nt`` without ``install-nt`` before it, a step after ``unmap-unlocked``, or nothing at all.
    """
    named = NAMED_ORDERS.get(text.strip())
    if named is not None:
        return named
    words = [word.strip() for word in text.split(",")]
    shown = repr(text if len(text) <= 80 else text[:77] + "...")
    if words == [""]:
        raise UsageError("the order is empty", vocabulary())
    unknown = [word for word in words if word not in STEPS]
    if unknown and len(words) == 1:
        raise UsageError(f"unknown order {shown}", did_you_mean(words[0], NAMED_ORDERS, vocabulary()))
    if unknown:
        hint = did_you_mean(unknown[0], STEPS, vocabulary())
        raise UsageError(f"order {shown}: unknown step {unknown[0][:40]!r}", hint)
    steps = tuple(Step(word) for word in words)
    repeated = [step.value for index, step in enumerate(steps) if step in steps[:index]]
    if repeated:
        raise UsageError(f"order {shown}: step {repeated[0]!r} appears twice", vocabulary())
    nonsense = _nonsense(steps)
    if nonsense:
        raise UsageError(f"order {shown}: {nonsense}", vocabulary())
    return Order(
        name=",".join(steps),
        steps=steps,
        provenance="the command line or a config",
        description="custom steps",
    )


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
    if Step.UNMAP_UNLOCKED in steps[:-1]:
        return "'unmap-unlocked' comes after mmu_lock was dropped: make it the last step"
    if len(steps) > MAX_STEPS:
        return f"{len(steps)} steps, at most {MAX_STEPS} fit"
    return ""
