"""What tells right orders from wrong ones: a few facts about their steps, learned from the verdict on each of them.

A pattern is a set of literals (a step is there, is not there, stands before another) that no proved order has together.
The constraint is its contrary. Every order that has the pattern was refuted, by a schedule played on it or on one that
begins as it does. So a constraint is true of the vocabulary it was learned from, and all of them together admit exactly
the orders that were not refuted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

from stress.orders import Step
from stress.search.classes import Steps

#: The most literals in a pattern.
_MOST_LITERALS = 3


@dataclass(frozen=True, slots=True, order=True)
class Literal:
    """A fact about an order: `first` stands before `second`; without `second`, `first` is there, or is not."""

    first: Step
    second: Step | None = None
    there: bool = True

    def holds(self, steps: Steps) -> bool:
        """Whether the fact is true of these steps."""
        if self.second is None:
            return (self.first in steps) == self.there
        return self.first in steps and self.second in steps and steps.index(self.first) < steps.index(self.second)

    @property
    def as_premise(self) -> str:
        """``with invalidate``, ``without tlbi``, ``where tlbi is before install``."""
        if self.second is not None:
            return f"where {self.first} is before {self.second}"
        return f"{'with' if self.there else 'without'} {self.first}"

    @property
    def contrary(self) -> str:
        """The contrary of the fact, in words: what a constraint asks for if this is its pattern."""
        if self.second is not None:
            return f"{self.second} before {self.first}"
        return f"no {self.first}" if self.there else f"{self.first} is there"


@dataclass(frozen=True, slots=True)
class Constraint:
    """Literals that no right order has together."""

    pattern: tuple[Literal, ...]

    def refutes(self, steps: Steps) -> bool:
        """Whether an order has the pattern."""
        return all(literal.holds(steps) for literal in self.pattern)

    @property
    def text(self) -> str:
        """``tlbi before install``; ``without invalidate: install before tlbi``."""
        *premises, asked = sorted(self.pattern, key=lambda each: (each.second is not None, not each.there))
        given = " and ".join(each.as_premise for each in premises)
        return f"{given}: {asked.contrary}" if given else asked.contrary

    @property
    def name(self) -> str:
        """The constraint as a part of a file's name."""
        return self.text.replace(": ", "-").replace(" ", "-")


def literals(steps: Iterable[Step]) -> list[Literal]:
    """All literals about orders of these steps."""
    known = list(steps)
    there = [Literal(step, None, there) for step in known for there in (False, True)]
    return there + [Literal(one, two) for one in known for two in known if one is not two]


def learn(refuted: Sequence[Steps], others: Sequence[Steps]) -> list[Constraint]:
    """The constraints that refute all of ``refuted`` and none of ``others``, few and short.

    An order that takes more than three literals to be told from the others is left without a constraint.
    """
    every = [*refuted, *others]
    used = [step for step in Step if any(step in steps for steps in every)]
    wrong = (1 << len(refuted)) - 1
    holds = {}
    for literal in literals(used):
        mask = sum(1 << at for at, steps in enumerate(every) if literal.holds(steps))
        if mask & wrong:
            holds[literal] = mask
    found: dict[Constraint, int] = {}
    left = wrong
    for size in range(1, _MOST_LITERALS + 1):
        candidates = {}
        for pattern in combinations(holds, size):
            mask = (1 << len(every)) - 1
            for literal in pattern:
                mask &= holds[literal]
            if mask and not mask & ~wrong:
                candidates[Constraint(pattern)] = mask
        while left and candidates:
            best = max(candidates, key=lambda each: (candidates[each] & left).bit_count())
            if not candidates[best] & left:
                break
            found[best] = candidates[best]
            left &= ~candidates[best]
        if not left:
            break
    return _needed(found)


def _needed(found: dict[Constraint, int]) -> list[Constraint]:
    """Those of the constraints that refute an order which no other constraint refutes."""
    for each in reversed(list(found)):
        rest = 0
        for other, mask in found.items():
            if other is not each:
                rest |= mask
        if not found[each] & ~rest:
            del found[each]
    return list(found)
