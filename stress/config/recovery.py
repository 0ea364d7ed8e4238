"""Keys of what follows dirty logging: who makes blocks of tables again, and in which chunks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from stress.config.values import LOGGING, Rebuilder, Recover, Scenario, problem
from stress.orders import parse_order
from stress.units import format_size

#: Every key that `check` knows.
KEYS: Final = ("recover", "chunk")


def check(field: str, value: Any, given: Mapping[str, Any]) -> None:
    """Raise the problem with the value of one of `KEYS`, if there is one.

    ``given`` holds the fields declared above it that are right.
    """
    scenario = given.get("scenario")
    if scenario is None or value is None:
        return
    if scenario not in LOGGING:
        raise problem(f"scenario {scenario} stops no dirty logging; use scenario {', '.join(LOGGING)}")
    rebuilder = given.get("rebuilder")
    if field == "recover" and value is Recover.FAULT and rebuilder is Rebuilder.HYPERVISOR:
        raise problem("with rebuilder hypervisor no fault rebuilds a block; use ioctl, or rebuilder vcpu")
    if field == "chunk" and "recover" in given:
        _check_chunk(value, recovers(scenario, given["recover"], rebuilder), given)


def _check_chunk(size: int, recover: Recover | None, given: Mapping[str, Any]) -> None:
    if recover is not Recover.IOCTL and not given.get("eager_split"):
        raise problem("nothing is done in chunks; use it with recover ioctl or eager-split, or leave it out")
    block = given["block"]
    if block and size % block:
        raise problem(f"{format_size(size)} is not a multiple of the {format_size(block)} block")
    if not block or recover is not Recover.IOCTL:
        return
    together = block * given.get("batch", 1)
    if size % together:
        raise problem(f"{format_size(size)} is not a multiple of a batch, {format_size(together)}")
    if size > together:
        for name in given.get("orders", ()):
            if not parse_order(name).holds_throughout:
                raise problem(f"{name} gives mmu_lock back for each block; use chunks of {format_size(together)}")


def recovers(scenario: Scenario, recover: Recover | None, rebuilder: Rebuilder | None) -> Recover | None:
    """How blocks are recovered, if ``recover`` says no more than it must; None where no logging stops."""
    if scenario not in LOGGING:
        return None
    return recover or (Recover.IOCTL if rebuilder is Rebuilder.HYPERVISOR else Recover.FAULT)
