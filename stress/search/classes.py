"""The orders that can be written with some steps, put together where they are one program."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from stress.errors import UsageError
from stress.guess import did_you_mean
from stress.orders import INSTALLS, NAMED_ORDERS, REBUILD_STEPS, Order, Step, enumerate_orders

Steps = tuple[Step, ...]

#: The vocabulary that is searched by default.
BASIC: Final = (Step.INVALIDATE, Step.TLBI, Step.CLEAN, Step.INSTALL, Step.UNMAP, Step.LOCK, Step.UNLOCK)

#: The longest vocabulary: more steps have millions of orders.
_MOST_STEPS: Final = 9


def parse_vocabulary(text: str | None) -> Steps:
    """The steps that a comma-separated list names, in the order of their declaration. Raises `UsageError`."""
    if text is None:
        return BASIC
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in REBUILD_STEPS:
            raise UsageError(
                f"unknown step {name[:40]!r}",
                did_you_mean(name, REBUILD_STEPS, f"use some of {','.join(REBUILD_STEPS)}"),
            )
    steps = tuple(step for step in REBUILD_STEPS if step in names)
    if not any(step in INSTALLS for step in steps):
        raise UsageError("without 'install' or 'install-nt' nothing is rebuilt", "add one of them to --steps")
    if len(steps) > _MOST_STEPS:
        raise UsageError(f"{len(steps)} steps make too many orders", f"give at most {_MOST_STEPS} with --steps")
    return steps


def order_of(steps: Iterable[Step]) -> Order:
    """The order of some steps, named by them."""
    steps = tuple(steps)
    return Order(",".join(steps), steps, "a search", "")


def program(steps: Iterable[Step], fwb: bool) -> Steps:
    """The steps of an order that have an effect: orders with the same program are one class.

    A ``lock`` that comes first and an ``unlock`` that comes last are left out. With FWB a clean does nothing
    (`clean_frames`), wherever it stands; only if it stands before ``lock`` does it make the rebuilder look again once
    it has mmu_lock.
    """
    executed = order_of(steps).executed
    if not fwb:
        return executed
    first = executed.index(Step.LOCK)
    early = tuple(step for step in executed[:first] if not step.facts.cleans) or executed[:first][:1]
    return (*early, *(step for step in executed[first:] if not step.facts.cleans))


def written(steps: Sequence[Step]) -> Steps:
    """A program as an engineer would write it."""
    start, end = int(steps[0] is Step.LOCK), len(steps) - int(steps[-1] is Step.UNLOCK)
    return tuple(steps[start:end])


def classes_of(vocabulary: Iterable[Step], fwb: bool) -> dict[Steps, int]:
    """The programs that can be written with these steps, short ones first, and how many orders each stands for."""
    found: dict[Steps, int] = {}
    for steps in enumerate_orders(vocabulary):
        key = program(steps, fwb)
        found[key] = found.get(key, 0) + 1
    return dict(sorted(found.items(), key=lambda each: (len(each[0]), [step.code for step in each[0]])))


def names_of(steps: Steps, fwb: bool) -> list[str]:
    """The named orders that are this program."""
    return [name for name, order in NAMED_ORDERS.items() if program(order.steps, fwb) == steps]
