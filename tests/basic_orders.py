"""Every order that can be written with some steps, and the rule in words for the basic five."""

from __future__ import annotations

from typing import Final

from stress.orders import Step

Steps = tuple[Step, ...]

#: The steps of the basic orders: 261 orders can be written with them.
BASIC: Final = (Step.INVALIDATE, Step.TLBI, Step.CLEAN, Step.INSTALL, Step.UNMAP)


def is_correct(steps: Steps) -> bool:
    """The rule for basic orders without FEAT_BBM and FWB, on a block that the host wrote where it was not mapped.

    invalidate < tlbi < install; tlbi < unmap; clean < install; nothing is missing. Then the last step that touches the
    entry is install, which leaves a valid block.
    """
    if len(steps) != len(BASIC):
        return False
    invalidate, tlbi, clean, install, unmap = map(steps.index, BASIC)
    return invalidate < tlbi < install and tlbi < unmap and clean < install
