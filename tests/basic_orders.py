"""Every order that can be written with some steps, and the rule in words for the basic five."""

from __future__ import annotations

import itertools
from typing import Final

from stress.orders import INSTALLS, Step

Steps = tuple[Step, ...]

#: The steps of the basic orders: 261 orders can be written with them.
BASIC: Final = (Step.INVALIDATE, Step.TLBI, Step.CLEAN, Step.INSTALL, Step.UNMAP)


def can_be_written(steps: Steps) -> bool:
    """Whether an order of these steps is executed as written; the others are refused."""
    if sum(step in INSTALLS for step in steps) != 1 or Step.UNMAP_UNLOCKED in steps[:-1]:
        return False
    return Step.CLEAR_NT not in steps or Step.INSTALL_NT in steps[: steps.index(Step.CLEAR_NT)]


def orders_of(*alphabet: Step) -> list[Steps]:
    """Every order that can be written with these steps."""
    lengths = range(1, len(alphabet) + 1)
    every = itertools.chain.from_iterable(itertools.permutations(alphabet, length) for length in lengths)
    return [steps for steps in every if can_be_written(steps)]


def is_correct(steps: Steps) -> bool:
    """The rule for basic orders without FEAT_BBM and FWB, on a block that the host wrote where it was not mapped.

    invalidate < tlbi < install; tlbi < unmap; clean < install; nothing is missing. Then the last step that touches the
    entry is install, which leaves a valid block.
    """
    if len(steps) != len(BASIC):
        return False
    invalidate, tlbi, clean, install, unmap = map(steps.index, BASIC)
    return invalidate < tlbi < install and tlbi < unmap and clean < install
