"""Rebuild orders as data: the steps, the named orders, and how an order is written.

An order says in which sequence a table entry becomes a block entry. Executors interpret the tuple of steps;
nothing here executes anything, and deliberately wrong orders are welcome (the oracle catches them).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from stress.errors import UsageError

#: The most steps one order may have: the width of the per-step records in shared memory.
MAX_STEPS: Final = 16


class Step(StrEnum):
    """One element of an order. Declaration order gives the integer codes that compiled code uses."""

    INVALIDATE = "invalidate"
    TLBI = "tlbi"
    CLEAN = "clean"
    INSTALL = "install"
    UNMAP = "unmap"

    @property
    def code(self) -> int:
        """The step's index in `STEPS`."""
        return STEPS.index(self)

    @property
    def description(self) -> str:
        """What the step does, in one line."""
        return _DESCRIPTIONS[self]


STEPS: Final = tuple(Step)

_DESCRIPTIONS: Final = {
    Step.INVALIDATE: "store an invalid descriptor over the table entry",
    Step.TLBI: "invalidate the VMID's TLB entries everywhere and wait for completion (TLBI, DSB)",
    Step.CLEAN: "clean the block's D-cache range to PoC, then invalidate the I-cache; a no-op with FWB",
    Step.INSTALL: "store-release the block descriptor",
    Step.UNMAP: "visit the detached tables, drop a reference per counted entry, free the table pages",
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

#: Every named order, in the order in which they are printed.
NAMED_ORDERS: Final = {order.name: order for order in (UNMAP_FIRST, BLOCK_FIRST, CLEAN_FIRST)}


def vocabulary() -> str:
    """The names and steps an order may be written with, in one line."""
    return f"use one of {', '.join(NAMED_ORDERS)}, or a list of the steps {','.join(STEPS)}"


def parse_order(text: str) -> Order:
    """The order that ``text`` names or lists (``"invalidate,tlbi,install,unmap"``).

    A list keeps its own (normalised) text as its name, also when its steps are those of a named order.
    Raises `UsageError` for an unknown name or step, a repeated step, no ``install``, or nothing at all.
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
        raise UsageError(f"unknown order {shown}", vocabulary())
    if unknown:
        raise UsageError(f"order {shown}: unknown step {unknown[0][:40]!r}", vocabulary())
    steps = tuple(Step(word) for word in words)
    repeated = [step.value for index, step in enumerate(steps) if step in steps[:index]]
    if repeated:
        raise UsageError(f"order {shown}: step {repeated[0]!r} appears twice", vocabulary())
    if Step.INSTALL not in steps:
        raise UsageError(f"order {shown}: without 'install' nothing is rebuilt", vocabulary())
    if len(steps) > MAX_STEPS:
        raise UsageError(f"order {shown}: {len(steps)} steps, at most {MAX_STEPS} fit", vocabulary())
    return Order(
        name=",".join(steps),
        steps=steps,
        provenance="the command line or a config",
        description="custom steps",
    )
