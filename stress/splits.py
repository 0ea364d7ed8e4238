"""Split orders as data: in which sequence a block entry becomes a table entry, the other way round than a rebuild.

Wherever a block is split the run's split order is followed: at a write fault under dirty logging, where `build` leaves
the new table empty; eagerly when logging begins; and where a scenario needs pages to rebuild.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from stress.orders import SOMEBODYS, SPLIT_STEPS, Step, StepList, lists_of, read_steps

#: Bits of a step in the one word that holds a split order.
STEP_BITS: Final = 8


@dataclass(frozen=True, slots=True)
class SplitOrder(StepList):
    """A split order. It stands under mmu_lock, of whoever splits."""

    @property
    def word(self) -> int:
        """The steps for compiled code: 1 + the code of each in `STEP_BITS` bits, the first one in the lowest."""
        return sum(step.code + 1 << STEP_BITS * at for at, step in enumerate(self.steps))


BUILD_FIRST: Final = SplitOrder(
    name="build-first",
    steps=(Step.BUILD, Step.INVALIDATE, Step.TLBI_IPA, Step.LINK),
    provenance="Linux 5.10 on at faults (stage2_map_walk_leaf), 6.5 on eagerly (kvm_pgtable_stage2_split)",
    description="writes the table before the block is broken",
)

BREAK_FIRST: Final = SplitOrder(
    name="break-first",
    steps=(Step.INVALIDATE, Step.TLBI_IPA, Step.BUILD, Step.LINK),
    provenance="Linux 4.0 to 5.9 at faults (stage2_dissolve_pmd)",
    description="breaks the block, then writes the table, inside the window",
)

SPLIT_BBML2: Final = SplitOrder(
    name="split-bbml2",
    steps=(Step.BUILD, Step.LINK, Step.TLBI_IPA),
    provenance="RFC of January 2021 (FEAT_BBM level 2)",
    description="no break: the CPU copes with both sizes in its TLBs",
)

#: Every named split order, in the order in which they are printed; the first one is what a run does if nothing is said.
SPLIT_ORDERS: Final = {order.name: order for order in (BUILD_FIRST, BREAK_FIRST, SPLIT_BBML2)}


def parse_split_order(text: str) -> SplitOrder:
    """The split order that ``text`` names or lists (``"build,invalidate,tlbi-ipa,link"``), as `parse_order`.

    Raises `UsageError` for an unknown name or step, a repeated step, no ``build`` or no ``link``, or nothing at all.
    """
    known = {step.value: (step,) for step in SPLIT_STEPS}
    return SPLIT_ORDERS.get(text.strip()) or SplitOrder(
        *read_steps("split order", text, SPLIT_ORDERS, known, _no_split), *SOMEBODYS
    )


def enumerate_split_orders() -> Iterator[tuple[Step, ...]]:
    """Every split order that can be written, each at most once: shorter ones first."""
    yield from lists_of(SPLIT_STEPS, _no_split)


def _no_split(steps: tuple[Step, ...]) -> str:
    """Why these steps split nothing; "" if they do, however wrongly."""
    missing = [step for step in SPLIT_STEPS if (step.facts.builds or step.facts.links) and step not in steps]
    return f"without '{missing[0]}' no table takes the block's place" if missing else ""
